"""The worlds s1, s1b, s1d: what is drawn, what the network behind them reads, and what is refused."""

import math

import pytest
import torch

from saelab.synth.world import World
from saelab.synth.worlds.s1_causal import (
    ENTRIES,
    VOCAB,
    WINDOW,
    Causal,
    Gated,
    build_causal,
    build_gated,
)
from saelab.types import Cursor, LanguageModel, Tokens, Windows

SEED, N = 3, 20_000


@pytest.fixture(scope="module")
def worlds():
    return {
        name: World(name, e.build(SEED, **e.settings), seed=SEED, batch=64)
        for name, e in ENTRIES.items()
    }


def entropy(logits):
    log_p = logits.log_softmax(-1)
    return float(-(log_p.exp() * log_p).sum(-1).mean())


def predictions(world, x):
    return world.process.logits(x)


@pytest.mark.parametrize("name", ENTRIES)
def test_activations_are_codes_times_features_plus_noise(worlds, name):
    process = worlds[name].process
    sample = worlds[name].sample(N, "test")
    n_features = len(process.features)
    assert sample.x.shape == (N // WINDOW, WINDOW, process.features.shape[1])
    assert sample.codes.shape == (N // WINDOW, WINDOW, n_features)
    assert (sample.codes >= 0).all()
    assert float((sample.x - sample.codes @ process.features).std()) == pytest.approx(
        0.02, rel=0.02
    )
    torch.testing.assert_close(process.features.norm(dim=1), torch.ones(n_features))
    assert sorted(i for group in process.groups.values() for i in group) == list(range(n_features))


@pytest.mark.parametrize("name", ENTRIES)
def test_predictions_have_two_nats_in_the_units_of_the_world(worlds, name):
    process = worlds[name].process
    logits = process.logits(worlds[name].sample(N, "test").flat.x)
    assert logits.shape == (N, VOCAB)
    assert entropy(logits) == pytest.approx(2.0, abs=0.03)


@pytest.mark.parametrize("name", ENTRIES)
def test_a_seed_is_a_world_and_a_draw(worlds, name):
    entry, world = ENTRIES[name], worlds[name]
    again = World(name, entry.build(SEED, **entry.settings), seed=SEED, batch=64)
    other = World(name, entry.build(SEED + 1, **entry.settings), seed=SEED, batch=64)
    assert torch.equal(world.process.features, again.process.features)
    assert torch.equal(world.sample(64, 5).x, again.sample(64, 5).x)
    assert not torch.equal(world.sample(64, 5).x, world.sample(64, 6).x)
    assert not torch.equal(world.process.features, other.process.features)
    x = world.sample(64, 5).x
    logits, same, different = (predictions(w, x) for w in (world, again, other))
    assert torch.equal(logits, same)
    assert not torch.equal(logits, different)


def test_marginals_of_causal_and_inert_features(worlds):
    for name in ("s1", "s1b"):
        codes = worlds[name].sample(N, "test").flat.codes
        for group, amplitude in (("causal", 1.0), ("inert", 3.0)):
            part = codes[:, worlds[name].process.groups[group]]
            on = part[part > 0]
            assert float((part > 0).float().mean()) == pytest.approx(0.06, abs=0.001)
            assert float(on.mean()) == pytest.approx(amplitude, rel=0.01)
            assert float(on.std()) == pytest.approx(0.2 * amplitude, rel=0.03)


def test_inert_features_copy_the_support_of_causal_ones_in_s1b_only(worlds):
    for name, expected in (("s1", 0.06), ("s1b", 0.8 + 0.2 * 0.06)):
        on = worlds[name].sample(N, "test").flat.codes > 0
        causal, inert = on[:, :64], on[:, 64:]
        assert float((causal & inert).sum() / causal.sum()) == pytest.approx(expected, abs=0.01)
        shifted = inert.roll(1, 1)  # of another number: independent
        assert float((causal & shifted).sum() / causal.sum()) == pytest.approx(0.06, abs=0.01)


def test_a_tenth_of_the_variance_of_s1_is_causal(worlds):
    sample = worlds["s1"].sample(N, "test").flat
    causal = sample.codes[:, :64] @ worlds["s1"].process.features[:64]
    share = causal.var(0).sum() / sample.x.var(0).sum()
    assert float(share) == pytest.approx(0.1, abs=0.01)


def test_the_network_of_s1_reads_the_causal_subspace_alone(worlds):
    process = worlds["s1"].process
    sample = worlds["s1"].sample(640, "test").flat
    causal = sample.codes[:, :64] @ process.features[:64]
    inert = sample.codes[:, 64:] @ process.features[64:]
    reference = process.logits(causal)
    torch.testing.assert_close(process.logits(causal + inert), reference, atol=1e-3, rtol=1e-3)
    assert float((process.logits(inert) - reference).abs().max()) > 1
    assert float((process.features[:64] @ process.features[64:].T).abs().max()) < 1e-5


def test_features_of_a_subspace_keep_apart(worlds):
    for group in ("causal", "inert"):
        rows = worlds["s1"].process.features[worlds["s1"].process.groups[group]]
        # 64 random rows of 32 dimensions: about .6
        assert float((rows @ rows.T).fill_diagonal_(0).abs().max()) < 0.45


def test_the_context_decides_which_bank_is_read(worlds):
    process = worlds["s1d"].process
    codes = worlds["s1d"].sample(N, "test").flat.codes
    context = codes[:, 128:]
    assert torch.equal(context.sum(1), torch.full((N,), 2.0))
    assert float((context[:, 0] > 0).float().mean()) == pytest.approx(0.5, abs=0.015)
    torch.testing.assert_close(process.features[128], -process.features[129])
    for sign, read, unread in ((128, range(64), range(64, 128)), (129, range(64, 128), range(64))):
        rows = codes[codes[:, sign] > 0]
        clean = process.logits(rows @ process.features)
        without_unread, without_read = rows.clone(), rows.clone()
        without_unread[:, unread] = 0
        without_read[:, read] = 0
        torch.testing.assert_close(
            process.logits(without_unread @ process.features), clean, atol=1e-3, rtol=1e-3
        )
        assert float((process.logits(without_read @ process.features) - clean).abs().max()) > 1


def test_both_banks_go_through_the_same_weights(worlds):
    """A bank's coordinates in its own subspace: the other bank's would give the same logits."""
    process = worlds["s1d"].process
    a, b = process.V
    torch.testing.assert_close(a @ a.T, b @ b.T, atol=1e-4, rtol=1e-4)
    assert float((a @ b.T).abs().max()) < 1e-5


def test_references_of_the_ablation(worlds):
    mean = worlds["s1"].stats.mean
    x = worlds["s1"].sample(64, "test").flat.x
    assert torch.equal(worlds["s1"].process.ablated(x, mean), mean.expand(64, -1))
    process, mean = worlds["s1d"].process, worlds["s1d"].stats.mean
    x = worlds["s1d"].sample(64, "test").flat.x
    kept, context = process.ablated(x, mean), process.features[128]
    torch.testing.assert_close(kept @ context, x @ context, atol=1e-5, rtol=1e-5)
    others = process.features[:128]
    torch.testing.assert_close(
        kept @ others.T, (mean @ others.T).expand(64, -1), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", ENTRIES)
def test_there_is_a_model_and_both_batch_types(worlds, name):
    world = worlds[name]
    assert world.kinds == (Tokens, Windows)
    model = world.lm
    assert isinstance(model, LanguageModel)
    windows = next(world.batches(Windows, Cursor(0, 0, 2)))[0].main
    assert isinstance(windows, Windows)
    tokens = next(world.batches(Tokens, Cursor(0, 0, 2)))[0].main
    torch.testing.assert_close(windows.flat, tokens.flat)
    x, state = model.capture(windows.tokens)
    assert torch.equal(x, windows.x)
    x.requires_grad_()
    logits = model.resume(x, state)
    assert logits.shape == (4, WINDOW, VOCAB)
    logits.square().sum().backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0


def test_the_model_is_calibrated():
    world = World("s1", build_causal(SEED), seed=SEED, batch=8_000)
    windows = world.windows(0)
    assert world.lm is not None
    logits = world.lm.resume(windows.x, None)
    assert float(world.lm.loss(logits, windows.tokens).mean()) == pytest.approx(
        entropy(logits[:, :-1]), abs=0.05
    )


def test_numbers_change_the_world():
    small = build_causal(0, features=6.2, width=5, p=0.5, ratio=2.0, entropy=1.0, noise=0.0)
    assert isinstance(small, Causal)
    assert small.features.shape == (12, 10)
    sample = small.draw(8_000, torch.Generator().manual_seed(1)).flat
    assert float((sample.codes > 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    assert entropy(small.logits(sample.x)) == pytest.approx(1.0, abs=0.03)
    torch.testing.assert_close(sample.x, sample.codes @ small.features)
    gated = build_gated(0, features=6, width=5, context=4.0)
    assert isinstance(gated, Gated)
    assert float(gated.draw(16, torch.Generator()).codes[..., -2:].max()) == 4.0


@pytest.mark.parametrize(
    ("build", "numbers", "text"),
    [
        (build_causal, {"p": 0.0}, r"p is 0; it must lie in \(0, 1\)"),
        (build_causal, {"p": 1.0}, r"p is 1; it must lie in \(0, 1\)"),
        (build_causal, {"copy": 1.1}, r"copy is 1.1; it must lie in \[0, 1\]"),
        (build_causal, {"ratio": -3.0}, r"ratio is -3; it must lie in \(0, 1000\]"),
        (build_causal, {"features": 0.0}, r"features is 0; it must lie in \[1, 10000\]"),
        (build_causal, {"width": 1.0}, r"width is 1; it must lie in \[2, 10000\]"),
        (build_causal, {"noise": math.nan}, r"noise is nan; it must lie in \[0, 1000\]"),
        (build_causal, {"entropy": 4.0}, r"entropy is 4; it must lie in \[0.01, 3.87\]"),
        (build_gated, {"context": 0.0}, r"context is 0; it must lie in \(0, 1000\]"),
        (build_gated, {"p": math.inf}, r"p is inf; it must lie in \(0, 1\)"),
    ],
)
def test_numbers_that_make_no_world_are_refused(build, numbers, text):
    with pytest.raises(ValueError, match=text):
        build(0, **numbers)


@pytest.mark.parametrize("name", ENTRIES)
def test_a_number_of_activations_that_fills_no_windows_is_refused(worlds, name):
    with pytest.raises(ValueError, match=r"17 activations asked for.*ask for a multiple of 16"):
        worlds[name].sample(17, "test")
