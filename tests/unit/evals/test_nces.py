"""Causal scores on worlds: closed forms, chance, and what dead latents and other scales may change."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from in_world import as_held_out
from saelab.effects.intervene import TYPES
from saelab.evals import metric_of
from saelab.evals.nces.on_worlds import NO_INERT, NOT_FINITE, CausalData, measure, prepare
from saelab.experiments.tables.standard import SANITY
from saelab.synth.directions import orthonormal, unit_rows
from saelab.synth.world import Sample, World
from saelab.synth.worlds.s1_causal import ENTRIES, VOCAB, Causal, Gated, build_causal
from saelab.types import Dictionary, Hook

F, D = 6, 24  # causal features (as many inert ones), width
OF_FEATURES = ("causal_mcc", "inert_mcc", "recovered_share", "kl_recovered")
EFFECTS = tuple(f"nces_auroc_{name}" for name in (*TYPES, "fisher"))
BASELINES = tuple(f"nces_auroc_{name}" for name in ("activity", "norm", "probe"))


@dataclass
class Reader:
    """Reads codes off rows that are orthogonal where it matters, exactly; `gain` scales the codes,
    `b_dec` is added.
    """

    directions: Tensor  # [L, D]
    gain: float = 1.0
    b_dec: Tensor | float = 0.0
    shuffled: bool = False  # codes of other activations
    # of a gated world: the codes of the bank that the context leaves unread are 0
    read_bank_only: bool = False
    hook: Hook | None = None

    def encode(self, x: Tensor) -> Tensor:
        codes = self.gain * (x @ unit_rows(self.directions).nan_to_num().T).relu()
        if self.read_bank_only:
            # [2 F], 0 is A, read where the first context feature is active
            bank = torch.arange(2).repeat_interleave(F)
            codes[:, :-2] *= bank == (codes[:, -2:-1] <= 0).long()
        return (
            codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))]
            if self.shuffled
            else codes
        )

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.directions + self.b_dec


@pytest.fixture(scope="module")
def causal():
    generator = torch.Generator().manual_seed(0)
    features = orthonormal(D, generator)[: 2 * F]
    U = 3 * torch.randn(VOCAB, F, generator=generator)
    process = Causal(
        features,
        torch.tensor([1.0, 3.0]).repeat_interleave(F),
        features[:F],
        U,
        p=0.3,
        copy=0.0,
        noise=0.0,
    )
    return prepare(as_held_out(World("s1", process, seed=0, batch=64)))


@pytest.fixture(scope="module")
def gated():
    generator = torch.Generator().manual_seed(0)
    basis = orthonormal(D, generator)
    features = torch.cat([basis[: 2 * F], basis[-1:], -basis[-1:]])
    V = torch.stack([basis[:F], basis[F : 2 * F]])
    U = 3 * torch.randn(VOCAB, F, generator=generator)
    process = Gated(features, torch.ones(2 * F), V, U, p=0.3, context=2.0, noise=0.0)
    return prepare(as_held_out(World("s1d", process, seed=0, batch=64)))


def values(dictionary: Dictionary, data: CausalData) -> dict[str, float | None]:
    assert isinstance(dictionary, Dictionary)
    found = measure(dictionary, data).scores
    return {name: found[name].value for name in OF_FEATURES}


def scores(causal_mcc, inert_mcc, recovered_share, kl_recovered):
    expected = (
        ("causal_mcc", causal_mcc),
        ("inert_mcc", inert_mcc),
        ("recovered_share", recovered_share),
    )
    return {
        name: pytest.approx(value, abs=1e-5)
        for name, value in (*expected, ("kl_recovered", kl_recovered))
    }


def test_the_true_features_score_one(causal):
    assert values(Reader(causal.process.features), causal) == scores(1, 1, 1, 1)


def test_causal_features_alone_are_enough(causal):
    assert values(Reader(causal.process.features[:F]), causal) == scores(1, 0, 1, 1)


def test_inert_features_alone_leave_the_model_at_zero_activation(causal):
    """Logits are then 0: the prediction is uniform, and KL(p || uniform) = log V - H(p)."""
    p = causal.log_p.exp()
    spliced = float(torch.tensor(VOCAB).log() + (p * causal.log_p).sum(-1).mean())
    assert values(Reader(causal.process.features[F:]), causal) == scores(
        0, 1, 0, 1 - spliced / causal.kl_ablated
    )


def test_half_of_the_causal_features_count_half(causal):
    found = values(Reader(causal.process.features[: F // 2]), causal)
    assert found["causal_mcc"] == pytest.approx(0.5)
    assert found["recovered_share"] == pytest.approx(0.5)
    kl = found["kl_recovered"]
    assert kl is not None and kl < 1


def test_directions_off_by_an_angle(causal):
    features, apart = (
        causal.process.features,
        orthonormal(D, torch.Generator().manual_seed(0))[2 * F : 3 * F],
    )
    for cosine, recovered in ((0.95, 1.0), (0.85, 0.0)):
        tilted = cosine * features[:F] + (1 - cosine**2) ** 0.5 * apart
        # neither sign nor length of a decoder row counts
        found = values(Reader(-2 * tilted), causal)
        assert found["causal_mcc"] == pytest.approx(cosine, abs=1e-5)
        assert found["recovered_share"] == recovered


def test_the_mean_recovers_nothing(causal):
    mean = World("s1", causal.process, seed=0, batch=64).stats.mean
    found = values(Reader(torch.zeros(1, D), b_dec=mean), causal)
    assert found["kl_recovered"] == pytest.approx(0, abs=1e-5)
    assert found["causal_mcc"] == 0


def test_the_order_of_latents_does_not_matter_and_that_of_codes_does(causal):
    features = causal.process.features
    assert values(Reader(features.flip(0)), causal) == scores(1, 1, 1, 1)
    shuffled = values(Reader(features, shuffled=True), causal)
    # another activation is worse than the mean
    assert shuffled["kl_recovered"] is not None and shuffled["kl_recovered"] < 0
    assert shuffled["causal_mcc"] == pytest.approx(1)


def test_dead_latents_change_nothing(causal):
    rows = torch.cat([causal.process.features[: F + 2], torch.zeros(50, D)])
    assert values(Reader(rows), causal) == scores(1, 2 / F, 1, 1)


def test_halved_codes_change_the_predictions_only(causal):
    whole, half = (
        values(Reader(causal.process.features, gain=gain), causal) for gain in (1.0, 0.5)
    )
    assert all(half[name] == whole[name] for name in ("causal_mcc", "inert_mcc", "recovered_share"))
    assert half["kl_recovered"] is not None and half["kl_recovered"] < 0.9


def test_random_directions_score_chance():
    """64 random directions of 64 dimensions: what a decoder that was never trained scores."""
    data = prepare(as_held_out(World("s1", build_causal(20), seed=20, batch=64)))
    directions = unit_rows(torch.randn(64, 64, generator=torch.Generator().manual_seed(1)))
    found = values(Reader(directions), data)
    for name in ("causal_mcc", "inert_mcc"):
        assert found[name] == pytest.approx(0.3, abs=0.02)
    assert found["recovered_share"] == 0


def test_a_gated_world_needs_only_the_bank_that_is_read(gated):
    features = gated.process.features
    whole, read = (
        values(Reader(features), gated),
        values(Reader(features, read_bank_only=True), gated),
    )
    for found in (whole, read):
        assert found["causal_mcc"] == pytest.approx(1)
        assert found["kl_recovered"] == pytest.approx(1, abs=1e-5)
    only_a = values(Reader(features[[*range(F), -2, -1]]), gated)
    assert only_a["causal_mcc"] == pytest.approx(0.5)
    assert only_a["kl_recovered"] is not None and 0 < only_a["kl_recovered"] < 0.9


def test_a_gated_world_has_no_inert_features_and_the_context_earns_nothing(gated):
    mean = World("s1d", gated.process, seed=0, batch=64).stats.mean
    direction = gated.process.features[-2]
    rest = mean - (mean @ direction) * direction
    result = measure(Reader(gated.process.features[-2:], b_dec=rest), gated)
    assert result.scores["kl_recovered"].value == pytest.approx(0, abs=1e-5)
    assert result.scores["causal_mcc"].value == pytest.approx(0, abs=1e-5)
    assert result.scores["inert_mcc"].value is None
    assert result.scores["inert_mcc"].reason == NO_INERT


def test_a_reconstruction_that_is_not_finite_is_undefined(causal):
    result = measure(Reader(causal.process.features, b_dec=float("nan")), causal)
    assert result.scores["kl_recovered"].value is None
    assert result.scores["kl_recovered"].reason == NOT_FINITE
    assert result.scores["causal_mcc"].value == pytest.approx(1)


def test_measuring_is_deterministic_and_says_what_is_better(causal):
    dictionary = Reader(causal.process.features)
    assert measure(dictionary, causal) == measure(dictionary, causal)
    better = {name: metric_of(name).better for name in measure(dictionary, causal).scores}
    higher = {"causal_mcc", "recovered_share", "kl_recovered", "nces_spearman", *EFFECTS}
    assert better == dict.fromkeys(higher, "higher") | dict.fromkeys(
        (*BASELINES, "inert_mcc", "nces_labelled"), "neither"
    )


def test_effects_tell_what_the_model_reads(causal):
    """Amplitude misleads wholly (inert features are the strong ones); which scale the codes have
    does not matter.
    """
    features = causal.process.features
    for dictionary in (Reader(features), Reader(5 * features, gain=0.2), Reader(features.flip(0))):
        found = {name: score.value for name, score in measure(dictionary, causal).scores.items()}
        assert found["nces_labelled"] == 2 * F
        assert all(found[name] == 1 for name in EFFECTS)
        assert found["nces_auroc_norm"] == 0 and found["nces_auroc_probe"] == 1


def test_details_are_the_effects_behind_the_scores(causal):
    result = measure(Reader(causal.process.features.flip(0)), causal)
    rows, estimates = result.details["latents"], result.details["estimates"]
    assert [row["latent"] for row in rows] == estimates["latent"] == list(range(2 * F))
    for row in rows:
        assert row["causal"] == (row["latent"] >= F)
        for name in TYPES:
            assert (row[name]["effect"] > 1e-4) == row["causal"] and row[name]["control"] > 0
    assert all(
        (effect > 1e-4) == (j >= F)
        for j, effect in zip(estimates["latent"], estimates["effect"], strict=True)
    )
    masses = [
        f * code for f, code in zip(estimates["frequency"], estimates["mean_code"], strict=True)
    ]
    codes = Reader(causal.process.features.flip(0)).encode(causal.x)
    assert masses == pytest.approx(codes.mean(0).tolist(), rel=1e-4)
    only = measure(Reader(causal.process.features[:F]), causal).details
    assert only["latents"] != [] and all(
        row["causal"] and "zero" not in row for row in only["latents"]
    )
    assert only["estimates"]["latent"] == list(range(F))


def test_the_estimate_ranks_causal_latents_as_interventions_do():
    data = prepare(as_held_out(World("s1", build_causal(20), seed=20, batch=64)))
    # all that are causal, and some inert ones
    found = measure(Reader(data.process.features[:80]), data).scores
    assert found["nces_labelled"].value == 80
    spearman = found["nces_spearman"]
    assert spearman.n == 64 and spearman.value is not None and spearman.value > 0.8


def test_correlation_misleads_where_supports_are_copied_and_effects_do_not():
    """Causal features that stay inside what the model ignores: codes correlate with predictions,
    interventions do nothing.
    """
    generator = torch.Generator().manual_seed(0)
    features = orthonormal(D, generator)[: 2 * F]
    U = 3 * torch.randn(VOCAB, F, generator=generator)
    process = Causal(
        features,
        torch.tensor([1.0, 3.0]).repeat_interleave(F),
        features[:F],
        U,
        p=0.3,
        copy=1.0,
        noise=0.0,
    )
    found = measure(
        Reader(features), prepare(as_held_out(World("s1b", process, seed=0, batch=64)))
    ).scores
    assert all(found[name].value == 1 for name in EFFECTS)
    probe = found["nces_auroc_probe"].value
    assert probe is not None and probe < 0.8


@pytest.mark.parametrize("latents", [range(F), range(F, 2 * F), range(0)])
def test_without_both_kinds_of_latents_there_is_nothing_to_tell(causal, latents):
    dictionary = Reader(torch.cat([causal.process.features[list(latents)], torch.zeros(1, D)]))
    found = measure(dictionary, causal).scores
    n_causal, n_inert = (len({*latents} & {*group}) for group in (range(F), range(F, 2 * F)))
    for name in (*EFFECTS, *BASELINES, "nces_spearman"):
        assert found[name].value is None
        assert (
            found[name].reason
            == f"{n_causal} causal and {n_inert} inert latents are matched; it takes both"
        )
    assert found["nces_labelled"].value == len(latents)


def test_latents_too_rare_to_measure_have_no_label(causal):
    @dataclass
    class Rarely(Reader):
        def encode(self, x: Tensor) -> Tensor:
            codes = super().encode(x)
            codes[29:, 0] = 0
            return codes

    assert (
        measure(Rarely(causal.process.features), causal).scores["nces_labelled"].value == 2 * F - 1
    )


def test_another_world_is_refused():
    @dataclass(frozen=True)
    class Other:
        features: Tensor
        groups: dict[str, range]

        def draw(self, n: int, generator: torch.Generator) -> Sample:
            codes = torch.rand(n, 4, generator=generator)
            return Sample(codes, codes)

    with pytest.raises(
        TypeError, match=r"nces reads the worlds s1, s1b and s1d.*'other' is none of them"
    ):
        prepare(
            as_held_out(World("other", Other(torch.eye(4), {"all": range(4)}), seed=0, batch=8))
        )


def test_headlines_name_scores_that_exist(causal):
    made = {*measure(Reader(causal.process.features), causal).scores, "explained_variance"}
    for name, entry in ENTRIES.items():
        assert {*entry.headline, *(e.metric for e in SANITY[name])} <= made
