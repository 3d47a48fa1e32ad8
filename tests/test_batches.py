"""Which samples one update sees."""

import copy
import math
import pickle
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from torchgd import GradientDescent, MiniBatchGradientDescent, StochasticGradientDescent
from torchgd.batches import ORDERS, Batches
from torchgd.errors import InputError

sizes = st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


def params() -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor(1.0))]


@given(size=sizes, order=st.sampled_from(ORDERS), seed=st.integers(0, 2**63 - 1))
def test_every_epoch_is_whole(size: tuple[int, int], order: str, seed: int) -> None:
    n, batch_size = size
    batches = Batches(n, batch_size, order, torch.Generator().manual_seed(seed))
    for _ in range(2):
        epoch = list(batches)
        assert len(epoch) == len(batches) == math.ceil(n / batch_size)
        assert [len(batch) for batch in epoch[:-1]] == [batch_size] * (len(epoch) - 1)
        assert len(epoch[-1]) == n - batch_size * (len(epoch) - 1)  # what is left
        seen = list(chain(*epoch))
        if order == "replacement":
            assert all(0 <= i < n for i in seen)
        else:
            assert sorted(seen) == list(range(n))
        if order == "sequential":
            assert seen == list(range(n))


@given(size=sizes, order=st.sampled_from(ORDERS), seed=st.integers(0, 2**63 - 1))
def test_the_batches_are_the_indices_cut(size: tuple[int, int], order: str, seed: int) -> None:
    n, batch_size = size
    first = Batches(n, batch_size, order, torch.Generator().manual_seed(seed))
    second = Batches(n, batch_size, order, torch.Generator().manual_seed(seed))
    for _ in range(2):
        indices = second.indices()
        assert (indices.dtype, indices.shape) == (torch.int64, (n,))
        assert list(chain(*first)) == indices.tolist()


@pytest.mark.parametrize("order", ORDERS)
def test_a_data_loader_takes_them_as_they_are(order: str) -> None:
    x = torch.arange(10.0)
    optimizer = MiniBatchGradientDescent(
        params(), batch_size=4, order=order, generator=torch.Generator().manual_seed(5)
    )
    same = MiniBatchGradientDescent(
        params(), batch_size=4, order=order, generator=torch.Generator().manual_seed(5)
    )
    loader = DataLoader(TensorDataset(x), batch_sampler=optimizer.batches(10), generator=torch.Generator())
    assert len(loader) == 3
    for _ in range(3):  # a fresh epoch each
        assert [xs.tolist() for (xs,) in loader] == [x[batch].tolist() for batch in same.batches(10)]


def test_the_shuffled_order_is_that_of_torchs_sampler() -> None:
    peer = BatchSampler(
        RandomSampler(range(10), generator=torch.Generator().manual_seed(5)), 4, drop_last=False
    )
    assert list(Batches(10, 4, "shuffled", torch.Generator().manual_seed(5))) == list(peer)
    assert list(Batches(10, 4)) == list(BatchSampler(SequentialSampler(range(10)), 4, drop_last=False))


@pytest.mark.parametrize("order", ["shuffled", "replacement"])
def test_the_seed_decides(order: str) -> None:
    def epochs(seed: int) -> list[list[list[int]]]:
        batches = Batches(50, 8, order, torch.Generator().manual_seed(seed))
        return [list(batches) for _ in range(3)]

    assert epochs(1) == epochs(1)
    assert epochs(1) != epochs(2)
    first, second, _ = epochs(1)
    assert first != second


def test_without_a_generator_the_global_one_is_used() -> None:
    torch.manual_seed(3)
    first = list(Batches(20, 5, "shuffled"))
    torch.manual_seed(3)
    assert list(Batches(20, 5, "shuffled")) == first


def test_sequential_batches_use_no_randomness() -> None:
    before = torch.get_rng_state()
    list(Batches(20, 5))
    assert torch.equal(torch.get_rng_state(), before)


def test_with_replacement_samples_come_several_times_and_not_at_all() -> None:
    seen = list(chain(*Batches(1000, 10, "replacement", torch.Generator().manual_seed(0))))
    # 1000 independent draws of 1000 leave out 1000/e of them, ± √(1000 · (1/e) (1 − 2/e)) ≈ 10
    assert abs(len(set(seen)) - 1000 * (1 - 1 / math.e)) < 5 * 10


def test_the_methods_differ_in_their_batches_alone() -> None:
    assert list(GradientDescent(params()).batches(3)) == [[0, 1, 2]]
    assert list(StochasticGradientDescent(params()).batches(3)) == [[0], [1], [2]]
    assert list(MiniBatchGradientDescent(params(), batch_size=2).batches(3)) == [[0, 1], [2]]
    assert list(MiniBatchGradientDescent(params(), batch_size=3).batches(3)) == [[0, 1, 2]]
    assert list(MiniBatchGradientDescent(params(), batch_size=1).batches(3)) == [[0], [1], [2]]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda batches: pickle.loads(pickle.dumps(batches))])
def test_a_copy_goes_on_from_where_the_generator_is(duplicate) -> None:  # type: ignore[no-untyped-def]
    batches = Batches(10, 3, "shuffled", torch.Generator().manual_seed(1))
    list(batches)
    twin = duplicate(batches)
    assert list(twin) == list(batches)


ERRORS = [
    (lambda: Batches(3, 4), "batch_size is 4, but there are 3 samples; give 1 to 3"),
    (lambda: Batches(3, 0), "batch_size is 0, but there are 3 samples; give 1 to 3"),
    (lambda: Batches(3, 2.0), "batch_size is 2.0, but there are 3 samples; give 1 to 3"),  # type: ignore[arg-type]
    (lambda: Batches(3, -1), "batch_size is -1, but there are 3 samples; give 1 to 3"),
    (lambda: GradientDescent(params()).batches(0), "there are no samples; give at least one"),
    (lambda: StochasticGradientDescent(params()).batches(0), "there are no samples; give at least one"),
    (
        lambda: MiniBatchGradientDescent(params(), batch_size=5).batches(3),
        "batch_size is 5, but there are 3 samples; give 1 to 3",
    ),
    (
        lambda: MiniBatchGradientDescent(params(), batch_size=0),
        "batch_size is 0; give a whole number, 1 or more",
    ),
    (
        lambda: MiniBatchGradientDescent(params(), batch_size=2.5),  # type: ignore[arg-type]
        "batch_size is 2.5; give a whole number, 1 or more",
    ),
    (
        lambda: StochasticGradientDescent(params(), order="random"),
        "order is 'random'; give one of sequential, shuffled, replacement",
    ),
    (
        lambda: Batches(3, 1, "random"),
        "order is 'random'; give one of sequential, shuffled, replacement",
    ),
]


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_what_is_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == message
