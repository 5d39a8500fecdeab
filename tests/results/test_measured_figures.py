"""The figures of measured times say what their reader needs: how often, what the bars are, against what."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

from spfde.results.figures import scaling, speed
from spfde.results.figures.style import Drawing

MEASURED = Path(__file__).parents[2] / "docs/measured"


def drawn(drawing: Callable[[pd.DataFrame], Drawing], name: str) -> Figure:
    return drawing(pd.read_csv(MEASURED / f"{name}.csv")).figure


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))


def test_scaling_says_its_turns_its_networks_and_between_which_widths_it_grows_so() -> None:
    figure = drawn(scaling.drawing, "scaling")
    said = words(figure)
    assert "n = 2" in said and "ResNet-32 2x" in said and "Exponent, width 8 to 16" in said
    assert "GSE: 1.83 (1.59 to 2.06)" in said  # log2(0.174384 / 0.048945), medians of two turns
    shown = [[label.get_text() for label in axes.get_xticklabels()] for axes in figure.axes[:2]]
    assert shown == [["1", "2", "4", "8", "16"], ["2", "4", "8", "16"]]  # bytes are those beyond width 1


def test_speed_says_its_turns_its_intervals_and_what_dense_means() -> None:
    said = words(drawn(speed.drawing, "speed"))
    assert "n = 7" in said and "95 %" in said
    assert "frozen on both sides" in said and "dense under bf16" in said
