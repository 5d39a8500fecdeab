"""Intervals for new images: what an effect on accuracy would be on another test set of the same kind.

The spread over seeds tells how sure an effect is on this test set. Where records keep which test images each run got
right, a crossed bootstrap draws runs and images at once (Owen, Ann. Appl. Stat. 1, 2007): the images are the same for
all runs, so that a hard image counts against every row. Its intervals are conservative: wider than their level asks
for (`crossed_bootstrap` says why).
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from spfde.errors import SpfdeError
from spfde.results.statistics import Variance, combined

FILE = "predictions.safetensors"
CORRECT = "correct"  # the name of the tensor: one byte per image, 1 where the last network was right


def read_correct(folder: Path) -> np.ndarray | None:
    """Which test images a run got right, bool (images,); None where its record does not say.

    Raises:
        SpfdeError: the file cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SpfdeError(f"{path} cannot be read", "remove the record and train that run again") from error
    return tensors[CORRECT].astype(bool) if CORRECT in tensors else None


def crossed_bootstrap(
    rows: Sequence[np.ndarray], weights: Sequence[float], level: float = 0.95, repeats: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The interval of a weighted sum of accuracies for new seeds and new images, in points.

    Each repeat draws as many images as there are, with replacement and the same for all rows, and as many runs of each
    row as it has. Few runs drawn from themselves vary too little, by the factor (n - 1) / n in the variance, so their
    deviations from the row's mean are stretched by its root. The interval is that of Student's t around the estimate,
    with the bootstrap's standard error: percentiles are too narrow for a handful of runs.

    It is conservative. What varies between images alone or between runs alone is counted once, but what varies from
    run to run in a way of its own for each image (an image that one run gets right and another one does not) is drawn
    three times: with the images, with the runs, and with both. It counts three times in the variance (with n images
    3 - 2 / n times), so that the error is up to the root of 3 times too large, where nothing else varies.

    Args:
        rows: for each row which run got which image right, bool (runs, images); at least two runs each.
        weights: what the rows' accuracies are multiplied with, e.g. (1, -1).
        level: of the two-sided interval.
        repeats: draws.
        seed: of the draws.
    """
    images = rows[0].shape[1]
    random = np.random.default_rng(seed)
    counts = random.multinomial(images, np.full(images, 1 / images), size=repeats).T / images
    drawn, mean, seeds = np.zeros(repeats), 0.0, []
    for correct, weight in zip(rows, weights, strict=True):
        runs = len(correct)
        by_run = 100 * correct.astype(float) @ counts  # accuracy of each run on the drawn images, (runs, repeats)
        center = by_run.mean(axis=0)
        chosen = random.integers(runs, size=(runs, repeats))
        again = np.take_along_axis(by_run, chosen, axis=0).mean(axis=0)
        drawn += weight * (center + math.sqrt(runs / (runs - 1)) * (again - center))
        own = 100 * correct.mean(axis=1)
        mean += weight * float(own.mean())
        seeds.append(Variance(weight**2 * float(own.var(ddof=1)) / runs, runs - 1))
    # The part of the error that comes from few seeds has few degrees of freedom; the rest, from many images, has many.
    total, of_seeds = float(drawn.var(ddof=1)), combined(seeds)
    rest = Variance(max(0.0, total - of_seeds.value), images - 1)
    df = combined([of_seeds, rest]).df
    half = float(stats.t.ppf((1 + level) / 2, df)) * math.sqrt(total)
    return mean - half, mean + half
