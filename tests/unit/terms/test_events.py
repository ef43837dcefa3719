"""Starting sparse and resampling: what they change and what they leave alone."""

import pytest
import torch

from saelab.sae.activations import Gated, ReLU
from saelab.sae.jump_relu import JumpReLU
from saelab.sae.module import SAE
from saelab.terms.base import Step
from saelab.terms.events import resample, start_sparse
from saelab.types import Tokens

N, D, L = 128, 8, 20
DEAD = [2, 7, 11]
ALIVE = [j for j in range(L) if j not in DEAD]
ACTS = [ReLU, lambda: JumpReLU(L, threshold=0.1), lambda: Gated(L)]


def trained(act) -> tuple[SAE, torch.optim.Adam, torch.Tensor]:
    """An SAE after three steps of Adam, so that every moment is non-zero."""
    g = torch.Generator().manual_seed(0)
    sae, x = SAE(D, L, act, generator=g), torch.randn(N, D, generator=g)
    optimizer = torch.optim.Adam(
        [p for p in sae.parameters() if p.requires_grad], lr=1e-2, fused=True
    )
    for _ in range(3):
        ((x - sae(x)).square().sum() + (sae.pre(x) ** 2).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return sae, optimizer, x


def seen(sae, x, dead=(), seed=0) -> Step:
    mask = torch.zeros(L, dtype=torch.bool)
    mask[list(dead)] = True
    pre = sae.pre(x)
    z = sae.act.train_codes(pre, 0.5)
    return Step(
        sae,
        {"main": Tokens(x)},
        x,
        pre,
        z,
        sae.decode(z),
        mask,
        0.5,
        torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("l0", [1.0, 2.5, 6.0])
def test_start_sparse_gives_the_stated_l0(act, l0):
    sae, optimizer, x = trained(act())
    start_sparse(l0)(sae, optimizer, seen(sae, x))
    with torch.no_grad():
        reached = float((sae.act.train_codes(sae.pre(x), 0.0) > 0).sum()) / N
    assert reached == pytest.approx(l0, abs=2 / N)


@pytest.mark.parametrize("act", [ReLU, lambda: Gated(L)])
def test_start_sparse_wakes_nothing(act):
    sae, optimizer, x = trained(act())
    before = sae.encode(x) > 0
    start_sparse(1e6)(sae, optimizer, seen(sae, x))
    assert before.any() and torch.equal(sae.encode(x) > 0, before)


@pytest.mark.parametrize("act", ACTS)
def test_resampling_touches_dead_latents_only_and_forgets_their_moments(act):
    sae, optimizer, x = trained(act())
    before = {name: t.clone() for name, t in sae.state_dict().items()}
    states = {p: {k: v.clone() for k, v in s.items()} for p, s in optimizer.state.items()}
    resample(sae, optimizer, seen(sae, x, DEAD))
    axis = {"W_enc": 1}
    per_latent = [name for name, t in before.items() if L in t.shape]
    assert len(per_latent) == 3 + {"relu": 0, "jump_relu": 1, "gated": 3}[sae.act.name]
    for name, parameter in sae.named_parameters():
        if name not in per_latent:
            assert torch.equal(parameter, before[name])
            continue
        i = axis.get(name, 0)
        alive, dead = torch.tensor(ALIVE), torch.tensor(DEAD)
        assert torch.equal(parameter.index_select(i, alive), before[name].index_select(i, alive)), (
            name
        )
        for key in ("exp_avg", "exp_avg_sq"):
            if parameter in states:
                moment, old = optimizer.state[parameter][key], states[parameter][key]
                assert torch.equal(moment.index_select(i, alive), old.index_select(i, alive))
                assert (
                    not moment.index_select(i, dead).any() and old.index_select(i, alive).any()
                ), (name, key)
    assert all(optimizer.state[p]["step"] == 3 for p in states)


def test_resampled_latents_point_at_badly_reconstructed_inputs():
    sae, optimizer, x = trained(ReLU())
    x[5] *= 100  # by far the worst: drawn first with all but certainty
    step = seen(sae, x, DEAD)
    resample(sae, optimizer, step)
    torch.testing.assert_close(sae.W_dec[DEAD].norm(dim=1), torch.ones(3))
    error = (x - step.x_hat).detach()
    unit = error / error.norm(dim=1, keepdim=True)
    cosines = sae.W_dec.detach()[DEAD] @ unit.T
    assert cosines[:, 5].max() == pytest.approx(1, abs=1e-5)
    assert all(row.max() == pytest.approx(1, abs=1e-5) for row in cosines)
    assert len({int(row.argmax()) for row in cosines}) == 3  # no input twice
    norms = sae.W_enc.detach().norm(dim=0)
    torch.testing.assert_close(norms[DEAD], (0.2 * norms[ALIVE].mean()).expand(3))
    assert not sae.b_enc[DEAD].any()


def test_more_dead_latents_than_inputs():
    sae, optimizer, x = trained(ReLU())
    before = sae.W_dec.detach().clone()
    resample(sae, optimizer, seen(sae, x[:2], range(L - 1)))
    assert (sae.W_dec != before).any(1).tolist() == [True] * (L - 1) + [False]


def test_thresholds_of_resampled_latents_are_ordinary():
    sae, optimizer, x = trained(JumpReLU(L, threshold=0.1))
    with torch.no_grad():
        sae.act.threshold[DEAD] = 9.0
    resample(sae, optimizer, seen(sae, x, DEAD))
    assert sae.act.threshold[DEAD].tolist() == [sae.act.threshold[ALIVE].median().item()] * 3


@pytest.mark.parametrize("dead", [(), range(L)])
def test_none_or_all_dead_changes_nothing_and_draws_nothing(dead):
    sae, optimizer, x = trained(ReLU())
    before, step = {name: t.clone() for name, t in sae.state_dict().items()}, seen(sae, x, dead)
    state = step.generator.get_state()
    resample(sae, optimizer, step)
    assert all(torch.equal(t, before[name]) for name, t in sae.state_dict().items())
    assert torch.equal(state, step.generator.get_state())


def test_resampling_depends_on_the_generator_alone():
    rows = []
    for seed in (1, 1, 2):
        sae, optimizer, x = trained(ReLU())
        resample(sae, optimizer, seen(sae, x, DEAD, seed))
        rows.append(sae.W_dec.detach()[DEAD])
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
