"""The price on latents without effect: who pays, who does not, and what cannot be priced."""

from dataclasses import replace

import pytest
import torch

from saelab.runs import Optim, Run, Source, Spec
from saelab.sae.activations import BatchTopK, Priced, ReLU, TopK
from saelab.sae.jump_relu import JumpReLU
from saelab.sae.module import SAE
from saelab.synth.world import World
from saelab.synth.worlds.s1_causal import build_causal
from saelab.terms.base import Objective, Step, Term, Variant
from saelab.terms.price import Price
from saelab.terms.reconstruct import mse
from saelab.terms.sparsity import l1
from saelab.testing.variants import BATCH, SparseSource, variant_checks
from saelab.train import Training
from saelab.types import Cursor, Windows
from saelab.variants import build
from saelab.variants.causal import with_price

WORLD = World("s1", build_causal(3), seed=3, batch=1_024)
FEATURES = WORLD.process.features  # 64 causal ones, then 64 inert ones
EVERY = {"zero": 1, "mean": 1, "resample": 1, "noise": 1, "steer": 1}


def true_sae(act) -> SAE:
    """A dictionary of the true features and two latents that are never active."""
    sae = SAE(FEATURES.shape[1], len(FEATURES) + 2, act)
    with torch.no_grad():
        sae.W_dec[:-2] = FEATURES
    return sae


def a_step(sae: SAE, *, seed: int = 0) -> Step:
    """The first batch of the world, with its true codes."""
    batch = next(WORLD.batches(Windows, Cursor()))[0].main
    codes = WORLD.sample(WORLD.batch, 0).flat.codes
    scale = WORLD.stats.scale
    z = torch.cat([codes, torch.zeros(len(codes), 2)], 1) * scale
    dead = torch.zeros(sae.n_latents, dtype=torch.bool)
    x = batch.flat * scale
    return Step(
        sae,
        {"main": batch},
        x,
        z,
        z,
        z @ sae.W_dec,
        dead,
        0.5,
        torch.Generator().manual_seed(seed),
        scale,
        WORLD.lm,
        {},
    )


def measured(mix, *, m=400, contexts=8, strength=2.0, times=1):
    sae = true_sae(Priced(8, len(FEATURES) + 2))
    price = Price(sae.n_latents, mix, strength=strength, m=m, contexts=contexts)
    with torch.no_grad():
        for i in range(times):
            price.measure(sae, torch.optim.Adam(sae.parameters()), a_step(sae, seed=i))
    return sae, price


@pytest.mark.parametrize("kind", EVERY)
def test_inert_latents_pay_nearly_all_and_causal_ones_little(kind):
    sae, price = measured({kind: 1})
    causal, inert, silent = price.surcharge.split([64, 64, 2])
    assert (
        float(inert.median()) > 0.95
        and float(causal.mean()) < 0.35
        and float(causal.mean()) < float(inert.min())
    )
    mean = float(torch.cat([causal, inert]).mean())
    # never active, never measured: neither favoured nor charged
    assert silent.tolist() == pytest.approx([mean, mean])
    assert float(price(a_step(sae))) == pytest.approx(2 * mean, rel=1e-5)  # 1 - mean NCES


def test_the_price_is_a_multiple_of_the_mean_code_and_enters_the_ranking():
    sae, price = measured({"zero": 1}, strength=2.0)
    z = a_step(sae).z
    act = sae.act
    assert isinstance(act, Priced)
    assert torch.allclose(act.price, 2.0 * z[z > 0].mean() * price.surcharge)


def test_latents_are_changed_a_few_at_a_time_and_remembered():
    _, price = measured({"zero": 1}, m=10)
    assert int(price.nces[:128].isfinite().sum()) == 10
    _, price = measured({"zero": 1}, m=10, times=6)
    assert 10 < int(price.nces.isfinite().sum()) <= 60


def test_running_means_weigh_measurements_alike_at_first():
    _, once = measured({"zero": 1})
    _, thrice = measured({"zero": 1}, times=3)
    # other contexts, the same latents
    assert torch.allclose(once.effect * 3, thrice.effect, rtol=1.0, atol=0)
    assert float((thrice.nces - once.nces)[:128].abs().median()) < 0.2


def test_a_priced_selection_is_batch_topk_when_all_pay_alike():
    pre = torch.randn(200, 24, generator=torch.Generator().manual_seed(0))
    plain, priced = BatchTopK(3), Priced(3, 24)
    priced.price.fill_(0.7)
    assert torch.equal(plain.train_codes(pre, 0.0) > 0, priced.train_codes(pre, 0.0) > 0)
    plain.calibrate_(pre, 3), priced.calibrate_(pre, 3)
    assert torch.equal(plain(pre), priced(pre))
    priced.price[:12] = 100.0  # nobody pays that while anybody else is there
    codes = priced.train_codes(pre, 0.0)
    assert int((codes[:, :12] > 0).sum()) == 0 and int((codes > 0).sum()) == 600
    priced.calibrate_(pre, 3)
    # at the L0 asked for, with a negative threshold
    assert int((priced(pre)[:, 12:] > 0).sum()) == 600


def test_a_negative_code_is_never_bought():
    pre = torch.tensor([[3.0, -1.0], [2.0, -1.0]])
    priced = Priced(2, 2)
    priced.price[0] = 50.0
    assert priced.train_codes(pre, 0.0).tolist() == [[3.0, 0.0], [2.0, 0.0]]


def test_the_l1_penalty_of_an_inert_latent_grows():
    sae, price = measured({"zero": 1}, strength=3.0)
    step = a_step(sae)
    plain, charged = l1(step).item(), price.on(l1)(step).item()
    expected = float((step.z * (1 + 3 * price.surcharge)).sum(1).mean())
    assert charged == pytest.approx(expected, rel=1e-5) and 2.5 * plain < charged < 4 * plain


def test_price_zero_is_the_base_bit_for_bit():
    def trained(variant, settings):
        run = Run(
            Spec(variant, 64, 4.0, settings),
            Source(tokens=20 * BATCH, batch=BATCH),
            Optim(lr=3e-3, warmup=5),
        )
        training = Training([run], SparseSource())
        list(training)
        return training.state()

    base, mine = (
        trained("batch_topk", {}),
        trained("causal", {"weight": 0, "price": 0, "refine": 0}),
    )
    assert base.keys() == mine.keys() and all(torch.equal(base[name], mine[name]) for name in base)
    base, mine = trained("standard", {}), trained("causal_as_stated", {"price": 0})
    assert base.keys() == mine.keys() and all(torch.equal(base[name], mine[name]) for name in base)


@pytest.mark.parametrize("check", [name for name, _ in variant_checks("causal")])
def test_a_priced_variant_passes_the_battery(check):
    settings = {"price": 0.3, "price_updates": 4, "rows": 2_000}
    dict(variant_checks("causal", settings=settings))[check]()


def test_what_cannot_be_priced():
    objective = Objective(Term("mse", mse))
    for sae in (SAE(8, 16, JumpReLU(16)), SAE(8, 16, ReLU()), SAE(8, 16, TopK(2))):
        with pytest.raises(ValueError, match="a price acts on BatchTopK, or on ReLU"):
            with_price(Variant(sae, objective), weight=1)
    for changed, words in [
        ({"zero": 0, "mean": 0, "noise": 0}, "weight above 0 for some of zero, mean"),
        ({"ablate": 1}, "part price has no setting 'ablate'"),
        ({"latents": 0}, "price:latents is 0; it must be a whole number, at least 1"),
        ({"updates": 0}, "price:updates is 0; it must be a whole number, at least 1"),
        ({"weight": -1}, "would charge the causal latents"),
    ]:
        with pytest.raises(ValueError, match=words):
            build(Spec("batch_topk", 64, 4.0, parts={"price": changed}), 16, 0)
    with pytest.raises(ValueError, match="would charge the causal latents"):
        build(Spec("causal", 64, 4.0, {"price": -1}), 16, 0)
    with pytest.raises(ValueError, match="weight above 0 for some of zero, mean"):
        Price(16, {"ablate": 1}, strength=1.0, m=4, contexts=2)


def test_a_price_without_a_model_is_refused():
    sae, price = measured({"zero": 1})
    with pytest.raises(TypeError, match="a price runs the model"):
        price.measure(sae, torch.optim.Adam(sae.parameters()), replace(a_step(sae), lm=None))
