"""Table 2 of the SpFDE paper (arXiv 2209.11204): accuracy, training FLOPs and memory of every method and level."""

from spfde.results.labels import label, levels, percent
from spfde.results.material import Material
from spfde.results.tables import costs
from spfde.results.tables.table import Table, times_ten


def build(material: Material) -> Table:
    return costs.table("table2", "Accuracy, training FLOPs and memory", material, _differences(material))


def _differences(material: Material) -> list[str]:
    """Why the SpFDE rows cost other than the reference says, where the reference values are there to compare with."""
    power = costs.flops_power(material)

    def number(flops: float) -> str:
        return f"{flops / 10**power:.4g}"

    sentences = []
    for row in material.plan:
        cost = material.costs(row)["flops.paper"]
        base = {**row, "row": "", "method": "mest-ems", "freezing": 0, "sieving": 0}
        mest, ratio = (
            material.reference_value(base, "training_flops"),
            material.reference_value(row, "training_flops_vs_mest"),
        )
        itself = material.reference_value(row, "training_flops") if row["method"] == "spfde" else None
        if itself:
            expected, text = itself.value, f"a reference value of {number(itself.value)} ({itself.standing})"
        elif mest and ratio:
            expected = ratio.value * mest.value
            text = f"{ratio.value:.2g} ({ratio.standing}) × {number(mest.value)} ({mest.standing}) = {number(expected)}"
        else:
            continue
        sentences.append(
            f"{label(row)} {levels(row)} at {percent(row['sparsity'])} costs {number(cost)} in *paper*, "
            f"{100 * (cost / expected - 1):+.1f}% against {text}; freezing removes "
            f"{100 * row['freezing_achieved']:.1f}% of the FLOPs where {percent(row['freezing'])} are wanted."
        )
    if sentences:
        sentences.append(
            "Why these differ: freezing begins only on the grid of the update interval, and the first convolution is "
            "counted dense. The reference values cannot both hold for one schedule of MEST+EM&S scaled by "
            "(1 - x)(1 - y), and the densities that the paper counted are not available."
        )
    return [f"FLOPs {times_ten(power)}: " + " ".join(sentences)] if sentences else []
