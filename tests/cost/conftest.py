import pytest

from spfde.cost import profile
from spfde.models import blocks, build


@pytest.fixture
def freeze():
    """Freezes leading blocks as training does: no gradients, evaluation mode."""

    def freeze(model, found, count):
        model.train()
        for block in found[:count]:
            for name in block.modules:
                model.get_submodule(name).requires_grad_(False).eval()

    return freeze


@pytest.fixture(scope="session")
def resnet32():
    return build("resnet32_2x", 100)


@pytest.fixture(scope="session")
def resnet32_profile(resnet32):
    return profile(resnet32, (3, 32, 32), blocks(resnet32))
