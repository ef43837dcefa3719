"""The world of shared factors: marginals, what a sequence shares, its pairs and its null, all
against the description.
"""

import pytest
import torch

from saelab.synth.world import World
from saelab.synth.worlds.s4_factors import ENTRIES, FACTORS, LENGTH, VALUES, A, B, Factors, build
from saelab.types import Cursor, Labelled, Pairs, Tokens, Windows

AGREE = 0.5**2 + VALUES * 0.1**2  # chance that two independent factors agree, "absent" included
N_VALUES = FACTORS * VALUES


@pytest.fixture(scope="module")
def process() -> Factors:
    return build(0)


@pytest.fixture(scope="module")
def null() -> Factors:
    return build(0, **ENTRIES["s4_null"].settings)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def values_of(codes: torch.Tensor) -> torch.Tensor:
    """Factor values `[B, T, 6]` read from the true codes."""
    active = codes[..., :N_VALUES].unflatten(-1, (FACTORS, VALUES)) > 0
    assert int(active.sum(-1).max()) <= 1
    return torch.where(active.any(-1), active.float().argmax(-1), VALUES)


def agreement(values: torch.Tensor, a: int = A, b: int = B) -> float:
    return float((values[..., a] == values[..., b]).float().mean())


def test_features_are_unit_and_as_far_apart_as_said(process):
    assert process.features.shape == (64, 48)
    torch.testing.assert_close(process.features.norm(dim=1), torch.ones(64))
    largest = (process.features @ process.features.T).fill_diagonal_(0).abs().amax(1).mean()
    assert 0.15 < largest <= 0.2
    assert [i for group in process.groups.values() for i in group] == list(range(64))


def test_a_draw_is_its_codes_times_the_features_plus_noise(process):
    sample = process.draw(16_000, generator())
    assert sample.x.shape == (1_000, LENGTH, 48) and sample.labels.shape == (1_000, FACTORS)
    noise = sample.x - sample.codes @ process.features
    assert float(noise.std()) == pytest.approx(0.05, rel=0.02) and abs(float(noise.mean())) < 1e-3
    # 6 * .5 + 34 * .1
    assert float((sample.codes > 0).float().sum(-1).mean()) == pytest.approx(6.4, abs=0.1)
    for part, spread in ((sample.codes[..., :N_VALUES], 0.15), (sample.codes[..., N_VALUES:], 0.3)):
        assert float(part[part > 0].mean()) == pytest.approx(1, abs=0.01)
        assert float(part[part > 0].std()) == pytest.approx(spread, abs=0.01)


def test_marginals_are_balanced_and_only_a_and_b_agree(process):
    assert torch.equal(
        process.draw(32, generator()).labels, process.values(2, generator(), rho=0.8)
    )
    values = process.values(20_000, generator(), rho=0.8)
    # [6 values, 6 factors]
    share = torch.stack([(values == v).float().mean(0) for v in range(VALUES + 1)])
    torch.testing.assert_close(
        share, torch.tensor([0.1] * 5 + [0.5])[:, None].expand(6, 6), atol=0.012, rtol=0
    )
    assert agreement(values) == pytest.approx(0.8 + 0.2 * AGREE, abs=0.01)
    assert agreement(values, A, 2) == pytest.approx(AGREE, abs=0.015)
    assert agreement(values, 4, 5) == pytest.approx(AGREE, abs=0.015)


def test_values_hold_over_a_sequence_and_nuisance_does_not(process):
    sample = process.draw(16_000, generator())
    assert torch.equal(values_of(sample.codes), sample.labels.unsqueeze(1).expand(-1, LENGTH, -1))
    active = sample.codes[..., N_VALUES:] > 0
    again = active[:, 0] & active[:, 1]
    assert float(again.float().mean()) == pytest.approx(0.01, abs=0.002)  # .1 * .1


def test_in_the_null_tokens_share_nothing_but_look_the_same(process, null):
    sample = null.draw(48_000, generator())
    values = values_of(sample.codes)  # [B, T, 6]
    assert float((values[:, 0] == values[:, 1]).float().mean()) == pytest.approx(AGREE, abs=0.01)
    assert float((values == sample.labels.unsqueeze(1)).float().mean()) == pytest.approx(
        AGREE, abs=0.01
    )
    assert agreement(values) == pytest.approx(0.8 + 0.2 * AGREE, abs=0.005)
    held = process.draw(48_000, generator())
    frequency = [(s.codes > 0).float().mean((0, 1)) for s in (sample, held)]
    torch.testing.assert_close(*frequency, atol=0.025, rtol=0)
    assert torch.equal(null.features, process.features)


def test_the_balanced_set_is_factorial_and_held_in_the_null_too(process, null):
    for world in (process, null):
        sample = world.balanced(3_000, generator())
        assert torch.equal(
            values_of(sample.codes), sample.labels.unsqueeze(1).expand(-1, LENGTH, -1)
        )
        assert agreement(sample.labels) == pytest.approx(AGREE, abs=0.03)


def test_a_paraphrase_keeps_the_values_and_draws_new_nuisance(process):
    g = generator()
    first = process.draw(1_600, g)
    second = process.sequences(first.labels, g)
    assert torch.equal(values_of(first.codes), values_of(second.codes))
    nuisance = [sample.codes[..., N_VALUES:] > 0 for sample in (first, second)]
    assert float((nuisance[0] & nuisance[1]).float().mean()) == pytest.approx(0.01, abs=0.002)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_a_factor_pair_shares_one_present_factor_and_nothing_else(rho):
    g, process = generator(), build(0, rho=rho)
    values = process.values(6_000, g, rho=0.8)
    partner, shared = process.partners(values, g)
    rows = torch.arange(len(values))
    assert torch.equal(partner[rows, shared], values[rows, shared])
    present = (values < VALUES).any(1)
    assert bool((values[rows, shared] < VALUES)[present].all()) and int((~present).sum()) > 0
    fresh = (values < VALUES) & (torch.arange(FACTORS) != shared.unsqueeze(1))
    fresh[:, [A, B]] = False
    assert float((partner == values)[fresh].float().mean()) == pytest.approx(0.1, abs=0.015)
    for factor in (A, B):  # given the shared value of one, the other copies it with chance rho
        rest = shared == factor
        given = 0.1 + 0.4 * float((partner[rest, factor] == VALUES).float().mean())
        assert agreement(partner[rest]) == pytest.approx(rho + (1 - rho) * given, abs=0.035)
    others = (shared != A) & (shared != B)
    assert agreement(partner[others]) == pytest.approx(rho + (1 - rho) * AGREE, abs=0.03)


def test_pairs_of_a_step_share_a_factor_or_are_paraphrases(process):
    world = World("s4", process, seed=3, batch=2_048)
    views, _ = next(world.batches(Tokens, Cursor(batch=4), [Pairs]))
    pairs = views.sides[Pairs]
    assert isinstance(pairs, Pairs) and pairs.kinds[-1] == "paraphrase" and len(pairs.kinds) == 7
    assert pairs.first.x.shape == pairs.second.x.shape == (64, LENGTH, 48)
    first, second = pairs.values.unbind(1)
    again = pairs.kind == FACTORS
    assert again.tolist() == [True, False] * 32 and torch.equal(first[again], second[again])
    rows, shared = torch.arange(32), pairs.kind[~again]
    assert torch.equal(first[~again][rows, shared], second[~again][rows, shared])
    assert (first[~again] != second[~again]).any(1).float().mean() > 0.9
    assert not torch.equal(pairs.first.x[again], pairs.second.x[again])  # nuisance is new
    numbers = torch.cat([pairs.first.doc[:, 0], pairs.second.doc[:, 0]])
    assert len(numbers.unique()) == 128
    # values are those that the activations show: a direction alone tells most of them
    codes = pairs.first.flat @ process.features[:N_VALUES].T
    held = first.repeat_interleave(LENGTH, 0)
    best = codes.view(-1, FACTORS, VALUES).argmax(2)
    assert (best == held)[held < VALUES].float().mean() > 0.8


def test_labelled_batches_say_what_each_token_shows(process, null):
    for one in (process, null):
        sample = one.labelled(200, generator())
        assert sample.x.shape == (200, 48) and sample.labels.shape == (200, FACTORS)
        shown = sample.codes[:, :N_VALUES].view(-1, FACTORS, VALUES)
        there = sample.labels < VALUES
        assert torch.equal((shown > 0).any(2), there)
        assert torch.equal(shown.argmax(2)[there], sample.labels[there])
    world = World("s4", process, seed=3, batch=64)
    batch = next(world.batches(Tokens, Cursor(), [Labelled]))[0].sides[Labelled]
    assert isinstance(batch, Labelled) and batch.names[A] == "factor 0" and len(batch.x) == 64


def test_views_of_a_world_do_not_depend_on_each_other(process):
    world = World("s4", process, seed=3, batch=64)
    every = next(world.batches(Tokens, Cursor(batch=2), [Windows, Pairs, Labelled]))[0]
    for kind in (Pairs, Labelled):
        alone = next(world.batches(Tokens, Cursor(batch=2), [kind]))[0]
        assert torch.equal(alone.main.flat, every.main.flat)
        assert torch.equal(alone.sides[kind].flat, every.sides[kind].flat)
    assert every.sides[Windows] is every.main  # tokens are the windows in order


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_the_worlds_of_the_table_give_both_kinds_of_batches(name):
    entry = ENTRIES[name]
    world = World(name, entry.build(3, **entry.settings), seed=3, batch=entry.setup.batch)
    assert world.kinds == (Tokens, Windows, Pairs, Labelled)
    views, following = next(world.batches(Tokens, Cursor()))
    tokens, windows = views.main, next(world.batches(Windows, Cursor()))[0].main
    assert isinstance(tokens, Tokens) and isinstance(windows, Windows)
    assert (
        tokens.x.shape == (512, 48)
        and windows.x.shape == (32, 16, 48)
        and following == Cursor(0, 0, 1)
    )
    assert torch.equal(tokens.x, windows.flat)
    assert len(world.sample(100, "odd").x) == 7  # whole sequences


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rho": 1.2}, r"rho is 1.2; it must be from 0 to 1"),
        ({"absent": 1}, r"absent is 1; it must be from 0 to 0.9"),
        ({"hold": -1}, r"hold is -1; it must be from 0 to 1"),
        ({"p": float("nan")}, r"p is nan; it must be from 0 to 1"),
        ({"noise": -0.1}, r"noise is -0.1; it must be from 0 to 10"),
        ({"nuisance": -3}, r"nuisance is -3; it must be from 0 to 4,096"),
        ({"d": 0}, r"d is 0; it must be from 1 to 4,096"),
        ({"d": 8}, r"64 directions in 8 dimensions"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(0, **settings)
