"""What the benchmark says of speed: the share of the epoch's time that freezing and sieving save, and the overhead."""

import pandas as pd

from spfde.results.statistics import UNKNOWN, Effect, one_sample


def per_share(times: pd.DataFrame, kind: str) -> Effect:
    """Share of the epoch's time saved per share of FLOPs saved (1: linear), over the benchmark's repeats.

    Of a repeat it is the slope through the origin over its levels (least squares).
    """
    wide = _by_repeat(times)
    if not {kind, "masks"} <= set(wide.columns.get_level_values("kind")):
        return UNKNOWN
    base, found = pd.DataFrame(wide["masks"]), pd.DataFrame(wide[kind])
    saved = 1 - found.to_numpy() / base.to_numpy()[:, :1]
    levels = found.columns.to_numpy(dtype=float)
    return one_sample((saved @ levels) / (levels @ levels))


def at_share(times: pd.DataFrame, kind: str, share: float) -> Effect:
    """The same at one level alone: the level of the benchmark that saves this share of the FLOPs, within 0.005."""
    wide = _by_repeat(times)
    if not {kind, "masks"} <= set(wide.columns.get_level_values("kind")):
        return UNKNOWN
    base, found = pd.DataFrame(wide["masks"]), pd.DataFrame(wide[kind])
    levels = [level for level in found.columns if abs(float(level) - share) < 0.005]
    return one_sample((1 - found[levels[0]] / base.iloc[:, 0]) / share) if levels else UNKNOWN


def overhead(times: pd.DataFrame, kind: str) -> Effect:
    """What freezing or sieving adds to the epoch's time, as a share of it, over the benchmark's repeats.

    Of a repeat it is the mean over the kind's levels. Sieving is held against masks alone in as many steps and with as
    many mask updates, so that fewer samples are no gain. What freezing adds cannot be told from what it saves: it is
    held against the share of the time of masks alone that its FLOPs leave, and is negative where it saves more.
    """
    if not {"steps", "step_seconds", "mask_updates"} <= set(times):
        return UNKNOWN
    by_repeat = times.set_index("repeat")
    found = by_repeat[by_repeat["kind"] == kind]
    masks = by_repeat[by_repeat["kind"] == "masks"].reindex(found.index)
    same_steps = found["steps"] * masks["step_seconds"] + masks["mask_updates"]
    linear = (1 - found["flops_reduction"]) * masks["seconds_per_epoch"]
    without = linear if kind == "freezing" else same_steps
    return one_sample((found["seconds_per_epoch"] / without - 1).groupby(level="repeat").mean())


def _by_repeat(times: pd.DataFrame) -> pd.DataFrame:
    return times.pivot_table(index="repeat", columns=["kind", "flops_reduction"], values="seconds_per_epoch")
