"""Interventions on latents: against models whose predictions are known in closed form, and what
must leave them untouched.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import byte_tokenizer, tiny_model
from saelab.effects.intervene import (
    TYPES,
    changes,
    control_covariance,
    control_directions,
    intervene,
    sampled_gradients,
)
from saelab.effects.pairs import (
    Codes,
    Pairs,
    active_pairs,
    check_latents,
    silent_pairs,
    sparse_codes,
)
from saelab.effects.reactions import Text, captured_text
from saelab.lm.model import wrap
from saelab.numbers import kl_of_near
from saelab.testing.fakes import FakeModel
from saelab.types import Hook, LanguageModel, Windows
from toy_lm import BOS, D, ToyLM, V


class Readout(FakeModel):
    """Logits are `x @ out` at each position by itself; x is a table of tokens and positions."""

    def __init__(self, out: Tensor):
        self.out = out
        self.table = torch.randn(V, D, generator=torch.Generator().manual_seed(3))
        self.most = 0  # bytes of the largest logits
        super().__init__(Hook(0), D, self._embedded, self._logits)

    def _embedded(self, tokens: Tensor) -> Tensor:
        return self.table[tokens] + torch.sin(torch.arange(tokens.shape[1] * D).view(-1, D) * 1.3)

    def _logits(self, x: Tensor, since: int) -> Tensor:
        x = x[:, since:]
        self.most = max(self.most, 4 * x.shape[0] * x.shape[1] * V)
        return x @ self.out


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_readout() -> Readout:
    return Readout(torch.randn(D, V, generator=seeded(4)))


def read(lm: LanguageModel, *, n: int = 24, context: int = 9) -> tuple[Text, list[Windows], Tensor]:
    """A text of random tokens after a BOS, its windows, and the kept activations."""
    tokens = torch.randint(1, V, (n, context), generator=seeded(5))
    tokens[:, 0] = BOS
    x, _ = lm.capture(tokens)
    doc = torch.arange(n).unsqueeze(1).expand(n, context)
    whole = Windows(x, tokens, doc, torch.arange(context).expand(n, context), tokens != BOS)
    parts = [
        Windows(*(getattr(whole, f)[at : at + 10] for f in Windows.__dataclass_fields__))
        for at in range(0, n, 10)
    ]
    return captured_text(lm, parts), parts, whole.flat


def coded(x: Tensor, directions: Tensor) -> Codes:
    return sparse_codes((part @ directions.T for part in x.relu().split(7)), len(directions))


UNIT = torch.eye(D)
LATENTS = torch.arange(D)


def setup(lm: LanguageModel, contexts: int = 20, **more: int) -> tuple[Text, Codes, Pairs, Tensor]:
    text, _, x = read(lm, **more)
    codes = coded(x, UNIT)
    return text, codes, active_pairs(codes, LATENTS, contexts, seeded()), control_covariance(x)


# Nothing changes where nothing is changed ---------------------------------------------------------


def test_no_change_is_the_untouched_model_bit_for_bit():
    """A latent changed by 0 leaves the model as it is, whatever the dictionary reconstructs: the
    error stays in x.
    """
    hf = wrap(tiny_model("llama"), byte_tokenizer(), "tiny", "middle")
    for lm, width in ((ToyLM(), D), (hf, hf.d_in)):
        text, _, x = read(lm)
        directions = torch.eye(width)
        codes = sparse_codes([x.relu()], width)
        pairs = active_pairs(codes, torch.arange(4), 8, seeded())
        effects = intervene(
            text, directions, pairs, torch.zeros(1, len(pairs.row)), control_covariance(x), draws=1
        )
        assert (effects.own == 0).all() and (effects.control == 0).all()
        changed = intervene(
            text, directions, pairs, torch.ones(1, len(pairs.row)), control_covariance(x), draws=1
        )
        assert (changed.own > 0).all() and (changed.control > 0).all()


def test_zero_ablation_of_a_silent_latent_changes_nothing():
    text, codes, _, covariance = setup(ToyLM())
    silent = silent_pairs(codes, LATENTS, 20, seeded())
    effects = intervene(
        text, UNIT, silent, changes(["zero"], codes, silent, seeded()), covariance, draws=2
    )
    assert (effects.own == 0).all() and (effects.control == 0).all()


# Closed forms -------------------------------------------------------------------------------------


def test_effects_of_a_linear_readout_are_exact():
    """log p is linear in x up to its normaliser, so that KL has a closed form; and nothing reaches
    later positions.
    """
    lm = random_readout()
    text, codes, pairs, covariance = setup(lm)
    amounts = changes(TYPES[:4], codes, pairs, seeded())
    found = intervene(text, UNIT, pairs, amounts, covariance, draws=1).own
    x = read(lm)[2][pairs.row].double()  # [M, D]
    out = lm.out.double()
    for amount, kl in zip(amounts.double(), found, strict=True):
        shift = amount.unsqueeze(1) * out[pairs.latent]  # [M, V] of the logits
        p = (x @ out).softmax(-1)
        expected = ((p * shift.exp()).sum(-1)).log() - (p * shift).sum(-1)
        assert torch.allclose(kl.double(), expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("following", [0, 2, 16])
def test_effects_sum_over_the_position_and_those_that_follow(following):
    lm = ToyLM()
    text, codes, pairs, covariance = setup(lm, contexts=6)
    amounts = changes(["zero"], codes, pairs, seeded())
    found = intervene(text, UNIT, pairs, amounts, covariance, draws=1, following=following).own[0]
    for m in range(len(pairs.row)):
        w, t = int(text.window[pairs.row[m]]), int(text.position[pairs.row[m]])
        x, state = text.read(torch.tensor([w]), 9)
        changed = x.clone()
        changed[0, t, pairs.latent[m]] -= pairs.code[m]
        p, q = (lm.resume(each, state)[0].log_softmax(-1) for each in (x, changed))
        kl = (p.exp() * (p - q)).sum(-1)
        assert kl[:t].abs().max() < 1e-6
        assert float(found[m]) == pytest.approx(
            float(kl[t : t + following + 1].sum()), rel=1e-3, abs=1e-6
        )


def test_what_the_model_does_not_read_has_no_effect_and_what_it_alone_reads_no_control():
    out = torch.zeros(D, V)
    out[0] = torch.linspace(-1, 1, V)
    text, codes, pairs, covariance = setup(Readout(out))
    effects = intervene(text, UNIT, pairs, changes(["zero"], codes, pairs, seeded()), covariance)
    read_one = pairs.latent == 0
    assert (effects.own[0, read_one] > 1e-6).all() and (effects.control[0, read_one] < 1e-9).all()
    assert (effects.own[0, ~read_one] == 0).all() and (
        effects.control[0, ~read_one] > 0
    ).float().mean() > 0.9


def test_small_effects_are_not_rounding():
    """Summing p (log p - log q) in single precision errs by about 1e-8, more than this effect."""
    logits = 3 * torch.randn(4096, generator=seeded(), dtype=torch.double)
    shift = 1e-5 * torch.randn(4096, generator=seeded(1), dtype=torch.double)
    p, q = logits.log_softmax(-1), (logits + shift).log_softmax(-1)
    exact = float((p.exp() * (p - q)).sum())
    assert 1e-12 < exact < 1e-10
    p, q = p.float(), q.float()
    assert float(kl_of_near(p, q)) == pytest.approx(exact, rel=0.05)
    assert abs(float((p.exp() * (p - q)).sum()) - exact) > 5 * exact
    far = torch.tensor([0.0, -100.0]).log_softmax(-1)
    assert float(kl_of_near(far, far.flip(0))) == pytest.approx(100, rel=1e-4)
    assert float(kl_of_near(p, p)) == 0


# Changes ------------------------------------------------------------------------------------------


def test_changes_by_type():
    z = torch.tensor([[0.0, 2.0], [1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]).repeat(20, 1)
    codes = sparse_codes(z.split(3), 2)
    pairs = active_pairs(codes, torch.arange(2), 40, seeded())
    found = dict(zip(TYPES, changes(TYPES, codes, pairs, seeded()), strict=True))
    assert torch.equal(found["zero"], -pairs.code)
    # over all positions, not over those where it is active
    assert torch.equal(found["mean"], 1 - pairs.code)
    other = found["resample"] + pairs.code
    assert {*other[pairs.latent == 0].tolist()} == {0.0, 1.0, 3.0} and {
        *other[pairs.latent == 1].tolist()
    } == {0.0, 2.0}
    sigma = (40 / 39) ** 0.5
    assert torch.allclose(found["steer"][pairs.latent == 0], torch.tensor(2 * sigma))
    noise = found["noise"][pairs.latent == 0]
    assert abs(float(noise.mean())) < 0.5 and float(noise.std()) == pytest.approx(sigma, rel=0.4)
    for name in ("noise", "steer"):
        assert (found[name][pairs.latent == 1] == 0).all()  # a code that never varies
    for name in TYPES:
        assert torch.equal(changes([name], codes, pairs, seeded())[0], found[name])
    with pytest.raises(
        ValueError, match=r"\['ablate'\]; give some of zero, mean, resample, noise, steer"
    ):
        changes(["ablate"], codes, pairs, seeded())


def test_steering_adds_the_latent_and_ablation_takes_it_away():
    out = torch.zeros(D, V)
    out[0, 7] = 1.0
    lm = Readout(out)
    text, codes, pairs, _ = setup(lm)
    x, state = text.read(torch.arange(3), 9)
    clean = lm.resume(x, state).softmax(-1)[..., 7]
    steer, zero = changes(["steer", "zero"], codes, pairs, seeded())[:, pairs.latent == 0]
    assert (lm.resume(x + steer[0] * UNIT[0], state).softmax(-1)[..., 7] > clean).all()
    assert (lm.resume(x + zero[0] * UNIT[0], state).softmax(-1)[..., 7] < clean).all()


# Pairs --------------------------------------------------------------------------------------------


def test_codes_latent_by_latent():
    z = (torch.rand(50, 6, generator=seeded()) - 0.6).relu()
    z[:, 4] = 0
    codes = sparse_codes(z.split(7), 6)
    assert torch.equal(codes.count, (z > 0).sum(0)) and torch.allclose(codes.mean, z.mean(0))
    active = torch.stack([c[c > 0].std() if (c > 0).any() else torch.tensor(0.0) for c in z.T])
    assert torch.allclose(codes.deviation, active, atol=1e-6)
    latent, row = torch.meshgrid(torch.arange(6), torch.arange(50), indexing="ij")
    assert torch.equal(codes.at(latent.flatten(), row.flatten()), z.T.flatten())
    with pytest.raises(ValueError, match="no position is left"):
        sparse_codes([], 6)


def test_positions_are_spread_over_the_text_and_never_bos():
    text, codes, pairs, _ = setup(ToyLM(), contexts=12)
    assert (text.position > 0).all() and len(text.position) == 24 * 8
    for j in range(D):
        chosen, (rows, values) = pairs.row[pairs.latent == j], codes.of(j)
        assert len(chosen) == 12 and len(chosen.unique()) == 12
        place = torch.searchsorted(rows, chosen)
        assert torch.equal(rows[place], chosen) and torch.equal(
            values[place], pairs.code[pairs.latent == j]
        )
        # one from each twelfth
        assert torch.equal(((place + 0.999) * 12 / len(rows)).long(), torch.arange(12))
    silent = silent_pairs(codes, LATENTS, 10_000, seeded())
    for j in range(D):
        both = torch.cat([silent.row[silent.latent == j], codes.of(j)[0]])
        # all that are left, each once
        assert torch.equal(both.sort().values, torch.arange(codes.n))


def test_latents_that_cannot_be_measured_are_refused():
    z = torch.ones(100, 5)
    z[29:, 1] = 0
    z[:, 3] = 0
    codes = sparse_codes([z], 5)
    assert check_latents(codes, torch.tensor([4, 0])).tolist() == [4, 0]
    with pytest.raises(
        ValueError, match=r"latents 7, -1 do not exist; the dictionary has latents 0 to 4"
    ):
        check_latents(codes, torch.tensor([7, 0, -1]))
    with pytest.raises(
        ValueError, match=r"latents 1, 3 are active on fewer than 30 of 100 positions"
    ):
        check_latents(codes, torch.tensor([0, 1, 3]))
    with pytest.raises(ValueError, match="1 latents are given more than once"):
        check_latents(codes, torch.tensor([0, 0]))


# Controls -----------------------------------------------------------------------------------------


def test_controls_are_orthogonal_and_as_long_and_follow_the_covariance():
    covariance = torch.diag(torch.tensor([4.0, 1.0, 0.25, 1.0, 1.0, 1.0]))
    d = UNIT[5].expand(20_000, D)
    u = control_directions(d, torch.linalg.cholesky(covariance), seeded())
    assert torch.allclose(u.norm(dim=1), torch.ones(len(u))) and u[:, 5].abs().max() < 1e-6
    share = u.square().mean(0)
    assert share[0] > 1.7 * share[1] > 3 * share[2] and torch.allclose(
        share[1:2], share[3:4], rtol=0.1
    )


@pytest.mark.parametrize("rare", [True, False])
def test_massive_dimensions_do_not_make_the_control(rare):
    x = torch.randn(4_000, 64, generator=seeded())
    massive = x.clone()
    massive[:: 500 if rare else 1, 3] *= 1_000
    diagonal = control_covariance(massive).diagonal()
    assert float(diagonal[3] / diagonal.sum()) < (0.05 if rare else 25 / (25 + 32))
    assert float(massive.var(0)[3] / massive.var(0).sum()) > 0.95  # what the plain covariance says
    others = [i for i in range(64) if i != 3]
    assert torch.allclose(diagonal[others], x.var(0)[others], rtol=0.02)
    assert torch.allclose(control_covariance(x), x.T.cov(), atol=0.01)


# Memory and chance --------------------------------------------------------------------------------


def test_memory_is_bounded_and_changes_no_number():
    lm = random_readout()
    text, codes, pairs, covariance = setup(lm)
    amounts = changes(["zero", "noise"], codes, pairs, seeded())
    found = []
    for budget in (2 * 4 * V * 9 * 3, 1 << 20):
        lm.most = 0
        found.append(intervene(text, UNIT, pairs, amounts, covariance, draws=2, max_bytes=budget))
        assert 0 < 2 * lm.most <= budget
    assert lm.most > 4 * V * 9 * 20  # many pairs share a forward
    assert torch.allclose(found[0].own, found[1].own, rtol=1e-4, atol=1e-8)
    assert torch.allclose(found[0].control, found[1].control, rtol=1e-4, atol=1e-8)


def test_equal_seeds_give_equal_effects():
    text, codes, pairs, covariance = setup(ToyLM())
    amounts = changes(["zero"], codes, pairs, seeded())
    first, again, other = (
        intervene(text, UNIT, pairs, amounts, covariance, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first.own, again.own) and torch.equal(first.control, again.control)
    assert torch.equal(first.own, other.own) and not torch.equal(first.control, other.control)


# Gradients ----------------------------------------------------------------------------------------


def test_the_fisher_estimate_is_the_effect_of_a_small_change():
    """E[(delta . g)^2] / 2 over sampled labels is the KL summed over all later positions."""
    lm = ToyLM(sharpness=1.0)
    text, _, pairs, covariance = setup(lm, n=6)
    small = torch.full((1, len(pairs.row)), 0.02)
    exact = intervene(text, UNIT, pairs, small, covariance, draws=1).own[0]
    x, state = text.read(torch.arange(6), 9)
    square, generator = torch.zeros(6, 9, D), seeded()
    for _ in range(1_500):
        square += sampled_gradients(lm, x, state, generator).square() / 1_500
    estimate = 0.02**2 * square[text.window[pairs.row], text.position[pairs.row], pairs.latent] / 2
    assert float(estimate.sum() / exact.sum()) == pytest.approx(1, abs=0.03)
    assert torch.corrcoef(torch.stack([estimate, exact]))[0, 1] > 0.99


def test_the_gradient_of_the_divergence_itself_is_zero():
    """Gradient times activation of the KL at the clean point says nothing, which is why it is not
    offered.
    """
    lm = ToyLM()
    x, state = lm.capture(torch.arange(9).unsqueeze(0))
    clean = lm.resume(x, state).log_softmax(-1)
    moved = x.clone().requires_grad_()
    kl_of_near(clean, lm.resume(moved, state).log_softmax(-1)).sum().backward()
    assert moved.grad is not None and moved.grad.abs().max() < 1e-5
    assert sampled_gradients(lm, x, state, seeded()).abs().max() > 0.1


def test_what_gives_no_effect_or_no_gradient_is_refused():
    with pytest.raises(
        TypeError, match=r"Tensor is no language model .* a dictionary alone predicts nothing"
    ):
        captured_text(UNIT, [])  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="is no language model"):
        Text(UNIT, lambda rows, length: (UNIT, None), LATENTS, LATENTS, 1)  # pyright: ignore[reportArgumentType]

    class Frozen(Readout):
        def resume(self, x: Tensor, state: Any, since: int = 0) -> Tensor:
            return super().resume(x.detach(), state, since)

    lm = Frozen(torch.randn(D, V))
    with pytest.raises(
        ValueError, match=r"have no gradient .* blocks.0.hook_resid_post: take .*, unquantised"
    ):
        sampled_gradients(lm, *lm.capture(torch.ones(2, 3).long()), seeded())
    text, _, pairs, covariance = setup(random_readout())
    with pytest.raises(ValueError, match=r"amounts are \[120\]; give one row per type, \[S, 120\]"):
        intervene(text, UNIT, pairs, torch.zeros(120), covariance)
