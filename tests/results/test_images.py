"""Intervals for new images, by a crossed bootstrap over runs and images."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from spfde.errors import SpfdeError
from spfde.results.images import FILE, crossed_bootstrap, read_correct
from spfde.results.statistics import contrast


def draw(random: np.random.Generator, skill: float, hardness: np.ndarray, runs: int, spread: float) -> np.ndarray:
    """Runs of a row: an image is right where the run's skill beats its hardness and some noise."""
    level = skill + spread * random.normal(size=(runs, 1))
    return level + 0.3 * random.normal(size=(runs, len(hardness))) > hardness


def test_seeds_alone_where_images_do_not_matter() -> None:
    """Every image is as hard as every other one and right by the run's share: what is left is the spread of seeds."""
    shares = [[0.70, 0.71, 0.72, 0.73], [0.66, 0.68, 0.67, 0.69]]
    rows = []
    for row in shares:
        correct = np.zeros((4, 20_000), dtype=bool)
        for run, share in enumerate(row):
            correct[run, : round(share * 20_000)] = True
        rows.append(correct)
    seeds = contrast([{("cpu", seed): 100 * value for seed, value in enumerate(row)} for row in shares], (1, -1))
    low, high = crossed_bootstrap(rows, (1, -1), 0.9, repeats=4000)
    assert (low + high) / 2 == pytest.approx(4.0)
    # The images of the two rows are nested, so that those that differ between them vary too: a little wider.
    assert 1.0 <= (high - low) / (seeds.interval(0.9)[1] - seeds.interval(0.9)[0]) < 1.25


def test_images_alone_where_runs_are_alike() -> None:
    """McNemar: of N images b are right in the first row alone and c in the second; the variance is b + c - (b-c)²/N."""
    images, b, c = 1000, 120, 80
    first, second = np.zeros(images, dtype=bool), np.zeros(images, dtype=bool)
    first[:500], second[:500] = True, True
    first[500 : 500 + b], second[700 : 700 + c] = True, True
    low, high = crossed_bootstrap([np.tile(first, (3, 1)), np.tile(second, (3, 1))], (1, -1), 0.95, repeats=6000)
    error = 100 * np.sqrt(b + c - (b - c) ** 2 / images) / images
    assert (low + high) / 2 == pytest.approx(100 * (b - c) / images)
    assert (high - low) / 2 == pytest.approx(1.962 * error, rel=0.05)


def test_what_differs_by_run_and_image_counts_three_times() -> None:
    """Every answer is a coin of its own: the variance of a mean of R runs and N images is p (1 - p) / (R N)."""
    runs, images, right, ratios = 8, 200, 0.7, []
    random = np.random.default_rng(7)
    for draw in range(60):
        rows = [random.random((runs, images)) < right for _ in range(2)]
        low, high = crossed_bootstrap(rows, (1, -1), 0.95, repeats=300, seed=draw)
        ratios.append(((high - low) / 2 / 1.984) ** 2 / (2 * 100**2 * right * (1 - right) / (runs * images)))
    assert np.mean(ratios) == pytest.approx(3 - 2 / images, rel=0.08)  # t of about 98 degrees of freedom is 1.984


def test_the_interval_holds_the_truth_of_the_population_as_often_as_it_says() -> None:
    random, times = np.random.default_rng(3), 150
    covered: float = 0
    truth = np.mean([_population(random, skill) for skill in (0.55,) * 20]) - np.mean(
        [_population(random, skill) for skill in (0.45,) * 20]
    )
    for trial in range(times):
        hardness = random.uniform(0, 1, 400)
        rows = [draw(random, skill, hardness, 5, 0.02) for skill in (0.55, 0.45)]
        low, high = crossed_bootstrap(rows, (1, -1), 0.9, repeats=200, seed=trial)
        covered += low <= truth <= high
    assert 0.84 <= covered / times <= 0.99  # 90 %; it is known to be a little too wide


def _population(random: np.random.Generator, skill: float) -> float:
    return 100 * float(draw(random, skill, random.uniform(0, 1, 20_000), 5, 0.02).mean())


def test_one_byte_an_image_is_read(tmp_path: Path) -> None:
    assert read_correct(tmp_path) is None
    save_file({"correct": np.array([1, 0, 1], dtype=np.uint8)}, tmp_path / FILE)
    found = read_correct(tmp_path)
    assert found is not None and found.tolist() == [True, False, True]
    save_file({"classes": np.array([7, 0, 99], dtype=np.uint8)}, tmp_path / FILE)
    assert read_correct(tmp_path) is None  # classes say nothing without the labels
    (tmp_path / FILE).write_bytes(b"no tensors")
    with pytest.raises(SpfdeError, match="cannot be read; remove the record"):
        read_correct(tmp_path)
