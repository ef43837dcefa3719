"""The temporal terms: closed forms, order, documents, scale, and the null."""

from dataclasses import replace

import pytest
import torch

from saelab.sae.activations import ReLU
from saelab.sae.module import SAE
from saelab.terms.base import Step
from saelab.terms.temporal.penalties import (
    LagCorrelation,
    PositionCorrelation,
    Smoothness,
    TokenContrast,
)
from saelab.terms.temporal.pieces import Gap, doubling
from saelab.terms.temporal.prediction import Prediction, position_means_need
from saelab.testing.fakes import SparseSource
from saelab.types import Cursor, Tokens, Windows

D = 8


def windows(x, doc=None, keep=None, every=1) -> Windows:
    """Pieces of activations `[B, T, D]`, each of a document of its own where none is given."""
    b, t = x.shape[:2]
    doc = torch.arange(b).unsqueeze(1).expand(b, t) if doc is None else doc
    keep = torch.ones(b, t, dtype=torch.bool) if keep is None else keep
    pos = (torch.arange(t) * every).expand(b, t)
    return Windows(x, torch.zeros(b, t, dtype=torch.long), doc, pos, keep)


def a_step(batch: Windows, scale=1.0, slow=4, train=False) -> Step:
    """A step whose SAE copies x: latent j is +e_j, latent D + j is -e_j; codes are relu(+-x)."""
    sae = SAE(D, 2 * D, ReLU(), blocks={"slow": range(slow)})
    with torch.no_grad():
        sae.W_dec.copy_(torch.cat([torch.eye(D), -torch.eye(D)]))
        sae.W_enc.copy_(sae.W_dec.T)
    sae.requires_grad_(train)
    x = batch.flat * scale
    pre, z = sae.codes(x, 0.5)
    dead, generator = torch.zeros(2 * D, dtype=torch.bool), torch.Generator().manual_seed(0)
    stats = {"need.mean": torch.zeros(batch.x.shape[1] * 4, D), "need.spread": torch.tensor(1.0)}
    batches = {"main": batch, "pieces": batch}
    return Step(sae, batches, x, pre, z, sae.decode(z), dead, 0.5, generator, scale, None, stats)


def prediction(**changes) -> Prediction:
    given = {"reach": 8, "untied": False, "permuted": False} | changes
    return Prediction("need", "pieces", range(4), D, **given)


def positive(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_what_persists_is_predicted_by_a_gain_of_one_and_what_does_not_by_none():
    still = torch.zeros(16, 5, D)
    still[..., :4] = positive(16, 1, 4)  # equal along the text, within the slow block
    size = float(still.square().sum(2).mean())
    term = prediction()
    with torch.no_grad():
        term.gain.fill_(1.0)
        assert float(term(a_step(windows(still)))[0]) == 0
        term.gain.fill_(0.0)
        assert float(term(a_step(windows(still)))[0]) == pytest.approx(size)
        term.gain.fill_(0.5)
        value, pieces = term(a_step(windows(still)))
        assert float(value) == pytest.approx(size / 4)
    assert {"gain_1", "gain_2", "gain_4", "slow_l0"} == set(pieces)
    assert float(pieces["slow_l0"]) == pytest.approx(4)
    # what lies outside of the block says nothing
    outside = still.roll(4, 2)
    value, _ = term(a_step(windows(outside)))
    assert value.item() == pytest.approx(size)


def test_the_learned_gain_is_the_correlation_along_the_text():
    generator = torch.Generator().manual_seed(0)
    n, r = 20_000, 0.6
    first = torch.randn(n, 1, D, generator=generator).abs()  # the block's codes are x there
    noise = torch.randn(n, 1, D, generator=generator).abs()
    kept = torch.rand(n, 1, D, generator=generator) < r
    x = torch.cat([first, torch.where(kept, first, noise)], 1)
    mean = x.mean((0, 1))
    x[..., 4:] = 0
    step = a_step(windows(x))
    step.stats["need.mean"][:] = torch.where(torch.arange(D) < 4, mean, 0)
    term = prediction()
    torch.optim.LBFGS(term.parameters(), max_iter=50).step(lambda: _backward(term, step))
    # least squares: <y, R> / <R, R> with y = x - mean, R = x
    variance, square = float(first[..., :4].var()), float(x[..., :4].square().mean())
    assert term.gain[1].item() == pytest.approx(r * variance / square, abs=0.02)


def _backward(term, step):
    term.zero_grad()
    value = term(step)[0]
    value.backward(retain_graph=True)
    return value


@pytest.mark.parametrize(
    "term",
    [
        prediction(),
        Smoothness("pieces", variance=False, relative=True),
        LagCorrelation("pieces"),
        TokenContrast("pieces", product=False, pre=False, temperature=0.1),
    ],
    ids=lambda term: type(term).__name__,
)
def test_permuting_tokens_changes_the_loss_and_moving_whole_pieces_does_not(term):
    walk = positive(32, 6, D).cumsum(1)
    generator = torch.Generator().manual_seed(1)
    mixed = walk.flatten(0, 1)[torch.randperm(32 * 6, generator=generator)].view(32, 6, D)
    moved = walk[torch.randperm(32, generator=generator)]

    def value(x):
        result = term(a_step(windows(x)))
        return (result[0] if isinstance(result, tuple) else result).item()

    assert value(moved) == pytest.approx(value(walk), rel=1e-4)
    assert value(mixed) > 1.02 * value(walk)


def test_neighbours_of_two_documents_and_unkept_positions_are_left_out():
    x = torch.zeros(2, 4, D)
    x[:, :2, 0], x[:, 2:, 0] = 1, 9
    doc = torch.tensor([[0, 0, 1, 1], [2, 2, 3, 3]])
    change = Smoothness("pieces", variance=False, relative=False)
    assert float(change(a_step(windows(x)))) == pytest.approx(8 / 3)
    assert float(change(a_step(windows(x, doc)))) == 0
    keep = torch.tensor([[True, True, False, True]] * 2)
    assert Gap(windows(x, keep=keep), 1).together.tolist() == [[True, False, False]] * 2
    reach = prediction(reach=3)
    with torch.no_grad():
        reach.gain.fill_(1.0)
    # positions four tokens apart are further than it reaches
    with pytest.raises(ValueError, match="no two positions of a piece are 3 tokens apart or less"):
        reach(a_step(windows(x, every=4)))


def test_relative_forms_are_free_of_the_codes_scale_and_plain_ones_are_not():
    x = positive(64, 6, D)
    for variance in (False, True):
        plain, relative = (Smoothness("pieces", variance, kind) for kind in (False, True))
        whole, half = a_step(windows(x)), a_step(windows(x / 2))
        assert float(relative(half)) == pytest.approx(float(relative(whole)), rel=1e-5)
        assert float(plain(half)) < 0.6 * float(plain(whole))
    for term in (LagCorrelation("pieces"), PositionCorrelation("pieces")):
        half = float(term(a_step(windows(x / 2))))
        assert half == pytest.approx(float(term(a_step(windows(x)))), rel=1e-5)


def test_variance_within_a_window_is_over_its_length_less_one():
    x = torch.zeros(3, 5, D)
    x[..., 0] = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert float(Smoothness("pieces", True, False)(a_step(windows(x)))) == pytest.approx(2.5)


def test_the_position_penalty_is_one_for_a_code_of_the_position_and_small_for_another():
    turn = 2 * torch.pi * torch.arange(32) / 32
    x = torch.zeros(64, 32, D)
    x[..., :4] = 2 + torch.stack([turn.sin(), turn.cos(), (2 * turn).sin(), (4 * turn).cos()], 1)
    term = PositionCorrelation("pieces")
    assert float(term(a_step(windows(x)))) == pytest.approx(1, abs=1e-4)
    assert float(term(a_step(windows(positive(64, 32, D))))) < 0.02


def test_the_contrast_is_log_of_the_batch_for_equal_codes_and_spares_shared_documents():
    term = TokenContrast("pieces", product=False, pre=False, temperature=0.1)
    x = torch.ones(16, 2, D)
    assert float(term(a_step(windows(x)))) == pytest.approx(torch.tensor(16.0).log().item())
    doc = torch.zeros(16, 2, dtype=torch.long)  # all of one text: nothing is a negative
    assert float(term(a_step(windows(x, doc)))) == 0
    zero = TokenContrast("pieces", product=True, pre=False, temperature=0.1)
    assert float(zero(a_step(windows(0 * x)))) == pytest.approx(torch.tensor(16.0).log().item())


def test_contrasting_all_zero_codes_gives_finite_gradients():
    term = TokenContrast("pieces", product=False, pre=False, temperature=0.1)
    step = a_step(windows(torch.zeros(8, 2, D)), train=True)
    term(step).backward()
    assert step.sae.W_enc.grad is not None and step.sae.W_enc.grad.isfinite().all()


def test_the_null_predicts_another_piece():
    still = torch.zeros(16, 5, D)
    still[..., :4] = positive(16, 1, 4)
    term = prediction(permuted=True)
    with torch.no_grad():
        term.gain.fill_(1.0)
        assert float(term(a_step(windows(still)))[0]) > 0.1


def test_position_means_are_those_of_the_windows_and_the_spread_is_what_is_left():
    source = SparseSource(batch=256)
    need = position_means_need(rows=4_000)
    found = need.compute(source)
    x = torch.cat([source.numbered(i) for i in range(16)]).view(-1, 16, source.d_in)
    torch.testing.assert_close(found["mean"], x.mean(0), rtol=1e-4, atol=1e-4)
    left = (x - x.mean(0)).square().sum(2).mean()
    assert float(found["spread"]) == pytest.approx(float(left), rel=1e-3)


def test_shuffled_tokens_are_a_type_error():
    views, _ = next(SparseSource().batches(Tokens, Cursor()))
    step = a_step(windows(positive(8, 16, D)))
    shuffled = replace(step, batches={"main": views.main})
    with pytest.raises(TypeError, match="this step has no batch 'pieces'"):
        prediction()(shuffled)
    with pytest.raises(TypeError, match="this step has no windows"):
        prediction()(replace(step, batches={"main": views.main, "pieces": views.main}))


def test_offsets_double_up_to_the_length():
    assert [doubling(n) for n in (1, 2, 3, 16, 17)] == [
        (),
        (1,),
        (1, 2),
        (1, 2, 4, 8),
        (1, 2, 4, 8, 16),
    ]
