"""What the benchmark measured of a scale: files of its results, or published ones where there are none of its own."""

from pathlib import Path

STEPS = "steps.csv"  # `spfde bench steps`
EPOCHS = "bench.csv"  # `spfde bench epochs`, means
REPEATS = "bench.repeats.csv"  # the same by repeat
SCALING = "scaling.csv"  # `spfde bench scaling`
MEASURED = (STEPS, EPOCHS, REPEATS, SCALING)


def measured_path(folder: Path, name: str) -> Path:
    """Where a file of measured times is: in the folder of a scale's results, or if there is none, published.

    Args:
        folder: results/<scale>.
        name: one of `MEASURED`.
    """
    fresh, published = folder / name, folder.parent / "published" / folder.name / name
    return published if published.is_file() and not fresh.is_file() else fresh


def repeats_path(folder: Path) -> Path:
    """Where the repeats of measured epochs are: in the folder of a scale's results, or if there are none, published.

    Args:
        folder: results/<scale>.
    """
    return measured_path(folder, REPEATS)
