import math
from typing import Any

import pytest
import torch
from torch import Tensor

from saelab.synth.world import World
from saelab.synth.worlds.s3_persistence import (
    ENTRIES,
    MAX_LAG,
    POSITIONS,
    Persistence,
    build,
    pair_positions,
)
from saelab.types import Tokens, Windows


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten().float(), b.flatten().float()]))[0, 1])


@pytest.fixture(scope="module")
def ordered() -> Persistence:
    return build(0)


@pytest.fixture(scope="module")
def null() -> Persistence:
    return build(0, permuted=1)


def test_equal_seeds_give_equal_worlds_and_draws_and_other_seeds_others(ordered: Persistence):
    assert torch.equal(build(0).features, ordered.features)
    assert not torch.allclose(build(1).features, ordered.features)
    for name in ("draw", "sequences"):
        draw = getattr(ordered, name)
        assert torch.equal(draw(64, generator(3)).x, draw(64, generator(3)).x)
        assert not torch.equal(draw(64, generator(3)).x, draw(64, generator(4)).x)


def test_directions_are_orthonormal_and_groups_are_all_features(ordered: Persistence):
    rows = torch.cat([ordered.features, ordered.planes])
    torch.testing.assert_close(rows @ rows.T, torch.eye(44), atol=1e-5, rtol=0)
    assert [f for group in ordered.groups.values() for f in group] == list(range(40))


def test_a_draw_is_pairs_of_positions_at_most_15_apart(ordered: Persistence):
    sample = ordered.draw(8000, generator())
    assert sample.x.shape == (4000, 2, 64) and sample.codes.shape == (4000, 2, 40)
    assert sample.pos is not None and sample.pos.min() == 0 and sample.pos.max() == POSITIONS - 1
    lag = sample.pos[:, 1] - sample.pos[:, 0]
    shares = torch.bincount(lag, minlength=MAX_LAG + 1) / 4000
    assert shares[0] == 0 and len(shares) == MAX_LAG + 1
    torch.testing.assert_close(shares[1:], torch.full((MAX_LAG,), 1 / MAX_LAG), atol=0.02, rtol=0)
    early = sample.pos[lag == MAX_LAG, 0].float()
    assert float(early.mean()) == pytest.approx((POSITIONS - 1 - MAX_LAG) / 2, abs=3)


@pytest.mark.parametrize(("name", "n"), [("draw", 4000), ("sequences", 64)])
def test_an_activation_is_its_codes_and_its_position_plus_noise(
    ordered: Persistence, name: str, n: int
):
    sample = getattr(ordered, name)(n, generator())
    assert sample.pos is not None
    rest = sample.x - sample.codes @ ordered.features - ordered.signals[sample.pos] @ ordered.planes
    assert float(rest.std()) == pytest.approx(0.05, rel=0.02)
    assert float(rest.mean()) == pytest.approx(0, abs=1e-3)
    shown = sample.codes[sample.codes > 0]
    assert float(shown.mean()) == pytest.approx(1, abs=0.01) and float(
        shown.std()
    ) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("name", ["draw", "sequences"])
@pytest.mark.parametrize("permuted", [0, 1])
def test_rates_are_the_asked_ones_in_every_draw(name: str, permuted: int):
    process = build(0, p_slow=0.05, permuted=permuted)
    sample = getattr(process, name)(20_000 if name == "draw" else 3000, generator())
    assert sample.labels is not None
    for group, rate in (("slow", 0.05), ("fast", 0.15)):
        members = list(process.groups[group])
        assert float(sample.labels[..., members].mean()) == pytest.approx(rate, rel=0.04)
        assert float((sample.codes[..., members] > 0).float().mean()) == pytest.approx(
            rate * 0.625, rel=0.04
        )
    assert not (sample.codes[sample.labels == 0] > 0).any()


def test_states_persist_by_the_chain_in_sequences_and_in_pairs_alike(ordered: Persistence):
    sequences = ordered.sequences(600, generator()).labels
    pairs = ordered.draw(60_000, generator(1))
    assert sequences is not None and pairs.labels is not None and pairs.pos is not None
    lag = pairs.pos[:, 1] - pairs.pos[:, 0]
    for d in (1, 5, 15):
        now, later = sequences[:, :-d], sequences[:, d:]
        assert correlation(now[..., :20], later[..., :20]) == pytest.approx(0.95**d, abs=0.03)
        assert correlation(now[..., 20:], later[..., 20:]) == pytest.approx(0, abs=0.01)
        paired = pairs.labels[lag == d]
        assert correlation(paired[:, 0, :20], paired[:, 1, :20]) == pytest.approx(0.95**d, abs=0.03)
        assert correlation(paired[:, 0, 20:], paired[:, 1, 20:]) == pytest.approx(0, abs=0.02)


def test_permuted_tokens_are_independent_in_content_and_position(null: Persistence):
    sample = null.draw(60_000, generator())
    assert sample.labels is not None and sample.pos is not None
    assert correlation(sample.labels[:, 0, :20], sample.labels[:, 1, :20]) == pytest.approx(
        0, abs=0.01
    )
    signals = sample.x @ null.planes.T  # [S, 2, P]
    members = torch.cat([signals[:, 0], signals[:, 1], null.signals[sample.pos[:, 0]]], 1).T
    between = torch.corrcoef(members)
    # one member, the other, and what the position in the pair would say
    for a, b in ((0, 4), (0, 8), (4, 8)):
        assert float(between[a : a + 4, b : b + 4].abs().max()) < 0.03
    sequences = null.sequences(600, generator())
    assert sequences.labels is not None
    assert correlation(
        sequences.labels[:, :-1, :20], sequences.labels[:, 1:, :20]
    ) == pytest.approx(0, abs=0.01)
    in_order = sequences.x @ null.planes.T
    assert correlation(in_order[:, :-1, 0], in_order[:, 1:, 0]) == pytest.approx(0, abs=0.02)


def test_permuted_tokens_have_the_same_marginal_distribution(
    ordered: Persistence, null: Persistence
):
    for name, n in (("draw", 60_000), ("sequences", 900)):
        a = getattr(ordered, name)(n, generator()).x.flatten(0, 1)
        b = getattr(null, name)(n, generator(1)).x.flatten(0, 1)
        torch.testing.assert_close(a.mean(0), b.mean(0), atol=0.02, rtol=0)
        torch.testing.assert_close(a.T.cov(), b.T.cov(), atol=0.015, rtol=0)


def test_the_law_of_positions_in_pairs_is_that_of_the_pairs(ordered: Persistence):
    pos = ordered.draw(100_000, generator()).pos
    assert pos is not None and float(pair_positions().sum()) == pytest.approx(1)
    torch.testing.assert_close(
        torch.bincount(pos.flatten()) / 100_000, pair_positions(), atol=2e-3, rtol=0
    )


def test_without_position_signals_every_position_looks_the_same():
    process = build(0, position=0)
    assert process.planes.shape == (0, 64) and process.signals.shape == (POSITIONS, 0)
    x = process.sequences(1000, generator()).x
    assert float(x.mean(0).std(0).max()) < 0.04


@pytest.mark.parametrize("n", [0, 1, 7, -2])
def test_half_a_pair_is_refused(ordered: Persistence, n: int):
    with pytest.raises(
        ValueError, match=f"n is {n}; this world gives pairs: n must be even and at least 2"
    ):
        ordered.draw(n, generator())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"p_slow": 0}, "p_slow is 0; it must be above 0 and below 1"),
        ({"p_fast": 1.5}, "p_fast is 1.5; it must be above 0 and below 1"),
        ({"stay": -0.1}, "stay is -0.1; it must be from 0 to 1"),
        ({"emission": 0}, "emission is 0; it must be above 0 and at most 1"),
        ({"noise": math.inf}, "noise is inf; it must be at least 0 and finite"),
        ({"position": math.nan}, "position is nan; it must be at least 0 and finite"),
        ({"permuted": 0.5}, "permuted is 0.5; it must be 0 or 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError) as error:
        build(0, **settings)
    assert str(error.value) == message


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_every_world_of_the_table_streams_tokens_and_windows(name: str):
    entry = ENTRIES[name]
    setup = entry.setup
    assert entry.head in ENTRIES and ENTRIES[entry.head].headline == entry.headline
    assert 0 < setup.inner < setup.n_latents and setup.k < setup.n_latents
    world = World(name, entry.build(20, **entry.settings), seed=20, batch=setup.batch)
    assert world.kinds == (Tokens, Windows)
    windows = world.windows(0)
    assert windows.x.shape == (256, 2, 64)
    assert ((windows.pos[:, 1] - windows.pos[:, 0]) >= 1).all()
    assert len(windows.doc[:, 0].unique()) == 256 and torch.equal(
        windows.doc[:, 0], windows.doc[:, 1]
    )


def test_the_twins_differ_from_their_world_only_where_they_say():
    assert {name: dict(entry.settings) for name, entry in ENTRIES.items()} == {
        "s3": {},
        "s3_hard": {"p_slow": 0.05},
        "s3_null": {"permuted": 1},
        "s3c": {"position": 0},
        "s3c_hard": {"position": 0, "p_slow": 0.05},
        "s3c_null": {"position": 0, "permuted": 1},
    }
    assert (
        ENTRIES["s3_null"].setup == ENTRIES["s3"].setup
        and ENTRIES["s3c_null"].setup == ENTRIES["s3c"].setup
    )
