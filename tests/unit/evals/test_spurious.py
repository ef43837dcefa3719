from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from in_world import as_held_out
from saelab.evals.spurious.measure import measure, prepare
from saelab.evals.spurious.probes import accuracy, best_accuracy, leace, linear_probe, mlp_probe
from saelab.synth.world import World
from saelab.synth.worlds.s5_spurious import build
from saelab.types import Dictionary, Structure

D, F = 16, 10
NAMES = {
    "scr",
    "scr_threshold",
    "leak_linear",
    "leak_mlp",
    "task_accuracy",
    "worst_group",
    "spurious_cos",
}
MIXED = (1.3 / 2) ** 0.5  # cosine of (v_T + v_s) with either, at v_T . v_s = .3


class Fixed:
    """Codes by least squares on fixed directions, then mixed by a matrix: `codes @ mix`."""

    hook = None

    def __init__(self, features, directions, mix, bank=None):
        self.inverse, self.directions, self.mix = torch.linalg.pinv(features), directions, mix
        if bank is not None:
            self.structure = Structure({"bank": bank})

    def encode(self, x):
        codes = x @ self.inverse
        return (codes * (codes > 1e-3)) @ self.mix

    def decode(self, z):
        return z @ self.directions


@pytest.fixture(scope="module")
def world():
    """Fewer features than dimensions and no noise: the true codes can be computed from x."""
    return World("s5", build(0, d=D, n_features=F, noise=0.0, p=0.2), seed=0, batch=64)


@pytest.fixture(scope="module")
def data(world):
    return prepare(as_held_out(world))


def oracle(world, bank=range(1, 2)):
    features = world.process.features
    return Fixed(features, features, torch.eye(F), bank)


def mixture(world, bank=range(1)):
    """One latent for the task and the spurious factor together, at the mean of their codes."""
    features = world.process.features
    mix = torch.zeros(F, F - 1)
    mix[0, 0] = mix[1, 0] = 0.5
    mix[torch.arange(2, F), torch.arange(1, F - 1)] = 1
    both = features[0] + features[1]
    return Fixed(features, torch.cat([both[None], features[2:]]), mix, bank)


def values(dictionary, data):
    return {name: score.value for name, score in measure(dictionary, data).scores.items()}


def test_the_oracle_is_perfect(world, data):
    dictionary = oracle(world)
    assert isinstance(dictionary, Dictionary)
    found = values(dictionary, data)
    assert set(found) == NAMES
    assert found["scr"] == pytest.approx(1, abs=0.05) and found["scr_threshold"] == pytest.approx(
        1, abs=0.02
    )
    assert found["leak_linear"] == pytest.approx(0.5, abs=0.02) and found[
        "leak_mlp"
    ] == pytest.approx(0.5, abs=0.03)
    assert found["task_accuracy"] == pytest.approx(1, abs=0.01) and found["worst_group"] > 0.98
    assert found["spurious_cos"] == pytest.approx(0, abs=1e-6)


def test_a_mixture_loses_the_task_with_the_spurious_factor(world, data):
    found = values(mixture(world), data)
    assert found["spurious_cos"] == pytest.approx(MIXED - 0.3, abs=1e-5)
    assert found["scr_threshold"] < -0.5
    assert found["leak_linear"] == pytest.approx(0.5, abs=0.02)
    assert found["task_accuracy"] == pytest.approx(0.5, abs=0.02) and found["worst_group"] < 0.05


def test_a_bank_that_holds_nothing_wins_nothing_and_everything_leaks(world, data):
    found = values(oracle(world, bank=range(F - 1, F)), data)
    assert found["scr"] == pytest.approx(0, abs=0.05) and found["scr_threshold"] == pytest.approx(
        0, abs=0.05
    )
    assert found["leak_linear"] > 0.98 and found["leak_mlp"] > 0.98


def test_codes_of_other_samples_are_at_chance(world, data):
    class Shuffled(Fixed):
        def encode(self, x):
            return super().encode(x)[
                torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
            ]

    features = world.process.features
    found = values(Shuffled(features, features, torch.eye(F), range(1, 2)), data)
    assert found["leak_linear"] == pytest.approx(0.5, abs=0.03) and found[
        "leak_mlp"
    ] == pytest.approx(0.5, abs=0.03)
    assert found["task_accuracy"] == pytest.approx(0.5, abs=0.03)


def test_without_a_bank_three_latents_are_taken_by_attribution(world, data):
    bank = measure(oracle(world, bank=None), data).details["bank"]
    assert len(bank) == 3 and 1 in bank
    assert 0 in measure(mixture(world, bank=None), data).details["bank"]


def test_latents_in_another_order_score_the_same(world, data):
    features = world.process.features
    order = torch.tensor([1, 0, *range(2, F)])
    swapped = Fixed(features, features[order], torch.eye(F)[:, order], range(1))
    first, second = values(oracle(world), data), values(swapped, data)
    assert second == pytest.approx(first, abs=1e-3)


def test_dead_latents_change_nothing(world, data):
    features = world.process.features
    dead = torch.randn(20, D, generator=torch.Generator().manual_seed(5))
    padded = Fixed(features, torch.cat([features, dead]), torch.eye(F, F + 20), range(1, 2))
    before, after = values(oracle(world), data), values(padded, data)
    # its first weights depend on the number of columns
    mlp = before.pop("leak_mlp"), after.pop("leak_mlp")
    assert after == pytest.approx(before, abs=1e-6)
    assert mlp[0] == pytest.approx(mlp[1], abs=0.03)


def test_halving_the_codes_changes_what_is_removed_and_nothing_else(world, data):
    features = world.process.features
    halved = Fixed(features, features, torch.eye(F) / 2, range(1, 2))
    rescaled = Fixed(features, 2 * features, torch.eye(F) / 2, range(1, 2))
    whole, half = values(oracle(world), data), values(halved, data)
    assert values(rescaled, data) == pytest.approx(whole, abs=1e-3)
    assert half["scr_threshold"] < whole["scr_threshold"] - 0.05
    for name in NAMES - {"scr", "scr_threshold"}:
        assert half[name] == pytest.approx(whole[name], abs=1e-3)


def test_what_does_not_exist_is_null_with_a_reason(world, data):
    scores = measure(oracle(world, bank=range(F)), data).scores
    for name in ("leak_linear", "leak_mlp", "task_accuracy", "worst_group"):
        assert scores[name].value is None and scores[name].reason == "every latent is in the bank"
    even = replace(data, biased_accuracy=data.clean_accuracy)
    scores = measure(oracle(world), even).scores
    assert (
        scores["scr"].value is None and "as good as the clean one" in scores["scr_threshold"].reason
    )
    nothing = Fixed(world.process.features, torch.zeros(F, D), torch.eye(F), range(1, 2))
    assert measure(nothing, data).scores["spurious_cos"].reason == "no latent has a direction"
    silent = Fixed(world.process.features, world.process.features, torch.zeros(F, F))
    assert values(silent, data)["leak_linear"] == 0.5


def test_measuring_is_deterministic_and_leaves_the_global_generator_alone(world, data):
    torch.manual_seed(1)
    before, state = data.train.x.clone(), torch.get_rng_state()
    first, second = measure(oracle(world), data).to_json(), measure(oracle(world), data).to_json()
    assert first == second and "scr" in first["scores"]
    assert torch.equal(state, torch.get_rng_state()) and torch.equal(before, data.train.x)


def test_leace_is_the_ceiling_and_the_biased_probe_errs_where_the_factors_differ(world, data):
    details = measure(oracle(world), data).details
    assert details["leace"]["scr_threshold"] == pytest.approx(1, abs=0.05)
    assert details["leace"]["leak_linear"] == pytest.approx(0.5, abs=0.02)
    assert details["clean_accuracy"] > 0.97 and 0.7 < details["biased_accuracy"] < 0.9


def test_worlds_without_a_spurious_factor_are_refused():
    with pytest.raises(
        TypeError, match="'s2' has no spurious factor; this evaluation reads s5, s5b and s5_null"
    ):
        prepare(as_held_out(World("s2", SimpleNamespace(features=torch.eye(2)), seed=0, batch=4)))


def test_the_linear_probe_finds_the_weights_that_made_the_labels():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 3, generator=generator) * torch.tensor([1.0, 0.1, 5.0]) + 3
    logits = 2 * (x[:, 0] - 3) - 10 * (x[:, 1] - 3)
    y = (torch.rand(20_000, generator=generator) < logits.sigmoid()).long()
    probe = linear_probe(torch.cat([x, torch.full((20_000, 1), 7.0)], 1), y)
    torch.testing.assert_close(
        probe.direction[:3], torch.tensor([2.0, -10.0, 0.0]).double(), rtol=0.1, atol=0.05
    )
    assert accuracy(probe(torch.cat([x, torch.zeros(20_000, 1)], 1)), y) < 1
    with pytest.raises(ValueError, match="class"):
        linear_probe(x, torch.zeros(20_000))


def test_only_the_mlp_reads_an_exclusive_or():
    x = torch.randn(4_000, 2, generator=torch.Generator().manual_seed(0))
    y = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).long()
    assert accuracy(linear_probe(x, y)(x), y) < 0.6
    assert accuracy(mlp_probe(x, y)(x), y) > 0.95
    assert torch.equal(mlp_probe(x, y)(x), mlp_probe(x, y)(x))
    assert not mlp_probe(x, y)(x).requires_grad


def test_the_best_threshold_is_the_best_of_all_thresholds():
    generator = torch.Generator().manual_seed(0)
    for levels in (3, 1_000):
        logits = torch.randint(levels, (200,), generator=generator).float()
        y = torch.randint(2, (200,), generator=generator)
        tried = [
            float(((logits > t) == (y > 0)).double().mean())
            for t in [*(logits.unique() - 0.5), logits.max()]
        ]
        assert best_accuracy(logits, y) == pytest.approx(max(tried))
    assert best_accuracy(torch.zeros(4), torch.tensor([1, 1, 1, 0])) == 0.75
    assert best_accuracy(torch.tensor([5.0, 6.0]), torch.tensor([0, 1])) == 1
    assert accuracy(torch.tensor([5.0, 6.0]), torch.tensor([0, 1])) == 0.5


def test_the_eraser_closes_the_gap_between_the_class_means_and_keeps_the_rest():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5_000, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    y = (x[:, 0] + torch.randn(5_000, generator=generator) > 0).long()
    erased = leace(x, y)(x)
    gap = erased[y == 1].mean(0) - erased[y == 0].mean(0)
    assert float((x[y == 1].mean(0) - x[y == 0].mean(0)).norm()) > 1 and float(gap.norm()) < 1e-4
    assert int(torch.linalg.matrix_rank(x - erased, rtol=1e-4)) <= 2  # one direction and a shift
