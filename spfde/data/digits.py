"""scikit-learn's bundled digits: 1797 grey images of 8x8 pixels, for runs that take seconds and need no download."""

import importlib.util
from pathlib import Path

import torch

from spfde.data.cache import Decoded, Files
from spfde.data.split import Split, stratified
from spfde.errors import SpfdeError


class Digits(Decoded):
    """The test part of the UCI set "Optical Recognition of Handwritten Digits", with one fixed stratified split."""

    def files(self, root: Path | None) -> Files:
        package = importlib.util.find_spec("sklearn")  # importing it would take longer than loading
        path = Path(package.origin).parent / "datasets/data/digits.csv.gz" if package and package.origin else None
        if path is None or not path.exists():
            raise SpfdeError("scikit-learn's bundled digits are not installed", "pip install scikit-learn")
        return {"all": [path]}

    def decode(self, sources: Files) -> tuple[Split, Split]:
        from sklearn.datasets import load_digits

        bundle = load_digits()
        images = torch.from_numpy(bundle.images).mul(255 / 16).add(0.5).to(torch.uint8).unsqueeze(1)
        everything = Split(images, torch.from_numpy(bundle.target).long())
        test = stratified(everything.labels, self.info.test_samples, "digits")
        return everything.select(~test), everything.select(test)
