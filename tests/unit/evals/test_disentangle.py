"""Disentanglement scores against codes whose scores are known: one-hot, rotated, merged, shuffled."""

import math

import pytest
import torch
from sklearn.metrics import mutual_info_score
from torch.nn.functional import pad

from in_world import as_held_out
from saelab.evals import metric_of
from saelab.evals.disentangle.formulas import (
    Items,
    bins,
    correlation_ceiling,
    dci_d,
    entropy,
    factor_vae,
    gap_ceiling,
    items,
    mig,
    mutual_information,
    sap,
    value_information,
)
from saelab.evals.disentangle.measure import DisentangleData, measure, prepare
from saelab.synth.directions import orthonormal
from saelab.synth.world import World
from saelab.synth.worlds.s4_factors import VALUES, build
from saelab.types import Dictionary

N = 6_000


@pytest.fixture(scope="module")
def known() -> Items:
    """Items of a balanced factorial design: six factors of five values, each absent half the time."""
    g = torch.Generator().manual_seed(0)
    values = build(0).values(N, g, rho=0)
    return items(values, VALUES, 0.1, g)


@pytest.fixture(scope="module")
def oracle(known) -> torch.Tensor:
    """One latent per value, with some noise in how strongly it fires: `[N, 30]`."""
    return known.targets * (
        1 + 0.04 * torch.randn(known.targets.shape, generator=torch.Generator().manual_seed(1))
    )


def scores(codes: torch.Tensor, of: Items) -> dict[str, float]:
    information = value_information(codes, of)
    return {
        "mig": float(mig(information, of).mean()),
        "sap": float(sap(codes, of).mean()),
        "dci_d": dci_d(codes, information[0], of),
        "factor_vae": factor_vae(codes, of),
    }


def test_a_one_hot_code_is_perfect(known, oracle):
    found = scores(oracle, known)
    assert found["mig"] == pytest.approx(1, abs=0.03) and found["sap"] == pytest.approx(1, abs=0.03)
    assert found["dci_d"] >= 0.95 and found["factor_vae"] >= 0.97


def test_a_rotated_one_hot_code_is_not(known, oracle):
    found = scores(oracle @ orthonormal(30, torch.Generator().manual_seed(2)), known)
    assert found["mig"] <= 0.1 and found["sap"] <= 0.1 and found["dci_d"] <= 0.15
    assert found["factor_vae"] < 0.85  # lower, but high: no gate


def test_shuffled_items_are_chance(known, oracle):
    found = scores(oracle[torch.randperm(N, generator=torch.Generator().manual_seed(3))], known)
    assert abs(found["mig"]) <= 0.01 and abs(found["sap"]) <= 0.01 and found["factor_vae"] <= 0.3
    assert found["dci_d"] <= 0.25  # its floor is not 0: the noise of L1 regression


def test_merged_values_cost_their_own_gap_only(known, oracle):
    merged = oracle.clone()
    merged[:, :5] = merged[:, :5] + merged[:, 5:10]  # one latent for "A and B", instead of two
    merged[:, 5:10] = 0
    gaps = mig(value_information(merged, known), known)
    pure = mig(value_information(oracle, known), known)
    assert float(gaps[:10].mean()) == pytest.approx(0.61, abs=0.03) and torch.equal(
        gaps[10:], pure[10:]
    )


def test_two_equal_latents_have_no_gap(known, oracle):
    twice = torch.cat([oracle, oracle], 1)
    assert float(mig(value_information(twice, known), known).abs().max()) == 0
    assert float(sap(twice, known).abs().max()) == 0


def test_dead_latents_change_nothing(known, oracle):
    assert scores(pad(oracle, (0, 1_000)), known) == scores(oracle, known)


def test_the_scale_of_a_latent_changes_nothing(known, oracle):
    assert scores(oracle / 2, known) == scores(oracle, known)
    each = 2.0 ** torch.arange(-15, 15)
    assert scores(oracle * each, known) == scores(oracle, known)


def test_one_latent_is_enough_to_be_scored(known, oracle):
    gaps = mig(value_information(oracle[:, :1], known), known)
    assert float(gaps[0]) > 1  # with no second latent, the gap is the information itself
    # what one value tells of the others
    assert float(gaps[1:].mean()) == pytest.approx(0.02, abs=0.02)


def test_literal_mig_is_near_zero_for_a_perfect_code(known, oracle):
    """Why scores are per value: a factor's five latents tell equally much of the factor, so best
    minus second is nothing.
    """
    factor = known.values[:, 2].numpy()
    told = sorted(mutual_info_score(factor, latent.numpy()) for latent in (oracle > 0).T)
    of_factor = 0.5 * math.log(2) - 5 * 0.1 * math.log(0.1)
    assert told[-1] > 0.2 * of_factor and (told[-1] - told[-2]) / of_factor < 0.03


def test_ceilings_are_those_of_exclusive_values(known):
    y, other = (known.targets[:, j].numpy() for j in (0, 1))
    told, all_of_it = mutual_info_score(y, other), mutual_info_score(y, y)
    assert all_of_it == pytest.approx(entropy(0.1), rel=0.05) and entropy(0.5) == pytest.approx(
        math.log(2)
    )
    assert gap_ceiling(0.1) == pytest.approx(1 - told / all_of_it, abs=0.01)
    corr = float(torch.corrcoef(known.targets[:, :2].T)[0, 1])
    assert correlation_ceiling(0.1) == pytest.approx(1 - corr**2, abs=0.01)


def test_bins_are_zero_and_the_quarters_of_what_is_active():
    codes = torch.zeros(200, 3)
    codes[:100, 0] = torch.arange(1.0, 101)
    codes[:10, 1] = torch.arange(1.0, 11)  # too few for quarters
    found = bins(codes, codes)
    assert found[:, 0].bincount().tolist() == [100, 25, 25, 25, 25]
    assert found[:, 1].bincount().tolist() == [190, 10] and int(found[:, 2].max()) == 0


def test_mutual_information_is_that_of_the_library():
    g = torch.Generator().manual_seed(4)
    bin_of, targets = (
        torch.randint(5, (500, 3), generator=g),
        torch.randint(2, (500, 2), generator=g),
    )
    bin_of[:, 0] = targets[:, 0] * 2 + bin_of[:, 0] // 3
    found = mutual_information(bin_of, targets.float())
    expected = [[mutual_info_score(b.numpy(), y.numpy()) for y in targets.T] for b in bin_of.T]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)


def test_a_value_with_too_few_items_is_refused():
    with pytest.raises(
        ValueError,
        match="a value has 10 of 50 items; every value needs at least 64, take more items",
    ):
        items(torch.arange(5).repeat(10).unsqueeze(1), 5, 0.2, torch.Generator())


class Code:
    """A dictionary with given directions, whose codes are a linear read-out; below .01 counts as
    silent.
    """

    hook = None

    def __init__(self, directions: torch.Tensor, read: torch.Tensor):
        self.directions, self.read = directions, read

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        z = x @ self.read
        return z * (z > 0.01)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z @ self.directions


@pytest.fixture(scope="module")
def world() -> World:
    """Wide and without noise, so that the true codes can be read exactly."""
    return World("s4", build(0, d=80, noise=0), seed=0, batch=512)


@pytest.fixture(scope="module")
def data(world) -> DisentangleData:
    return prepare(as_held_out(world))


@pytest.fixture(scope="module")
def truth(world) -> Code:
    return Code(world.process.features, torch.linalg.pinv(world.process.features))


def table(dictionary: Dictionary, data: DisentangleData) -> dict[str, float | None]:
    return {name: score.value for name, score in measure(dictionary, data).scores.items()}


def test_the_true_dictionary_is_perfect_and_has_no_composites(truth, data):
    result = measure(truth, data)
    found = {name: score.value for name, score in result.scores.items()}
    assert found["mig"] == pytest.approx(1, abs=0.03) and found["mig_ab"] == pytest.approx(
        1, abs=0.06
    )
    assert found["sap"] == pytest.approx(1, abs=0.03) and found["factor_vae"] > 0.9
    assert found["composites"] == 0 and found["composite_share"] == 0
    assert {
        name: metric_of(name).better for name in result.scores if metric_of(name).better != "higher"
    } == {
        "composites": "lower",
        "composite_share": "lower",
    }
    assert len(result.to_json()["mig_by_value"]) == 30


def test_composites_are_counted_and_cost_a_and_b_alone(truth, data):
    """Five latents for "A and B": half of A's, half of B's direction, read from both."""
    directions, read = truth.directions.clone(), truth.read.clone()
    directions[:5] = (directions[:5] + directions[5:10]) / 2
    read[:, :5] = (read[:, :5] + read[:, 5:10]) / 2
    read[:, 5:7] = 0  # two of B's own latents are dead, three are pure
    found, pure = table(Code(directions, read), data), table(truth, data)
    assert found["composites"] == 5 and found["composite_share"] == pytest.approx(5 / 8)
    assert found["mig_ab"] < pure["mig_ab"] - 0.3
    assert found["mig"] == pytest.approx(
        pure["mig"] + (found["mig_ab"] - pure["mig_ab"]) / 3, abs=0.01
    )


def test_scale_and_dead_latents_change_nothing(truth, data):
    halved = Code(truth.directions * 2, truth.read / 2)
    halved.encode = lambda x: truth.encode(x) / 2
    dead = Code(pad(truth.directions, (0, 0, 0, 100), value=1.0), pad(truth.read, (0, 100)))
    assert table(halved, data) == table(truth, data) == table(dead, data)


def test_a_silent_dictionary_has_reasons_in_place_of_scores(truth, data):
    scores = measure(Code(truth.directions, truth.read * 0), data).scores
    undefined = {name: score.reason for name, score in scores.items() if score.value is None}
    assert undefined == {
        "dci_d": "no latent tells anything of a value",
        "factor_vae": "no latent is active on 2 % of the sequences",
        "composite_share": "no live latent is near a value of A or B",
    }
    assert scores["mig"].value == scores["sap"].value == scores["composites"].value == 0


def test_other_worlds_are_refused(world):
    class Other:
        features = world.process.features

    with pytest.raises(
        TypeError, match="world 's9' has no factors; disentangle reads s4 and s4_null"
    ):
        prepare(as_held_out(World("s9", Other(), seed=0, batch=16)))
