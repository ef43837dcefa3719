"""The causal terms: unit, nulls, whose metric is used, and the gradient that is 0 where it must be."""

from dataclasses import replace

import pytest
import torch

from saelab.effects.moments import fisher
from saelab.sae.activations import TopK
from saelab.sae.module import SAE
from saelab.terms.base import Step
from saelab.terms.causal import ablation_need, fisher_need, kl, metric, sampled
from saelab.testing.fakes import FakeModel, SparseSource
from saelab.types import Cursor, Tokens, Windows

SOURCE = SparseSource()
D = SOURCE.d_in


def a_step(x_hat=None, *, kind=Windows, needs=(), batch=None, beside=None) -> Step:
    """A step of `SOURCE`; `x_hat [N, D]` in the model's units, x itself if not given."""
    batch = batch or next(SOURCE.batches(kind, Cursor()))[0].main
    scale = SOURCE.stats.scale
    x = batch.flat * scale
    x_hat = x.clone() if x_hat is None else x_hat * scale
    stats = {
        f"{need.name}.{key}": value for need in needs for key, value in need.compute(SOURCE).items()
    }
    sae, empty, none = SAE(D, 8, TopK(2)), x.new_zeros(len(x), 8), torch.zeros(8, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    batches = {"main": batch, **({} if beside is None else {"windows": beside})}
    return Step(sae, batches, x, empty, empty, x_hat, none, 0.5, generator, scale, SOURCE.lm, stats)


def mean_of(step: Step) -> torch.Tensor:
    return SOURCE.stats.mean.expand(len(step.x), -1)


def test_the_metric_is_one_at_the_mean_and_zero_at_x():
    need = fisher_need(rows=8_192)
    step = a_step(
        needs=[need], batch=Windows(*(torch.cat(parts) for parts in zip(*fields(64), strict=True)))
    )
    at_mean = replace(step, x_hat=mean_of(step) * step.scale)
    # the very rows it came from
    assert float(metric(need.name, shuffle=False)(at_mean)) == pytest.approx(1, rel=1e-4)
    assert float(metric(need.name, shuffle=False)(step)) == 0
    half = replace(step, x_hat=(step.x + at_mean.x_hat) / 2)
    assert float(metric(need.name, shuffle=False)(half)) == pytest.approx(0.25, rel=1e-4)


def fields(n):
    batches = [next(SOURCE.batches(Windows, Cursor(batch=i)))[0].main for i in range(n)]
    return [(b.x, b.tokens, b.doc, b.pos, b.keep) for b in batches]


def test_the_unit_does_not_depend_on_the_scale_of_activations():
    need = fisher_need(rows=2_000)
    step = a_step(a_step().batch.flat + 0.1, needs=[need])
    other = replace(step, x=3 * step.x, x_hat=3 * step.x_hat, scale=3 * step.scale)
    term = metric(need.name, shuffle=False)
    assert float(term(other)) == pytest.approx(float(term(step)), rel=1e-5)


def test_the_isotropic_null_is_unexplained_variance():
    need = fisher_need(rows=2_000, null="isotropic")
    step = a_step(
        a_step().batch.flat + torch.randn(128, D, generator=torch.Generator().manual_seed(1)),
        needs=[need],
    )
    found = fisher(SOURCE.lm, [step.batch], SOURCE.stats.mean, rows=2_000)
    assert len(found.sample) == 128
    error = (step.x - step.x_hat).square().sum(1).mean() / step.scale**2
    spread = step.stats[f"{need.name}.spread"]
    assert float(metric(need.name, shuffle=False)(step)) == pytest.approx(
        float(error / spread), rel=1e-5
    )


def test_the_rotated_null_has_the_same_spectrum_and_another_direction():
    plain, turned = fisher_need(rows=2_000), fisher_need(rows=2_000, null="rotated")
    assert plain.name != turned.name
    values = [need.compute(SOURCE)["factors"][0] for need in (plain, turned)]
    M, R = (factor.T @ factor for factor in values)
    assert torch.allclose(torch.linalg.eigvalsh(M), torch.linalg.eigvalsh(R), rtol=1e-3, atol=1e-4)
    assert (M - R).abs().max() > 0.1 * M.abs().max()


def test_every_x_has_the_metric_of_its_cluster():
    need = fisher_need(rows=2_000, clusters=2)
    step = a_step(
        a_step().batch.flat + torch.randn(128, D, generator=torch.Generator().manual_seed(1)),
        needs=[need],
    )
    factors, centroids = (step.stats[f"{need.name}.{key}"] for key in ("factors", "centroids"))
    cluster = torch.cdist(step.batch.flat, centroids).argmin(1)
    assert len(cluster.unique()) == 2
    e = (step.x - step.x_hat) / step.scale

    def expected(of):
        values = [row @ factors[c].T @ factors[c] @ row for row, c in zip(e, of, strict=True)]
        return float(torch.stack(values).mean() / step.stats[f"{need.name}.spread"])

    assert float(metric(need.name, shuffle=False)(step)) == pytest.approx(
        expected(cluster), rel=1e-4
    )
    order = torch.randperm(128, generator=torch.Generator().manual_seed(0))
    assert expected(cluster[order]) != pytest.approx(expected(cluster), rel=1e-4)
    assert float(metric(need.name, shuffle=True)(step)) == pytest.approx(
        expected(cluster[order]), rel=1e-4
    )


def test_a_metric_of_another_width_is_refused():
    need = fisher_need(rows=500)
    step = a_step(needs=[need])
    stats = {
        key: value[..., :3] if key.endswith("factors") else value
        for key, value in step.stats.items()
    }
    with pytest.raises(ValueError, match="Fisher metric of width 3 for activations of width 16"):
        metric(need.name, shuffle=False)(replace(step, stats=stats))


def test_one_gradient_per_token_has_the_same_unit():
    need = fisher_need(rows=20_000)
    step = a_step(
        needs=[need], batch=Windows(*(torch.cat(parts) for parts in zip(*fields(64), strict=True)))
    )
    at_mean = replace(step, x_hat=mean_of(step) * step.scale)
    assert float(sampled(need.name)(at_mean)) == pytest.approx(1, rel=0.1)
    assert float(sampled(need.name)(step)) == 0


def test_kl_is_one_at_the_mean_and_zero_at_x():
    need = ablation_need(rows=8_192)
    step = a_step(
        needs=[need], batch=Windows(*(torch.cat(parts) for parts in zip(*fields(64), strict=True)))
    )
    assert float(kl(need.name)(replace(step, x_hat=mean_of(step) * step.scale))) == pytest.approx(
        1, rel=1e-3
    )
    assert float(kl(need.name)(step)) == pytest.approx(0, abs=1e-6)


def test_the_gradient_of_kl_at_the_clean_point_is_zero():
    """So KL gradient times activation, which reads like an attribution, is 0 for every latent:
    nothing here offers it.
    """
    need = ablation_need(rows=500)
    step = a_step(needs=[need])
    slopes = []
    for x_hat in (step.x.clone(), step.x + 0.1):
        x_hat.requires_grad_()
        (slope,) = torch.autograd.grad(kl(need.name)(replace(step, x_hat=x_hat)), x_hat)
        slopes.append(float(slope.norm()))
    assert slopes[0] < 1e-5 * slopes[1]


def test_kl_counts_and_replaces_kept_positions_only():
    need = ablation_need(rows=500)
    batch = a_step().batch
    keep = batch.pos > 0
    step = a_step(needs=[need], batch=replace(batch, keep=keep))
    changed = replace(step, x_hat=step.x + 0.3)
    clean, logits = (
        SOURCE.lm.resume(batch.x, batch.tokens.shape),
        SOURCE.lm.resume(batch.x + 0.3 / step.scale, batch.tokens.shape),
    )
    p, q = clean.log_softmax(-1), logits.log_softmax(-1)
    expected = (p.exp() * (p - q)).sum(-1)[keep].mean() / step.stats[f"{need.name}.kl"]
    assert float(kl(need.name)(changed)) == pytest.approx(float(expected), rel=1e-4)


def test_kl_on_a_share_of_the_windows_is_that_of_windows_drawn_anew():
    need = ablation_need(rows=500)
    step = a_step(needs=[need])
    step.sae.requires_grad_(False)
    step = replace(step, x_hat=step.sae(step.x))
    windows, each = step.batch, []
    for row in range(len(windows.x)):
        part = slice(row, row + 1)
        one = Windows(
            windows.x[part],
            windows.tokens[part],
            windows.doc[part],
            windows.pos[part],
            windows.keep[part],
        )
        x = one.flat * step.scale
        each.append(
            float(kl(need.name)(replace(step, batches={"main": one}, x=x, x_hat=step.sae(x))))
        )
    drawn = [float(kl(need.name, share=0.01)(step)) for _ in range(30)]  # at least one window
    assert len({round(value, 6) for value in drawn}) > 1
    assert all(min(abs(value - other) for other in each) < 1e-4 for value in drawn)
    many = [float(kl(need.name, share=0.5)(step)) for _ in range(200)]
    assert sum(many) / len(many) == pytest.approx(float(kl(need.name)(step)), rel=0.05)
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"the share of windows with exact KL is {share:g}"):
            kl(need.name, share=share)


def test_windows_beside_tokens_are_coded_by_the_same_sae():
    need, other = ablation_need(rows=500), next(SOURCE.batches(Windows, Cursor(batch=7)))[0].main
    beside = a_step(needs=[need], batch=Tokens(a_step().batch.flat), beside=other)
    on_windows = beside.on_windows()
    assert on_windows.batch.tokens.shape == other.tokens.shape and on_windows.x.shape == (
        len(other.flat),
        D,
    )
    beside.sae.requires_grad_(False)
    assert torch.allclose(on_windows.x_hat, beside.sae(on_windows.x), atol=1e-6)
    expected = kl(need.name)(
        a_step(beside.sae(other.flat * beside.scale) / beside.scale, needs=[need], batch=other)
    )
    assert float(kl(need.name)(beside)) == pytest.approx(float(expected), rel=1e-4)
    assert (step := a_step()).on_windows() is step


def test_a_model_without_gradient_is_refused():
    class Frozen(FakeModel):
        pass

    lm = Frozen(SOURCE.hook, D, SOURCE.lm.activations, torch.no_grad()(SOURCE.lm.read))
    need = ablation_need(rows=500)
    step = replace(a_step(needs=[need]), lm=lm)
    with pytest.raises(ValueError, match="predictions of Frozen have no gradient"):
        kl(need.name)(replace(step, x_hat=step.x_hat.requires_grad_()))


def test_terms_that_run_the_model_say_what_they_lack():
    with pytest.raises(TypeError, match="runs the model; its variant must say lm=True"):
        kl("any")(replace(a_step(), lm=None))
    with pytest.raises(
        TypeError,
        match=r'no windows; a variant whose terms need some says batches=\{"main": Tokens, "windows"',
    ):
        kl("any")(a_step(kind=Tokens))


def test_needs_say_what_they_lack():
    mute = SparseSource()
    mute.lm = None
    for need in (fisher_need(), ablation_need()):
        assert need.lm
        with pytest.raises(ValueError, match="no model behind them"):
            need.compute(mute)


def test_few_tokens_are_logged(caplog):
    fisher_need(rows=10).compute(SOURCE)
    assert "comes from 10 positions in 16 dimensions and is shrunk" in caplog.text
