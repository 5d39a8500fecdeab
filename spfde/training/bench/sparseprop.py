"""SparseProp (IST-DASLab, 2023) beside our kernels, where it is installed: `pip install sparseprop`.

It trains fixed unstructured masks on AVX2, and has two variants of each convolution, of which it takes the faster.
"""

import importlib
import importlib.util
from typing import Any

from torch import nn

from spfde.training.bench.networks import BATCH, Network, fixed_masks, sgd, stepper


def installed() -> bool:
    return importlib.util.find_spec("sparseprop") is not None


def step(network: Network, sparsity: float) -> Any:
    """A training step with every sparse convolution replaced by the faster of SparseProp's two variants."""
    theirs, utils = importlib.import_module("sparseprop.modules"), importlib.import_module("sparseprop.utils")
    sparse = fixed_masks(network, sparsity, "dense")
    model = sparse.model
    shapes, _ = utils.generate_intermediate_shapes(model, (3, network.size, network.size))
    for layer in sparse.masks:
        conv = model.get_submodule(layer.name)
        if isinstance(conv, nn.Conv2d):
            variants = [theirs.SparseConv2d.from_dense(conv, vectorizing_over_on=over) for over in (False, True)]
            chosen = theirs.run_and_choose(variants, input_shape=(BATCH, *shapes[layer.name]))
            utils.swap_module(model, layer.name, chosen)
    return stepper(model.train(), sgd(model), network.images(), training=sparse)
