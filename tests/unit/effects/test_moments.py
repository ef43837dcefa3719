"""The Fisher metric against closed forms, what it must not touch, and what it refuses."""

from dataclasses import replace

import pytest
import torch

from helpers import tiny_model
from saelab.effects.moments import (
    Fisher,
    fisher,
    kl_of_logits,
    mean_ablation,
    nearest,
    quadratic,
    score,
)
from saelab.lm.model import wrap
from saelab.testing.fakes import FakeModel
from saelab.types import Hook, Windows
from toy_lm import BOS, D, ToyLM, windows


class Softmax(FakeModel):
    """Logits x @ U, each position by itself: the Fisher metric at x is U (diag p - p p') U'. The
    token is the row of x.
    """

    def __init__(self, table=None):
        generator = torch.Generator().manual_seed(0)
        self.U = torch.randn(3, 5, generator=generator)
        self.table = torch.randn(4, 3, generator=generator) if table is None else table
        super().__init__(Hook(0), 3, lambda tokens: self.table[tokens], self._logits)

    def _logits(self, x, since):
        return (x[:, since:] if since else x) @ self.U.to(x)

    def metric(self, x):
        p = (x @ self.U).softmax(-1)
        return self.U @ (p.diag() - p.outer(p)) @ self.U.T


def text(lm, n=400, t=10, keep=None):
    tokens = torch.arange(n * t).view(n, t) % len(lm.table)
    place = torch.zeros(n, t, dtype=torch.long)
    x = lm.capture(tokens)[0]
    return Windows(
        x, tokens, place, place, torch.ones(n, t, dtype=torch.bool) if keep is None else keep
    )


def of(lm, rows=100_000, **numbers) -> Fisher:
    return fisher(lm, [text(lm, 10_000)], lm.table.mean(0), rows=rows, **numbers)


def moment(found, cluster=0):
    return found.factors[cluster].T @ found.factors[cluster]


def test_the_metric_of_a_linear_softmax_is_its_analytic_fisher():
    lm = Softmax()
    found = of(lm)
    exact = torch.stack([lm.metric(x) for x in lm.table]).mean(0)
    assert found.tokens == 100_000 and not found.note and found.hook == lm.hook
    assert (moment(found) - exact).abs().max() < 0.02 * exact.abs().max()
    centred = lm.table - lm.table.mean(0)
    assert found.spread == pytest.approx(float((centred @ exact * centred).sum(1).mean()), rel=0.02)
    own = torch.stack(
        [row @ lm.metric(x) @ row for row, x in zip(centred, lm.table, strict=True)]
    ).mean()
    assert found.own == pytest.approx(float(own), rel=0.05)


def test_half_the_quadratic_form_is_the_kl():
    lm = Softmax()
    x, small = lm.table[0], 0.02 * torch.tensor([1.0, -2.0, 0.5])
    expected = 0.5 * small @ lm.metric(x) @ small
    assert float(kl_of_logits(lm.read(x, 0), lm.read(x + small, 0))) == pytest.approx(
        float(expected), rel=0.05
    )


def test_labels_from_the_text_give_another_metric():
    lm = Softmax()
    assert (moment(of(lm, 5_000, labels="data")) - moment(of(lm, 5_000))).abs().max() > 0.1
    one = text(lm, 1, 4)
    g = score(lm, one, torch.Generator(), "data")
    p = (one.x @ lm.U).softmax(-1)
    # the label of the first position is the second token
    expected = lm.U[:, one.tokens[0, 1]] - lm.U @ p[0, 0]
    # the last one has none
    assert torch.allclose(g[0, 0], expected, atol=1e-6) and not g[0, -1].any()


def test_a_gradient_includes_later_predictions():
    lm = ToyLM()
    batch, _ = windows(lm, n=8)[0]
    # of the prediction at position 3 only
    alone = replace(batch, keep=batch.keep & (batch.pos == 3))
    g = score(lm, alone, torch.Generator().manual_seed(0))
    assert g[:, :4].abs().sum(2).gt(0).all() and not g[:, 4:].any()


def test_only_kept_positions_count():
    lm = ToyLM()
    batch, _ = windows(lm, n=8)[0]
    found = fisher(lm, [batch], batch.flat.mean(0), rows=1_000)
    assert (
        found.tokens == int(batch.keep.sum()) < batch.keep.numel()
        and (batch.tokens[~batch.keep] == BOS).all()
    )
    assert len(fisher(lm, [batch], batch.flat.mean(0), rows=13).sample) == 13


def test_equal_seeds_give_equal_metrics():
    lm = Softmax()
    assert torch.equal(of(lm, 500).factors, of(lm, 500).factors)
    assert not torch.equal(of(lm, 500).factors, of(lm, 500, seed=1).factors)


def test_streaming_in_pieces_adds_up(monkeypatch):
    lm = Softmax()
    whole = of(lm, 3_000)
    monkeypatch.setattr("saelab.effects.moments.SAMPLE", 700)  # the rest is streamed
    parts = of(lm, 3_000)
    assert torch.allclose(moment(whole), moment(parts), rtol=1e-5) and len(parts.sample) == 1_020


def test_clusters_have_their_own_metric():
    far = torch.tensor([[1.5, 0, 0], [1.6, 0, 0], [-1.5, 0, 0], [-1.6, 0, 0]])
    lm = Softmax(far + 0.1 * torch.randn(4, 3, generator=torch.Generator().manual_seed(1)))
    found = of(lm, 50_000, clusters=2)
    assert found.factors.shape == (2, 3, 3)
    for half in (lm.table[:2], lm.table[2:]):
        (cluster,) = nearest(half, found.centroids).unique().tolist()
        exact = torch.stack([lm.metric(x) for x in half]).mean(0)
        assert (moment(found, cluster) - exact).abs().max() < 0.05 * exact.abs().max()


def test_quadratic_uses_the_metric_of_each_row():
    generator = torch.Generator().manual_seed(0)
    e, factors = torch.randn(50, 4, generator=generator), torch.randn(5, 2, 4, generator=generator)
    cluster = torch.randint(4, (50,), generator=generator)  # the last cluster has nobody
    expected = sum(
        float((factors[c] @ row).square().sum()) for row, c in zip(e, cluster.tolist(), strict=True)
    )
    assert float(quadratic(e, factors, cluster)) == pytest.approx(expected, rel=1e-5)
    assert nearest(e, e[:3])[:3].tolist() == [0, 1, 2]


def test_few_tokens_are_shrunk_and_said_so():
    lm = ToyLM()
    batch, _ = windows(lm, n=8)[0]
    found = fisher(lm, [batch], batch.flat.mean(0), rows=D - 2)
    assert (
        found.note.startswith("the Fisher metric comes from 4 positions in 6 dimensions")
        and "weight 0.60" in found.note
    )
    # nowhere 0
    assert torch.linalg.eigvalsh(moment(found))[0] > 0.1 * 0.6 * moment(found).trace() / D
    assert not fisher(lm, [batch], batch.flat.mean(0), rows=D).note


def test_low_rank_keeps_the_leading_directions():
    lm = ToyLM()
    batches = [batch for batch, _ in windows(lm, n=60)]
    mean = batches[0].flat.mean(0)
    full, low = fisher(lm, batches, mean, rows=500), fisher(lm, batches, mean, rows=500, rank=2)
    assert low.factors.shape == (1, 2, D)
    expected = torch.linalg.eigvalsh(moment(full))[-2:]
    assert torch.allclose(torch.linalg.eigvalsh(moment(low))[-2:], expected, rtol=1e-4)


def test_the_nulls():
    found = of(Softmax(), 5_000)
    turned, other = found.rotated(0), found.rotated(1)
    values = [torch.linalg.eigvalsh(moment(f)) for f in (found, turned)]
    assert (
        torch.allclose(*values, rtol=1e-3, atol=1e-4)
        and (moment(turned) - moment(found)).abs().max() > 0.1
    )
    assert not torch.allclose(moment(turned), moment(other), atol=0.1)
    assert torch.equal(moment(found.isotropic()), torch.eye(3))
    assert found.isotropic().spread == pytest.approx(
        float(found.sample.square().sum(1).mean()), rel=1e-5
    )


def test_mean_ablation_costs_what_it_costs():
    lm = Softmax()
    mean = lm.table.mean(0)
    one = text(lm, 5, 4)
    expected = kl_of_logits(lm.read(lm.table, 0), lm.read(mean.expand(4, 3), 0)).mean()
    assert mean_ablation(lm, [one], mean, rows=10) == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(
        ValueError, match=r"do not change when the activations at .* are replaced by their mean"
    ):
        mean_ablation(lm, [replace(one, keep=one.keep & False)], mean, rows=10)


def test_gradients_stay_above_the_hook():
    lm = wrap(tiny_model("llama"), None, "tiny", Hook(1))
    ran: list[str] = []
    for name in ("model.layers.0.mlp", "model.layers.3.mlp"):
        lm.model.get_submodule(name).register_full_backward_hook(
            lambda *_, name=name: ran.append(name)
        )
    tokens = torch.randint(2, 258, (2, 8), generator=torch.Generator().manual_seed(0))
    x, _ = lm.capture(tokens)
    place = torch.arange(8).expand(2, 8)
    g = score(lm, Windows(x, tokens, place, place, place > 0), torch.Generator().manual_seed(0))
    assert g.shape == x.shape and g[:, 1:].abs().sum(2).gt(0).all()
    assert ran == ["model.layers.3.mlp"]
    assert all(parameter.grad is None for parameter in lm.model.parameters())


# What is refused ----------------------------------------------------------------------------------


class Detached(Softmax):
    def resume(self, x, state, since=0):
        with torch.no_grad():
            return super().resume(x, state, since)


class Deaf(Softmax):
    def resume(self, x, state, since=0):
        return 0 * super().resume(x, state, since)


class Broken(Softmax):
    def resume(self, x, state, since=0):
        return super().resume(x, state, since) * float("nan")


@pytest.mark.parametrize(
    ("lm", "numbers", "words"),
    [
        (
            Detached(),
            {},
            r"predictions of Detached have no gradient .*blocks\.0\.hook_resid_post: take torch\.no_grad",
        ),
        (Deaf(), {}, "predictions do not depend on the activations"),
        (Broken(), {}, "are NaN; load the model in float32"),
        (Softmax(), {"rows": 0}, "rows is 0; it must be at least 1"),
        (Softmax(), {"rank": 4}, "rank is 4; activations have 3 dimensions"),
        (Softmax(), {"rows": 2, "clusters": 3}, "3 clusters of 2 activations"),
    ],
)
def test_what_cannot_give_a_metric(lm, numbers, words):
    with pytest.raises(ValueError, match=words):
        of(lm, **({"rows": 50} | numbers))


def test_quantised_weights_are_refused():
    lm = Softmax()
    lm.model = torch.nn.Linear(1, 1)
    lm.model.is_quantized = True
    with pytest.raises(ValueError, match="weights are quantised"):
        of(lm)


def test_windows_of_another_hook_or_width_are_refused():
    lm = Softmax()
    for x in (text(lm).x * 2, text(lm).x[..., :2]):
        with pytest.raises(
            ValueError, match=r"hold other activations, of shape .*read both at one hook"
        ):
            fisher(lm, [replace(text(lm), x=x)], torch.zeros(x.shape[-1]), rows=5)


def test_a_metric_of_another_hook_or_width_is_refused():
    found = of(Softmax(), 100)
    source = type("Source", (), {"hook": Hook(0), "d_in": 3})()
    assert found.tensors(source).keys() == {"factors", "centroids", "spread", "own"}
    for field, value in (("hook", Hook(2)), ("d_in", 4)):
        setattr(source, field, value)
        with pytest.raises(
            ValueError,
            match=r"belongs to blocks\.0\.hook_resid_post, width 3, and these activations to",
        ):
            found.tensors(source)


def test_inference_mode_and_empty_windows_are_refused():
    lm = Softmax()
    with torch.no_grad():
        assert of(lm, 20).tokens == 20  # gradients are switched on where they are needed
    with torch.inference_mode(), pytest.raises(ValueError, match=r"under torch\.inference_mode"):
        of(lm, 20)
    silent = text(lm, keep=torch.zeros(400, 10, dtype=torch.bool))
    with pytest.raises(ValueError, match="no window has a kept position"):
        fisher(lm, [silent], torch.zeros(3), rows=5)
