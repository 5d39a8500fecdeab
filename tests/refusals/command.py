"""Command lines that say too little, too much or something that is not there."""

from pathlib import Path

from spfde.cli import app
from tests.refusals.table import refusal


def spfde(*words: str) -> None:
    app(list(words), prog_name="spfde", standalone_mode=False)


@refusal("`--scale` with an unknown name")
def unknown_scale(_: Path) -> None:
    spfde("plan", "--scale", "smok")


@refusal("`--experiment` with an unknown name")
def unknown_experiment(_: Path) -> None:
    spfde("plan", "--scale", "smoke", "--experiment", "tabel2")


@refusal("`--row` with an unknown name")
def unknown_row(_: Path) -> None:
    spfde("plan", "--scale", "smoke", "--experiment", "table2", "--row", "spfde-s90-f20-d21")


@refusal("`--row` without `--experiment`")
def row_alone(_: Path) -> None:
    spfde("plan", "--scale", "smoke", "--row", "spfde-s90-f20-d20")


@refusal("`--set` without a value")
def no_value(_: Path) -> None:
    spfde("plan", "--scale", "smoke", "--set", "sparsity.target")


@refusal("`--settings` and `--experiment`")
def settings_and_experiment(folder: Path) -> None:
    (folder / "settings.yaml").write_text("{}")
    spfde("plan", "--settings", str(folder / "settings.yaml"), "--experiment", "table2", "--scale", "smoke")


@refusal("`--settings` with a file that is not there")
def no_settings_file(folder: Path) -> None:
    spfde("train", "--scale", "smoke", "--settings", str(folder / "settings.yaml"), "--out", str(folder))


@refusal("`--device` with an unknown name")
def unknown_device(folder: Path) -> None:
    spfde("train", "--scale", "smoke", "--device", "tpu", "--out", str(folder / "runs"))


@refusal("`--device` that is not supported")
def unsupported_device(folder: Path) -> None:
    spfde("train", "--scale", "smoke", "--device", "meta", "--out", str(folder / "runs"))


@refusal("`spfde cost` with `--json` and `--out`")
def two_outputs(folder: Path) -> None:
    spfde("cost", "--scale", "smoke", "--json", "--out", str(folder / "costs.csv"), "--results", str(folder))


@refusal("`spfde plan --write` without a budget")
def write_alone(folder: Path) -> None:
    spfde("plan", "--scale", "smoke", "--write", str(folder / "best.yaml"))


@refusal("a budget for an experiment")
def budget_of_experiment(_: Path) -> None:
    spfde("plan", "--scale", "smoke", "--experiment", "table2", "--budget-flops", "1e9")


@refusal("a budget for another method")
def budget_of_method(_: Path) -> None:
    spfde("plan", "--scale", "smoke", "--set", "sparsity.method=set", "--budget-flops", "1e9")


@refusal("a budget of time without measured times")
def budget_of_time(folder: Path) -> None:
    spfde("plan", "--scale", "smoke", "--budget-time", "10", "--bench", str(folder / "bench.csv"))


@refusal("`--results` with a file in place of a folder")
def file_for_folder(folder: Path) -> None:
    (folder / "file").touch()
    spfde("collect", "--scale", "smoke", "--results", str(folder / "file"))


@refusal("`spfde bench` with an option of another kind of benchmark")
def option_of_another_benchmark(folder: Path) -> None:
    spfde("bench", "steps", "--scale", "smoke", "--json", "--out", str(folder / "steps.csv"))


@refusal("`--seed` and a seed by `--set`")
def two_seeds(folder: Path) -> None:
    spfde("train", "--scale", "smoke", "--seed", "7", "--set", "seed=1", "--out", str(folder / "runs"))


@refusal("measured times for a budget that is none of time")
def times_without_their_budget(folder: Path) -> None:
    spfde("plan", "--scale", "smoke", "--budget-flops", "1e15", "--bench", str(folder / "bench.csv"))
