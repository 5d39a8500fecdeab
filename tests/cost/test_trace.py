import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spfde.cost import LayerProfile, Profile, build_trace, make_trace, read_trace, validate_trace, write_trace
from spfde.cost.trace import EXECUTED, HAPPENED
from spfde.errors import SpfdeError

COLUMNS = [
    "epoch",
    "layer",
    "samples",
    "forward_density",
    "input_grad_density",
    "weight_grad_density",
    "activation_density",
    "frozen",
    "peak_density",
    "extra_macs",
    "executed_extra_macs",
    "mask_updates",
    "scored_samples",
    "explored",
    "overlap_first",
    "overlap_updates",
    "executed_forward",
    "executed_input_grad",
    "executed_weight_grad",
]

CHAIN = Profile(
    layers=(
        LayerProfile("stem", "conv", 100, 10, 7, 5, block=0, input_block=-1),
        LayerProfile("body", "conv", 200, 20, 8, 7, block=1, input_block=0),
        LayerProfile("head", "linear", 30, 30, 3, 8, block=2, input_block=1),
    ),
    blocks=2,
    parameters=65,
    trainable=(65, 54, 33),
    saved_bytes=(90, 50, 20),
)


def some_trace():
    return make_trace(CHAIN, np.array([[1, 0.1, 0.2], [1, 0.3, 1 / 3]]), [50, 40], [0, 1])


def test_rows_are_epochs_times_layers():
    trace = build_trace(
        ["a", "b"],
        samples=[10, 20, 30],
        forward_density=np.array([[1, 0.1], [1, 0.2], [1, 0.3]]),
        input_grad_density=0,
        weight_grad_density=[0.5, 0.6, 0.7],
        activation_density=1,
        frozen=False,
        peak_density=1,
        extra_macs=np.arange(6).reshape(3, 2),
        executed_extra_macs=0,
        mask_updates=[1, 0, 1],
        scored_samples=0,
    )
    assert list(trace.columns) == COLUMNS
    assert trace["epoch"].tolist() == [0, 0, 1, 1, 2, 2]
    assert trace["layer"].tolist() == ["a", "b"] * 3
    assert trace["samples"].tolist() == [10, 10, 20, 20, 30, 30]
    assert trace["forward_density"].tolist() == [1, 0.1, 1, 0.2, 1, 0.3]
    assert trace["weight_grad_density"].tolist() == [0.5, 0.5, 0.6, 0.6, 0.7, 0.7]
    assert trace["extra_macs"].tolist() == [0, 1, 2, 3, 4, 5]
    kinds = [str(dtype) for dtype in trace.dtypes.drop("layer")]
    assert kinds == ["int64", "int64", *["float64"] * 4, "bool", *["float64"] * 3, *["int64"] * 2, *["float64"] * 6]
    assert trace["mask_updates"].tolist() == [1, 1, 0, 0, 1, 1]
    assert trace[HAPPENED].isna().all(axis=None)  # nobody said what happened


def test_made_trace_applies_the_rules_of_freezing():
    densities = np.tile([1.0, 0.1, 0.2], (3, 1))
    trace = make_trace(CHAIN, densities, 50, [0, 1, 2])
    assert trace["frozen"].tolist() == [False, False, False, True, False, False, True, True, False]
    # the first layer never has one, nor what reads the frozen prefix alone
    assert trace["input_grad_density"].tolist() == [0, 0.1, 0.2, 0, 0, 0.2, 0, 0, 0]
    assert trace["weight_grad_density"].tolist() == [1, 0.1, 0.2, 0, 0.1, 0.2, 0, 0, 0.2]
    assert trace["forward_density"].tolist() == densities.ravel().tolist()


def test_made_trace_of_what_is_not_told():
    """What ran is what was needed, nothing was ever denser, and a frozen layer's mask stays."""
    trace = make_trace(CHAIN, np.full((2, 3), 0.1), 50, [0, 2], extra_macs=7.0, mask_updates=np.array([[2], [3]]))
    assert set(trace["executed_extra_macs"]) == {7.0} and set(trace["peak_density"]) == {0.1}
    assert trace["mask_updates"].tolist() == [2, 2, 2, 0, 0, 3]
    assert make_trace(CHAIN, np.ones((1, 3)), 50, executed_extra_macs=9.0)["extra_macs"].tolist() == [0, 0, 0]


def test_made_trace_with_dense_weight_gradients():
    trace = make_trace(CHAIN, np.full((2, 3), 0.1), 50, [0, 1], weight_grad=1.0, activation_density=0.1)
    assert trace["weight_grad_density"].tolist() == [1, 1, 1, 0, 1, 1]
    assert set(trace["activation_density"]) == {0.1}


number = st.floats(0, 1)


@settings(max_examples=25, deadline=None)
@given(arrays(float, (3, 3), elements=number), st.floats(0, 1e300), st.booleans())
def test_files_give_back_every_bit(tmp_path_factory, densities, extra, compressed):
    trace = make_trace(CHAIN, densities, 50, [0, 1, 2], extra_macs=extra)
    trace["overlap_first"] = densities.ravel()[::-1]
    path = tmp_path_factory.mktemp("trace") / ("layers.csv.gz" if compressed else "layers.csv")
    write_trace(trace, path)
    pd.testing.assert_frame_equal(read_trace(path), trace, check_exact=True)


def test_a_record_older_than_the_executed_columns_is_read(tmp_path):
    some_trace().drop(columns=EXECUTED).to_csv(tmp_path / "layers.csv", index=False)
    pd.testing.assert_frame_equal(read_trace(tmp_path / "layers.csv"), some_trace(), check_exact=True)


def test_executed_shares_are_of_the_passes_that_run():
    """The stem frozen in the second epoch; a third of dense work in what skips its zeros."""
    trace = make_trace(CHAIN, np.ones((2, 3)), 50, [0, 1], executed=np.array([[1, 1 / 3, 1]] * 2))
    assert trace["executed_forward"].tolist() == [1, 1 / 3, 1, 1, 1 / 3, 1]
    assert trace["executed_input_grad"].tolist() == [0, 1 / 3, 1, 0, 0, 1]
    assert trace["executed_weight_grad"].tolist() == [1, 1 / 3, 1, 0, 1 / 3, 1]


def test_equal_traces_give_equal_bytes(tmp_path):
    for name in ("one.csv.gz", "two.csv.gz"):
        write_trace(some_trace(), tmp_path / name)
    assert (tmp_path / "one.csv.gz").read_bytes() == (tmp_path / "two.csv.gz").read_bytes()
    write_trace(some_trace(), tmp_path / "plain.csv")
    assert gzip.decompress((tmp_path / "one.csv.gz").read_bytes()) == (tmp_path / "plain.csv").read_bytes()
    header, first = (tmp_path / "plain.csv").read_text().splitlines()[:2]
    assert header == ",".join(COLUMNS)
    assert first == "0,stem,50,1.0,0.0,1.0,1.0,False,1.0,0.0,0.0,0,0,,,,,,"


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda trace: trace.drop(columns="frozen"), "its columns are epoch"),
        (lambda trace: trace.iloc[:0], "values are missing"),
        (lambda trace: trace.assign(samples=[None, *trace["samples"][1:]]), "values are missing"),
        (lambda trace: trace.iloc[:-1], "same layers in every epoch"),
        (lambda trace: trace.iloc[::-1], "same layers in every epoch|do not count from 0"),
        (lambda trace: trace.assign(layer="stem"), "same layers in every epoch"),
        (lambda trace: trace.assign(epoch=[0, 0, 0, 2, 2, 2]), "do not count from 0"),
        (lambda trace: trace.assign(epoch=1), "same layers in every epoch"),
        (lambda trace: trace.assign(forward_density=1.5), "forward_density is out of range"),
        (lambda trace: trace.assign(extra_macs=np.inf), "extra_macs is out of range"),
        (lambda trace: trace.assign(executed_extra_macs=-1.0), "executed_extra_macs is out of range"),
        (lambda trace: trace.assign(peak_density=1.1), "peak_density is out of range"),
        (lambda trace: trace.assign(mask_updates=-1), "mask_updates is out of range"),
        (lambda trace: trace.assign(explored=-0.1), "explored is out of range"),
        (lambda trace: trace.assign(samples=-1), "samples is out of range"),
        (lambda trace: trace.assign(samples=1.5), "samples holds other things than int64"),
        (lambda trace: trace.assign(frozen="maybe"), "frozen holds other things than bool"),
        (lambda trace: trace.assign(extra_macs="much"), "could not convert"),
    ],
)
def test_a_broken_trace_is_refused(tmp_path, damage, cause):
    broken = damage(some_trace())
    with pytest.raises(SpfdeError, match=cause):
        validate_trace(broken)
    broken.to_csv(tmp_path / "layers.csv", index=False)
    with pytest.raises(SpfdeError, match=r"layers\.csv"):
        read_trace(tmp_path / "layers.csv")


def test_files_that_are_no_trace(tmp_path):
    with pytest.raises(SpfdeError, match="there is no trace"):
        read_trace(tmp_path / "layers.csv")
    for name, content in (("empty.csv", b""), ("zip.csv.gz", b"not gzip"), ("text.csv", b"\xff\xfe\x00bad")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SpfdeError, match=name):
            read_trace(tmp_path / name)
    write_trace(some_trace(), tmp_path / "cut.csv.gz")
    (tmp_path / "cut.csv.gz").write_bytes((tmp_path / "cut.csv.gz").read_bytes()[:-20])
    with pytest.raises(SpfdeError, match=r"cut\.csv\.gz"):
        read_trace(tmp_path / "cut.csv.gz")
