"""SynthSAEBench: sampling by what is active equals sampling through tables of all features; its
numbers and its cache.
"""

from dataclasses import replace

import pytest
import torch
from torch.special import ndtr

from in_world import as_held_out
from saelab.evals.truth import measure as truth
from saelab.store import CorruptFile
from saelab.synth import features_build
from saelab.synth.features import ROWS, FeatureProcess, Forest
from saelab.synth.features_build import compensated, copula, orthogonalised, synthsaebench, zipf
from saelab.synth.world import World
from saelab.types import Cursor, Tokens

N = 60_000
SMALL = {
    "features": 60,
    "d": 24,
    "roots": 3,
    "branching": 3,
    "depth": 2,
    "p_min": 0.01,
    "rank": 3,
    "correlation": 0.35,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def process() -> FeatureProcess:
    """Codes so spread that some are cut to 0, and a correlation so strong that it cannot be missed."""
    return synthsaebench(1, **SMALL, sd_mean=2.5, apart_steps=5)


def dense_codes(process: FeatureProcess, n: int, g: torch.Generator) -> torch.Tensor:
    """The definition, through `[N, F]` tables: correlation, then magnitudes, then the forest from
    the roots down.
    """
    z, own = (
        torch.randn(n, process.slope.shape[1], generator=g),
        torch.randn(n, len(process.features), generator=g),
    )
    fires = z @ process.slope.T + own > process.offset
    codes = (
        fires
        * (process.mean + process.sd * torch.randn(n, len(process.features), generator=g)).relu()
    )
    forest = process.forest
    for parent in range(forest.parents):  # parents come before their children
        first = forest.roots + parent * forest.branching
        family = codes[:, first : first + forest.branching]
        lots = torch.rand(family.shape, generator=g).masked_fill(family <= 0, -1)
        stays = torch.zeros_like(family).scatter_(1, lots.argmax(1, keepdim=True), 1)
        gain = (
            codes[:, parent : parent + 1] / process.mean[parent]
            if process.scaled
            else codes[:, parent : parent + 1] > 0
        )
        codes[:, first : first + forest.branching] = family * stays * gain
    return codes


def worst(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference of the means of two tables of independent rows, in standard errors."""
    error = ((a.var(0) + b.var(0)) / len(a)).sqrt()
    return float(((a.mean(0) - b.mean(0)).abs() / error.clamp_min(1e-4)).max())


def pairs(codes: torch.Tensor) -> torch.Tensor:
    """Which of the first 45 features are active together."""
    on = (codes[:, :45] > 0).float()
    return (on.unsqueeze(2) * on.unsqueeze(1)).flatten(1)


@pytest.mark.parametrize("scaled", [True, False])
def test_sampling_by_what_is_active_is_the_definition(process, scaled):
    process = replace(process, scaled=scaled)
    dense, sparse = dense_codes(process, N, generator(2)), process.draw(N, generator(3)).codes
    assert worst((dense > 0).float(), (sparse > 0).float()) < 4.5  # chances
    assert worst(dense, sparse) < 4.5  # with the magnitudes, and what parents make of them
    assert worst(dense.square(), sparse.square()) < 4.5
    # correlations, hierarchy and exclusion
    assert worst(pairs(dense[:20_000]), pairs(sparse[:20_000])) < 5.5
    mean = [float((codes > 0).sum(1).double().mean()) for codes in (dense, sparse)]
    assert mean[0] == pytest.approx(mean[1], rel=0.01)


def test_the_comparison_can_fail(process):
    """Equal chances, other correlations; equal chances, other exclusion: pairs tell."""
    apart = replace(
        process,
        slope=0 * process.slope,
        offset=process.offset / (1 + process.slope.square().sum(1)).sqrt(),
    )
    first, second = process.draw(20_000, generator()).codes, apart.draw(20_000, generator(1)).codes
    assert worst((first > 0)[:, :3].float(), (second > 0)[:, :3].float()) < 4.5  # of the roots
    assert worst(pairs(first), pairs(second)) > 8


def test_children_need_their_parent_and_exclude_each_other(process):
    on = process.draw(20_000, generator()).codes > 0
    forest = process.forest
    for parent in range(forest.parents):
        family = on[:, forest.roots + parent * forest.branching :][:, : forest.branching]
        assert not family[~on[:, parent]].any() and family.sum(1).max() == 1
    assert [list(level) for level in forest.levels] == [
        [0, 1, 2],
        list(range(3, 12)),
        list(range(12, 39)),
    ]
    assert {name: len(group) for name, group in process.groups.items()} == {
        "roots": 3,
        "level 1": 9,
        "level 2": 27,
        "free": 21,
    }


def test_chances_given_the_shared_part_are_exact(process):
    """All activations share one z, far along a feature's own direction: cells above the bound and
    below it are both there.
    """
    tops = process._tops
    z = (3 * torch.nn.functional.normalize(process.slope[50], dim=0)).expand(N, -1)
    assert 0 < int((z[0] @ tops.slope > tops.bound).sum()) < len(tops.feature) / 2
    row, feature = tops.draw(z, generator(5))
    assert len(torch.unique(row * 100 + feature)) == len(row)
    chance = ndtr(process.slope @ z[0] - process.offset)[tops.feature]
    found = feature.bincount(minlength=60)[tops.feature] / N
    assert (
        float(((found - chance) / (chance * (1 - chance) / N).sqrt().clamp_min(1e-5)).abs().max())
        < 4.5
    )


def test_the_list_and_the_codes_are_one_sample(process):
    n = 2 * ROWS + 7
    listed, sample = process.draw_sparse(n, generator()), process.draw(n, generator())
    assert torch.equal(listed.x, sample.x) and torch.equal(listed.codes, sample.codes)
    assert (
        (listed.row.diff() >= 0).all()
        and (listed.code > 0).all()
        and int(listed.row[-1]) > 2 * ROWS
    )
    torch.testing.assert_close(
        sample.x, sample.codes @ process.features + process.bias, atol=1e-4, rtol=1e-4
    )
    assert torch.equal(listed.active(ROWS - 3, ROWS + 9), (sample.codes > 0)[ROWS - 3 : ROWS + 9])
    assert float(process.bias.norm()) == pytest.approx(0.5)


def test_an_activation_without_features_is_the_bias(process):
    silent = replace(process, offset=process.offset + 100)
    sample = silent.draw(9, generator())
    assert torch.equal(sample.x, process.bias.expand(9, -1)) and not sample.codes.any()


def test_the_world_reads_lists(process):
    world, ordinary = (
        World("w", process, seed=0, batch=32),
        World("w", Dense(process), seed=0, batch=32),
    )
    batch, same = (next(one.batches(Tokens, Cursor()))[0].main for one in (world, ordinary))
    assert torch.equal(batch.flat, same.flat) and world.kinds == (Tokens,)
    assert torch.equal(world.stats.mean, ordinary.stats.mean)
    data, plain = (truth.prepare(as_held_out(each)) for each in (world, ordinary))
    assert isinstance(plain.active, torch.Tensor) and not isinstance(data.active, torch.Tensor)
    assert torch.equal(data.active_rows(5, 50), plain.active_rows(5, 50))
    assert torch.equal(data.frequency, plain.frequency)


class Dense:
    """The same process for those who do not know of lists."""

    def __init__(self, process: FeatureProcess):
        self.features, self.groups, self.draw = process.features, process.groups, process.draw


def test_probabilities_in_closed_form():
    p = zipf(4, exponent=0.5, p_max=0.4, p_min=0.1)
    assert p.tolist() == pytest.approx(
        [0.4, 0.1 + 0.3 * (0.5**0.5 - 0.5) / 0.5, 0.1 + 0.3 * (3**-0.5 - 0.5) / 0.5, 0.1]
    )
    # one root with two children, and a feature outside: (.2 / .5) (1 + .1 / .5), (.1 / .5) (1 + .2
    # / .5)
    raised = compensated(torch.tensor([0.5, 0.2, 0.1, 0.05]), Forest(1, 2, 1))
    assert raised.tolist() == pytest.approx([0.5, 0.48, 0.28, 0.05])
    # at most 1
    assert compensated(torch.tensor([0.1, 0.1, 0.1]), Forest(1, 2, 1)).tolist() == pytest.approx(
        [0.1, 1, 1]
    )


def test_the_copula_has_unit_variance():
    shared, own = copula(500, 25, 0.1, generator())
    torch.testing.assert_close(shared.square().sum(1) + own.square(), torch.ones(500))
    assert float(shared.std()) == pytest.approx(0.1, rel=0.05)
    shared, own = copula(50, 25, 1.0, generator())  # more than there is room for
    torch.testing.assert_close(own, torch.full((50,), 0.1))


def test_orthogonalisation_is_adam_on_all_pairs():
    rows = torch.nn.functional.normalize(torch.randn(40, 16, generator=generator()), dim=1)
    slow = rows.clone().requires_grad_()
    optimizer = torch.optim.Adam([slow], lr=3e-3)
    for _ in range(20):
        optimizer.zero_grad()
        gram = slow @ slow.T
        (
            (gram - gram.diag().diag()).square().sum() + 40 * (gram.diag() - 1).square().sum()
        ).backward()
        optimizer.step()
    fast = orthogonalised(rows, steps=20, rate=3e-3)
    torch.testing.assert_close(
        fast, torch.nn.functional.normalize(slow.detach(), dim=1), atol=1e-4, rtol=0
    )
    largest = [float((e @ e.T).fill_diagonal_(0).abs().amax(1).mean()) for e in (rows, fast)]
    assert largest[1] < 0.95 * largest[0]


def test_a_large_one_is_kept_on_disk(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # small ones are not
    assert not any(tmp_path.iterdir()) and synthsaebench(1, **SMALL) and not any(tmp_path.iterdir())
    monkeypatch.setattr(features_build, "CACHED_FROM", 1)
    first = synthsaebench(1, **SMALL)
    (file,) = tmp_path.rglob("*.safetensors")
    monkeypatch.setattr(features_build, "orthogonalised", None)  # not called again
    again = synthsaebench(1, **SMALL)
    assert torch.equal(first.features, again.features) and torch.equal(first.bias, again.bias)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CorruptFile, match="delete it and run again"):
        synthsaebench(1, **SMALL)


def test_a_model_is_the_same_for_every_seed():
    one, two, own = (
        synthsaebench(seed, **SMALL, model=model) for seed, model in ((1, 42), (2, 42), (1, 0))
    )
    for name in ("features", "bias", "slope", "offset", "sd"):
        assert torch.equal(getattr(one, name), getattr(two, name)) and not torch.equal(
            getattr(one, name), getattr(own, name)
        )
    # as the reference implementation draws them
    drawn = torch.randn(60, 24, generator=generator(42))
    assert (
        float(
            torch.cosine_similarity(
                drawn, synthsaebench(1, **SMALL, model=42, apart_steps=0).features
            ).min()
        )
        > 0.9999
    )


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"features": 38}, "features is 38; a forest of 3 roots to depth 2 has 39 already"),
        (
            {"p_min": 0.5},
            "p_max is 0.4; probabilities are above 0, at most 1, and p_min (0.5) at most p_max",
        ),
        (
            {"scaled": 2},
            "scaled is 2; it must be 1 (on) or 0 (off): children are scaled by their parent",
        ),
        (
            {"model": 7},
            "model is 7, as the seed: the SAE would start at its features; take another seed",
        ),
        ({"rank": 0}, "rank is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_built(numbers, words):
    with pytest.raises(ValueError) as refused:
        synthsaebench(7, **{**SMALL, **numbers})
    assert words in str(refused.value)
