import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from in_world import as_held_out
from saelab.evals.temporal.codes import (
    column_correlation,
    explained_share,
    lag_correlation,
    position_share,
)
from saelab.evals.temporal.on_worlds import TemporalData, measure, prepare
from saelab.synth.world import Sample, World
from saelab.synth.worlds.s3_persistence import ENTRIES
from saelab.types import Hook, Structure

# correlation of a code h e (1 + .1 n) with h: p q (1 - p) / sqrt((1.01 p q - p^2 q^2) p (1 - p))
PLAIN = 0.7614


@dataclass
class Fake:
    """A dictionary whose code is how far x reaches along its own directions, in steps of no code
    below .3.
    """

    directions: Tensor  # [L, D]
    gain: float = 1.0
    dead: Tensor | None = None  # [L] bool
    blocks: Mapping[str, range] = field(default_factory=dict)
    hook: Hook | None = None

    @property
    def structure(self) -> Structure:
        return Structure(self.blocks)

    def encode(self, x: Tensor) -> Tensor:
        along = x @ (self.directions / self.directions.norm(dim=1, keepdim=True).clamp_min(1e-9)).T
        z = self.gain * torch.where(along > 0.3, along, 0)
        return z if self.dead is None else z * ~self.dead

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.directions


def data_of(name: str) -> TemporalData:
    entry = ENTRIES[name]
    return prepare(as_held_out(World(name, entry.build(0, **entry.settings), seed=0, batch=512)))


@pytest.fixture(scope="module")
def data() -> TemporalData:
    return data_of("s3")


@pytest.fixture(scope="module")
def null() -> TemporalData:
    return data_of("s3_null")


def values(dictionary: Fake, data: TemporalData) -> dict[str, float | None]:
    return {name: score.value for name, score in measure(dictionary, data).scores.items()}


def fast_first(data: TemporalData) -> Tensor:
    return data.process.features.flip(0)


def test_the_true_features_in_order_score_perfectly(data: TemporalData):
    scores = values(Fake(data.process.features), data)
    hidden, smoothed = scores.pop("hidden_correlation"), scores.pop("hidden_correlation_smoothed")
    assert scores.pop("learned_gain") == pytest.approx(gain_of_the_truth(data), abs=0.02)
    assert scores == pytest.approx(
        {
            "slow_recall": 1,
            "fast_recall": 1,
            "purity": 1,
            "purity_sorted": 1,
            "occupancy": 1,
            "position_features_in_slow_block": 0,
            "mcc_slow": 1,
            "mcc_fast": 1,
        },
        abs=1e-5,
    )
    assert hidden == pytest.approx(PLAIN, abs=0.01)
    assert smoothed is not None and 0.86 < smoothed < 0.9


def gain_of_the_truth(data: TemporalData) -> float:
    """Mean over slow features and lags 1 to 15 of p q^2 (1 - p) stay^lag / (1.01 p q)."""
    p, q, stay = 0.15, 0.625, data.process.stay[:20]
    lags = torch.arange(1, 16).unsqueeze(1)
    return float((q * (1 - p) / 1.01 * stay**lags).mean())


def test_nothing_is_gained_where_tokens_are_permuted(null: TemporalData):
    assert values(Fake(null.process.features), null)["learned_gain"] == pytest.approx(0, abs=0.01)


def test_the_constant_is_what_its_formula_says():
    p, q = 0.15, 0.625
    assert (
        pytest.approx(
            p * q * (1 - p) / math.sqrt((1.01 * p * q - (p * q) ** 2) * p * (1 - p)), abs=1e-4
        )
        == PLAIN
    )


def test_order_changes_the_block_and_not_what_sorting_and_recall_see(data: TemporalData):
    ordered, turned = (
        values(Fake(data.process.features), data),
        values(Fake(fast_first(data)), data),
    )
    assert turned["purity"] == 0 and turned["occupancy"] == 0
    for name in ("purity_sorted", "slow_recall", "fast_recall", "mcc_slow", "hidden_correlation"):
        assert turned[name] == pytest.approx(ordered[name], abs=1e-6)
    mixed = torch.arange(40).view(2, 20).T.flatten()  # slow, fast, slow, fast, ...
    interleaved = values(Fake(data.process.features[mixed]), data)
    assert (
        interleaved["purity"] == 0.5
        and interleaved["occupancy"] == 0.5
        and interleaved["purity_sorted"] == 1
    )


def test_a_block_named_slow_is_the_slow_block(data: TemporalData):
    named = values(Fake(fast_first(data), blocks={"slow": range(20, 40), "rest": range(20)}), data)
    assert named["purity"] == 1 and named["occupancy"] == 1
    other = values(Fake(fast_first(data), blocks={"coarse": range(20, 40)}), data)
    assert other["purity"] == 0


def test_sorting_finds_nothing_where_tokens_are_permuted(null: TemporalData):
    scores = values(Fake(null.process.features), null)
    purity_sorted = scores["purity_sorted"]
    assert purity_sorted is not None and 0.25 <= purity_sorted <= 0.75
    assert scores["purity"] == 1 and scores["slow_recall"] == 1


def test_smoothing_gains_from_persistence_only(data: TemporalData, null: TemporalData):
    for held_out, gains in ((data, True), (null, False)):
        scores = values(Fake(held_out.process.features), held_out)
        plain, smoothed = scores["hidden_correlation"], scores["hidden_correlation_smoothed"]
        assert plain is not None and smoothed is not None
        assert plain == pytest.approx(PLAIN, abs=0.01)
        assert (smoothed > plain + 0.08) if gains else (smoothed < plain - 0.08)


def test_the_wrong_states_have_no_correlation(data: TemporalData):
    shuffled = data.hidden[
        torch.randperm(len(data.hidden), generator=torch.Generator().manual_seed(0))
    ]
    scores = values(
        Fake(data.process.features), TemporalData(data.process, data.x, shuffled, data.signals)
    )
    assert scores["hidden_correlation"] == pytest.approx(0, abs=0.03)
    assert scores["hidden_correlation_smoothed"] == pytest.approx(0, abs=0.03)


def test_dead_latents_change_nothing_when_they_come_last(data: TemporalData):
    features = data.process.features
    dead = torch.cat([torch.zeros(40, dtype=torch.bool), torch.ones(12, dtype=torch.bool)])
    grown = Fake(torch.cat([features, features[:12]]), dead=dead)
    assert values(grown, data) == pytest.approx(values(Fake(features), data), abs=1e-5)


def test_dead_latents_in_the_block_empty_it_and_find_nothing(data: TemporalData):
    dead = torch.zeros(40, dtype=torch.bool)
    dead[:5] = True
    result = measure(Fake(data.process.features, dead=dead), data)
    scores = {name: score.value for name, score in result.scores.items()}
    assert scores["slow_recall"] == 0.75 and scores["occupancy"] == 0.75 and scores["purity"] == 1
    assert scores["purity_sorted"] == 0.75  # 15 slow ones, then five fast ones; dead ones come last
    assert result.details["slow_block"] == {
        "slow": 15,
        "fast": 0,
        "position": 0,
        "mixed": 0,
        "dead": 5,
    }
    assert scores["hidden_correlation"] == pytest.approx(PLAIN, abs=0.01)


def test_the_codes_scale_changes_nothing(data: TemporalData):
    plain, halved = Fake(data.process.features[:30]), Fake(2 * data.process.features[:30], gain=0.5)
    assert values(halved, data) == pytest.approx(values(plain, data), abs=1e-5)


def test_latents_of_the_position_are_told_from_slow_ones(data: TemporalData):
    planes, features = data.process.planes, data.process.features
    turn = torch.tensor([[0.8, 0.6], [-0.6, 0.8]])  # no latent along the axes of the circle
    tiles = torch.cat([turn @ planes[:2], -turn @ planes[:2], planes[2:], -planes[2:]])
    result = measure(Fake(torch.cat([tiles, features])), data)
    scores = {name: score.value for name, score in result.scores.items()}
    assert result.details["slow_block"] == {
        "slow": 12,
        "fast": 0,
        "position": 8,
        "mixed": 0,
        "dead": 0,
    }
    assert scores["purity"] == 1 and scores["occupancy"] == 0.6 and scores["purity_sorted"] == 1
    assert scores["position_features_in_slow_block"] == 4
    half = values(Fake(torch.cat([tiles[:4], features])), data)
    assert half["position_features_in_slow_block"] == 2


def test_a_latent_between_two_features_stands_for_neither(data: TemporalData):
    features = data.process.features
    blurred = features[:20] + features[20:]  # |cosine| .71 with both: a tie, but found nowhere
    scores = values(Fake(blurred), data)
    assert scores["slow_recall"] == 0 and scores["fast_recall"] == 0
    # |cosine| .41 with six
    thirds = (features[:18].view(3, 6, 64) + features[20:38].view(3, 6, 64)).sum(0)
    result = measure(Fake(thirds), data)
    assert result.details["slow_block"]["mixed"] == 6 and result.scores["occupancy"].value == 0


def test_fewer_latents_than_features_leave_features_out(data: TemporalData):
    scores = values(Fake(data.process.features[10:30]), data)
    assert (scores["slow_recall"], scores["fast_recall"]) == (0.5, 0.5)
    assert scores["mcc_slow"] == pytest.approx(0.5, abs=1e-5) and scores["purity"] == 0.5


def test_what_is_undefined_says_why(data: TemporalData):
    silent = measure(Fake(data.process.features, gain=0.0), data).scores
    assert silent["purity"].value is None and silent["purity_sorted"].value is None
    assert silent["purity"].reason == "none of these latents stands for a slow or a fast feature"
    for name in ("hidden_correlation", "hidden_correlation_smoothed"):
        assert (
            silent[name].value is None
            and "no live latent is matched to a slow feature" in silent[name].reason
        )
    assert silent["learned_gain"].reason == "the slow block never fires"
    assert silent["slow_recall"].value == 0 and silent["occupancy"].value == 0
    assert silent["position_features_in_slow_block"].value == 0
    capacity = data_of("s3c")
    score = measure(Fake(capacity.process.features), capacity).scores[
        "position_features_in_slow_block"
    ]
    assert score.value is None and score.reason == "this world has no position features"


def test_another_kind_of_world_is_refused():
    @dataclass(frozen=True)
    class Other:
        features: Tensor
        groups: Mapping[str, range]

        def draw(self, n: int, generator: torch.Generator) -> Sample:
            return Sample(torch.randn(n, 4, generator=generator), torch.ones(n, 4))

    world = World("other", Other(torch.eye(4), {"all": range(4)}), seed=0, batch=8)
    with pytest.raises(
        TypeError,
        match="world 'other' has no persistent features; the temporal evaluation reads s3,",
    ):
        prepare(as_held_out(world))


def test_measuring_twice_gives_the_same(data: TemporalData):
    assert measure(Fake(data.process.features), data) == measure(Fake(data.process.features), data)


def test_lag_correlation_of_alternating_codes():
    # correlation -1 at odd lags, 1 at even ones
    z = torch.tensor([1.0, 0.0]).repeat(32).view(1, 64, 1)
    torch.testing.assert_close(lag_correlation(z), torch.tensor([-1 / 15]), atol=1e-5, rtol=0)
    torch.testing.assert_close(lag_correlation(torch.full((2, 8, 1), 3.0)), torch.zeros(1))


def test_position_share_of_codes_that_are_all_or_no_position():
    t = torch.arange(8.0).expand(4, 8)
    s = torch.arange(4.0).unsqueeze(1).expand(4, 8)
    torch.testing.assert_close(
        position_share(torch.stack([t, s, t.square()], -1)), torch.tensor([1.0, 0.0, 1.0])
    )
    half = torch.stack([t % 2 + s % 2], -1)  # two halves of equal variance
    torch.testing.assert_close(position_share(half), torch.tensor([0.5]))


def test_explained_share_is_that_of_least_squares():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=g)
    noise = torch.randn(4000, generator=g)
    y = torch.stack(
        [2 * x[:, 0] - x[:, 1] + 5, x[:, 2] + noise, noise, torch.full((4000,), 2.0)], 1
    )
    torch.testing.assert_close(
        explained_share(x, y), torch.tensor([1.0, 0.5, 0.0, 0.0]), atol=0.03, rtol=0
    )
    doubled = torch.cat([x, x[:, :1], torch.ones(4000, 1)], 1)  # a repeated and a constant input
    torch.testing.assert_close(
        explained_share(doubled, y), explained_share(x, y), atol=1e-5, rtol=0
    )


def test_column_correlation_of_known_columns():
    a = torch.tensor([0.0, 1, 2, 3]).view(1, 4, 1)
    b = torch.cat([2 * a + 1, -a, torch.ones_like(a)], 2)
    torch.testing.assert_close(
        column_correlation(a.expand(1, 4, 3), b), torch.tensor([1.0, -1.0, 0.0])
    )
