"""Which codes TopK and BatchTopK keep, and the k-th largest of a batch, against a sort."""

import numpy as np
import pytest
import torch

from saelab.sae.activations import BatchTopK, TopK
from saelab.sae.kernels import kth_largest

pytestmark = pytest.mark.usefixtures("float64")
L = 12


def test_topk_keeps_k_of_every_row_whatever_the_ties():
    pre = torch.tensor([[1.0, 3, 2, 5], [2, 2, 2, 2], [-1, 0.5, -2, 0], [-1, -2, -3, -4]])
    z = TopK(2)(pre)
    assert z[0].tolist() == [0, 3, 0, 5]
    assert sorted(z[1].tolist()) == [0, 0, 2, 2]  # exactly two of the four equal ones
    assert z[2].tolist() == [0, 0.5, 0, 0]  # only positive entries are kept
    assert z[3].tolist() == [0, 0, 0, 0]
    assert torch.equal(TopK(9)(pre), pre.relu())  # more than there are


def test_topk_follows_its_schedule_and_ends_at_the_final_k():
    pre = torch.rand(6, 10) + 0.1
    act = TopK(lambda progress: 8 - 5 * progress)
    # 5.5 rounds to even
    assert [int((act.train_codes(pre, p) > 0).sum(1).unique()) for p in (0.0, 0.5, 1.0)] == [
        8,
        6,
        3,
    ]
    assert torch.equal(act(pre), act.train_codes(pre, 1.0)) and act.config() == {"k": 3}


def test_batch_topk_keeps_k_times_n_of_the_batch():
    pre = torch.randn(40, L, generator=torch.Generator().manual_seed(1))
    z = BatchTopK(2.5).train_codes(pre, 1.0)
    kept = sorted(pre.flatten().tolist(), reverse=True)[: round(2.5 * 40)]
    assert sorted(z[z > 0].tolist(), reverse=True) == kept and torch.equal(z[z > 0], pre[z > 0])
    assert (z > 0).sum(1).unique().numel() > 1  # rows differ: the L0 is a mean


def test_batch_topk_keeps_all_entries_that_tie_at_the_threshold_and_no_negative_one():
    pre = torch.tensor([[3.0, 1, 1, -1], [1, -2, -3, -4]])
    assert BatchTopK(1).train_codes(pre, 1.0).tolist() == [[3, 1, 1, 0], [1, 0, 0, 0]]
    assert BatchTopK(4).train_codes(pre, 1.0).tolist() == [[3, 1, 1, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("l0", [0.5, 1.0, 3.0, 5.25])
def test_batch_topk_threshold_gives_the_l0_asked_for(l0):
    pre = torch.randn(400, L, generator=torch.Generator().manual_seed(2))
    act = BatchTopK(3)
    act.calibrate_(pre, l0)
    ordered = np.sort(pre.numpy().ravel())[::-1]
    count = round(l0 * 400)
    assert float(act.threshold) == pytest.approx(
        (ordered[count - 1] + ordered[count]) / 2, abs=1e-12
    )
    z = act(pre)
    assert int((z > 0).sum()) == count
    np.testing.assert_array_equal(z, np.where(pre > float(act.threshold), pre, 0))


def test_batch_topk_threshold_is_never_negative():
    pre = -torch.rand(50, L)
    act = BatchTopK(3)
    act.calibrate_(pre, 3)
    assert float(act.threshold) == 0 and not act(pre).any()


@pytest.mark.parametrize(
    "kind", ["normal", "ties", "equal", "negative", "sparse", "sorted", "columns"]
)
# the last one is sampled
@pytest.mark.parametrize("shape", [(1,), (7,), (33, 5), (4, 3, 6), (300, 1_000)])
def test_kth_largest_is_that_of_a_sort(kind, shape):
    g = torch.Generator().manual_seed(5)
    values = torch.randn(shape, generator=g, dtype=torch.float32)
    if kind == "ties":
        values = values.round()
    elif kind == "equal":
        values = torch.full(shape, 0.25)
    elif kind == "negative":
        values = -values.abs() - 1
    elif kind == "sparse":
        values = values * (torch.rand(shape, generator=g) < 0.01)
    elif kind == "sorted":
        values = values.flatten().sort().values.reshape(shape)
    elif kind == "columns":  # a few columns hold all that is large: a strided sample may miss them
        values[..., ::97] += 5
    ordered = values.flatten().sort(descending=True).values
    n = values.numel()
    for k in sorted({1, 2, n // 1_000, n // 100, n // 3, n - 1, n}):
        if 1 <= k <= n:
            assert kth_largest(values, k).item() == ordered[k - 1].item(), k


@pytest.mark.parametrize("k", [0, -1, 8])
def test_kth_largest_refuses_a_k_that_does_not_exist(k):
    with pytest.raises(ValueError, match=rf"k is {k}; it must lie in 1\.\.7"):
        kth_largest(torch.zeros(7), k)
