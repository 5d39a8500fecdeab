"""What a loop of one's own trains on: samples outside of the partial set or too many, other batch sizes, indices."""

import warnings
from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, TensorDataset

from spfde import SparseTraining
from spfde.data import Indexed
from spfde.errors import SpfdeError, SpfdeWarning
from spfde.settings import RunSettings
from tests.test_own_model import DATA, EPOCHS, SAMPLES, epochs, network, plain_step, settings, sgd, wrap

IMAGES, LABELS = DATA.tensors
DENSE_DATA = {"freezing": 0.0, "sieving": 0.0}
ANOTHER_SIZE = r"steps of epoch 0 train on {} samples, and training\.batch_size is 10: .*; make the two agree"


def training(chosen: RunSettings | None = None, **more: Any) -> SparseTraining:
    model = network()
    return wrap(model, sgd(model), chosen, **more)


def step(sparse: SparseTraining, indices: Tensor) -> None:
    logits = plain_step(sparse.model, sparse.optimizer, IMAGES[indices], LABELS[indices])
    sparse.observe(indices, logits, LABELS[indices])


def epoch_of(sparse: SparseTraining, batches: Iterable[Any], epoch: int = 0) -> None:
    sparse.begin_epoch(epoch)
    for indices in batches:
        step(sparse, torch.as_tensor(indices))


def shuffled(batch: int) -> list[list[int]]:
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(7)).tolist()
    return list(BatchSampler(order, batch, drop_last=False))


# samples


def test_a_loader_without_the_sampler_is_an_error_of_the_next_epoch_or_the_end() -> None:
    sparse = training()
    epoch_of(sparse, shuffled(10))
    message = (
        r"epoch 0 trained on 10 samples outside of its partial set of 30; give the DataLoader sampler=sparse\.samp"
    )
    for boundary in (lambda: sparse.begin_epoch(1), sparse.finish):
        with pytest.raises(SpfdeError, match=message):
            boundary()


@pytest.mark.parametrize("schedule", ["circular", "once"])
def test_one_sample_outside_is_one_too_many(schedule: str) -> None:
    """Also where their number is right, and where the partial set was the whole one for some epochs."""
    sparse = training(settings(sieving__schedule=schedule, sieving__start=0.5))
    for epoch in epochs(sparse.model, sparse, range(5)):
        assert len(sparse.partial_set) == SAMPLES and epoch < 5
    sparse.begin_epoch(5)
    inside, outside = (which.nonzero().flatten() for which in (sparse.partial_set, ~sparse.partial_set))
    for batch in torch.cat([inside[:-1], outside[:1]]).split(10):
        step(sparse, batch)
    with pytest.raises(SpfdeError, match="epoch 5 trained on 1 sample outside of its partial set of 30"):
        sparse.finish()


def test_no_sample_of_the_sampler_is_outside_even_after_resuming() -> None:
    with warnings.catch_warnings(action="error"):
        sparse = training()
        for _ in epochs(sparse.model, sparse, range(3)):
            pass
        again = training()
        again.model.load_state_dict(sparse.model.state_dict())
        again.optimizer.load_state_dict(sparse.optimizer.state_dict())
        again.load_state_dict(sparse.state_dict())
        for each in (sparse, again):
            for _ in epochs(each.model, each, range(3, EPOCHS)):
                pass
            each.finish()


@pytest.mark.parametrize("sieving", [0.0, 0.25])
def test_samples_that_are_served_twice_are_warned_of_once(sieving: float) -> None:
    sparse = training(settings("set", freezing=0.0, sieving=sieving))
    loader = DataLoader(Indexed(DATA), batch_size=10, sampler=sparse.sampler)
    planned = 30 if sieving else 40
    with pytest.warns(SpfdeWarning, match=rf"epoch 0 trained on {2 * planned} samples where {planned} are pl") as said:
        for epoch in range(3):
            epoch_of(sparse, (indices for _ in range(2) for indices, _, _ in loader), epoch)
        sparse.finish()
    assert len(said) == 1 and said[0].filename == __file__
    assert sparse.trace()["samples"].tolist()[:1] == [2 * planned]


# samples per step


@pytest.mark.parametrize("size", [20, 5, 8])
def test_a_loader_of_another_batch_size_is_warned_of_once(size: int) -> None:
    sparse = training(settings("set", **DENSE_DATA))
    with pytest.warns(SpfdeWarning, match=ANOTHER_SIZE.format(size)) as said:
        for epoch in range(2):
            epoch_of(sparse, shuffled(size), epoch)
        sparse.finish()
    assert len(said) == 1 and said[0].filename == __file__


@pytest.mark.parametrize("size", [20, 30])
def test_so_it_is_in_an_epoch_of_few_steps(size: int) -> None:
    """30 samples are a batch of 20 and one of 10; a scaler that skips one of three steps makes the same sums."""
    sparse = training(settings("set", freezing=0.0))
    loader = DataLoader(Indexed(DATA), batch_size=size, sampler=sparse.sampler)
    epoch_of(sparse, (indices for indices, _, _ in loader))
    with pytest.warns(SpfdeWarning, match=ANOTHER_SIZE.format(size)):
        sparse.finish()


def parts(sparse: SparseTraining, batches: list[list[int]], every: int, observe_last: bool, last: bool = True) -> None:
    """An epoch that accumulates gradients over several batches."""
    sparse.begin_epoch(0)
    for number, indices in enumerate(map(torch.tensor, batches), start=1):
        logits = sparse.model(IMAGES[indices])
        F.cross_entropy(logits, LABELS[indices]).backward()
        if not observe_last:
            sparse.observe(indices, logits, LABELS[indices])
        if number % every == 0 or (last and number == len(batches)):
            sparse.optimizer.step()
            sparse.optimizer.zero_grad()
        if observe_last:
            sparse.observe(indices, logits, LABELS[indices])


@pytest.mark.parametrize("observe_last", [False, True])
@pytest.mark.parametrize(("size", "every", "last"), [(5, 2, True), (3, 3, True), (4, 3, False), (10, 1, True)])
def test_accumulated_parts_short_ends_and_dropped_ones_are_no_other_batch_size(
    size: int, every: int, last: bool, observe_last: bool
) -> None:
    sparse = training(settings("set", **DENSE_DATA, batch_size=size * every))
    with warnings.catch_warnings(action="error"):
        parts(sparse, shuffled(size), every, observe_last, last)
        sparse.finish()


@pytest.mark.parametrize("observe_last", [False, True])
def test_parts_that_make_other_steps_are_warned_of(observe_last: bool) -> None:
    sparse = training(settings("set", **DENSE_DATA))
    parts(sparse, shuffled(10), 2, observe_last)
    with pytest.warns(SpfdeWarning, match=ANOTHER_SIZE.format(20)):
        sparse.finish()


@pytest.mark.parametrize(("skipped", "size"), [(1, 5), (3, 5), (1, 15)])
def test_steps_that_a_scaler_skips_are_no_other_batch_size(skipped: int, size: int) -> None:
    sparse = training(settings("set", **DENSE_DATA, batch_size=size))
    with warnings.catch_warnings(action="error"):
        sparse.begin_epoch(0)
        for number, indices in enumerate(map(torch.tensor, shuffled(size))):
            logits = sparse.model(IMAGES[indices])
            F.cross_entropy(logits, LABELS[indices]).backward()
            if number >= skipped:
                sparse.optimizer.step()
            sparse.optimizer.zero_grad()
            sparse.observe(indices, logits, LABELS[indices])
        sparse.finish()


def test_a_training_set_smaller_than_a_batch_makes_one_step() -> None:
    sparse = training(settings("set", **DENSE_DATA, batch_size=64))
    with warnings.catch_warnings(action="error"):
        epoch_of(sparse, shuffled(SAMPLES))
        sparse.finish()


# several processes


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """This is one of two processes that train together."""
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)


def ranks(subset: list[int], batch: int) -> list[list[list[int]]]:
    """The batches of each of two processes, as a DistributedSampler makes them: padded to an even number of samples."""
    samplers: list[DistributedSampler[int]] = [DistributedSampler(subset, 2, rank, shuffle=False) for rank in range(2)]
    return [[[subset[place] for place in part] for part in BatchSampler(each, batch, False)] for each in samplers]


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("sieving", [0.0, 0.075])
def test_whole_batches_of_a_padded_distributed_sampler_are_right(sieving: float) -> None:
    """37 samples of 40 are in the partial set, and become 38."""
    sparse = training(settings("set", freezing=0.0, sieving=sieving, batch_size=16))
    with warnings.catch_warnings(action="error"):
        for _ in range(2):
            sparse.begin_epoch(sparse.begun)
            members = torch.arange(SAMPLES) if sparse.partial_set is None else sparse.partial_set.nonzero().flatten()
            batches = [one + other for one, other in zip(*ranks(members.tolist(), 8), strict=True)]
            assert sum(map(len, batches)) == (38 if sieving else 40)
            for indices in map(torch.tensor, batches):
                plain_step(sparse.model, sparse.optimizer, IMAGES[indices], LABELS[indices])
                sparse.count(indices, torch.ones(len(indices), dtype=torch.bool))
        sparse.finish()


@pytest.mark.usefixtures("two")
def test_a_process_that_observes_its_own_share_is_told_to_count_whole_batches() -> None:
    """The advice for one process, another batch size, would make the plan wrong."""
    sparse = training(settings("set", **DENSE_DATA, batch_size=16))
    epoch_of(sparse, ranks(list(range(SAMPLES)), 8)[0])
    message = (
        r"steps of epoch 0 count 8 samples in this one of 2 processes, and training\.batch_size is 16: .*; "
        r"in each process call count with the indices of the whole batch"
    )
    with pytest.warns(SpfdeWarning, match=message) as said:
        sparse.finish()
    assert len(said) == 1 and "make the two agree" not in str(said[0].message)


@pytest.mark.parametrize(("more", "warned"), [(9, False), (10, True)])
def test_less_than_a_batch_too_many_is_padding(more: int, warned: bool) -> None:
    sparse = training(settings("set", **DENSE_DATA))
    everything = [*range(SAMPLES), *range(more)]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        epoch_of(sparse, BatchSampler(everything, 10, drop_last=False))
        sparse.finish()
    assert bool(said) == warned


# indices


class Named(Dataset[tuple[str, Tensor, Tensor]]):
    """Gives the name of each sample in place of its position."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, position: int) -> tuple[str, Tensor, Tensor]:
        return f"{position:04d}.png", *DATA[position]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (("0001.png", "0002.png"), r"the indices are a tuple that holds '0001\.png', .* as spfde\.data\.Indexed does"),
        (["a", "b"], "the indices are a list that holds 'a', and sieving counts samples by number"),
        (torch.tensor([0.0, 1.0]), r"indices of shape \(2,\) and type torch\.float32 .* as spfde\.data\.Indexed does"),
        (torch.tensor([True, False]), r"indices of shape \(2,\) and type torch\.bool"),
        (torch.tensor([[0], [1]]), r"indices of shape \(2, 1\) and type torch\.int64"),
        (torch.tensor([39, 40]), "index 40 is none of the 40 samples of the training set, which are 0 to 39; give Sp"),
        (torch.tensor([-1, 3]), "index -1 is none of the 40 samples"),
    ],
)
def test_what_is_no_position_in_the_training_set_is_refused(indices: Any, message: str) -> None:
    sparse = training()
    sparse.begin_epoch(0)
    with pytest.raises(SpfdeError, match=message):
        sparse.observe(indices, torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))
    assert not sparse.history.samples.any()


def test_a_data_set_of_names_trains_where_nothing_is_sieved_and_is_refused_where_it_is() -> None:
    for chosen in (settings("set", **DENSE_DATA), settings("set", freezing=0.0)):
        sparse = training(chosen)
        sparse.begin_epoch(0)
        for names, images, labels in DataLoader(Named(), batch_size=10):
            logits = plain_step(sparse.model, sparse.optimizer, images, labels)
            if chosen.sieving.removed:
                with pytest.raises(SpfdeError, match=r"the indices are a .* that holds '0000\.png', .*Indexed"):
                    sparse.observe(names, logits, labels)
                break
            sparse.observe(names, logits, labels)
        else:
            assert sparse.history.samples[0] == SAMPLES


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_positions_of_every_whole_type_count_the_same(dtype: torch.dtype) -> None:
    """torch would take indices of type uint8 for a mask."""
    sieves = []
    for kind in (torch.int64, dtype):
        sparse = training()
        sparse.begin_epoch(0)
        where = sparse.partial_set.nonzero().flatten()[:10]
        for correct in (where % 2 == 0, where % 3 == 0):
            sparse.count(where.to(kind), correct)
        sieves.append(sparse.sieve.state_dict())
    assert all(torch.equal(value, sieves[1][name]) for name, value in sieves[0].items())
    assert sieves[0]["forgotten"].any()


def test_an_index_of_a_part_of_the_data_set_is_no_index_of_the_whole_one() -> None:
    """A `samples=` that is too small for the data set."""
    model = network()
    sparse = SparseTraining(model, sgd(model), settings(), input_shape=(1, 6, 6), samples=30)
    sparse.begin_epoch(0)
    loader = DataLoader(Indexed(TensorDataset(IMAGES, LABELS)), batch_size=40)
    for indices, images, labels in loader:
        with pytest.raises(SpfdeError, match="index 39 is none of the 30 samples of the training set"):
            sparse.observe(indices, plain_step(model, sparse.optimizer, images, labels), labels)
