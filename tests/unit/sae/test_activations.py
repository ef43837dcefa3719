"""What an activation is asked, whoever it is: gate, count, thresholds, prices."""

import pytest
import torch

from saelab.sae.activations import BatchTopK, Gated, Priced, ReLU, TopK, Trimmed
from saelab.sae.jump_relu import JumpReLU

L = 6
PRE = torch.randn(40, L, generator=torch.Generator().manual_seed(0))
ACTS = [ReLU, Trimmed, lambda: TopK(2), lambda: BatchTopK(2), lambda: JumpReLU(L), lambda: Gated(L)]


@pytest.mark.parametrize("act", ACTS)
def test_gate_and_count_tell_who_is_active(act):
    act = act()
    active = act(PRE) > 0
    assert torch.equal(act.count(PRE), active.sum(-1).float())
    assert not active[act.gate(PRE) <= 0].any()


@pytest.mark.parametrize("act", ACTS)
def test_starting_above_a_level_moves_one_thing_of_each_latent(act):
    act, b_enc = act(), torch.zeros(L)
    with torch.no_grad():
        act.start_above_(0.5, b_enc)
    own = isinstance(act, JumpReLU | Gated)
    assert torch.equal(b_enc, torch.zeros(L) if own else torch.full((L,), -0.5))
    if own:
        assert torch.equal(act(PRE) > 0, PRE > 0.5) or isinstance(act, Gated)
        assert torch.equal(act.gate(PRE) > 0, PRE > 0.5) or isinstance(act, JumpReLU)
    assert len(act.per_latent()) == len(list(act.parameters()))


def test_only_what_ranks_can_be_priced():
    assert isinstance(BatchTopK(2).priced(L), Priced)
    for act in (ReLU(), Trimmed(), TopK(2), JumpReLU(L), Gated(L)):
        before = act(PRE)
        act.charge_(torch.full((L,), 9.0))
        assert act.priced(L) is None and torch.equal(act(PRE), before)
    priced = Priced(2, L)
    priced.charge_(torch.full((L,), 9.0))
    assert not priced(PRE).any() and PRE.max() < 9
