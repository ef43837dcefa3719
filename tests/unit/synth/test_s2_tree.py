"""World S2: the tree's rules and rates, its twins and its null."""

import pytest
import torch

from saelab.synth.worlds.s2_tree import ENTRIES, tree

N = 40_000


def drawn(process, seed=0, n=N):
    sample = process.draw(n, torch.Generator().manual_seed(seed))
    on = sample.codes > 0
    return sample, {name: on[:, list(group)].float() for name, group in process.groups.items()}


def test_groups_are_all_features_in_order():
    process = tree(0, parents=3, children=2, distractors=4, d=12)
    assert [list(group) for group in process.groups.values()] == [
        [0, 1, 2],
        [3, 4, 5, 6, 7, 8],
        [9, 10, 11, 12],
    ]
    assert [list(process.children(parent)) for parent in range(3)] == [[3, 4], [5, 6], [7, 8]]
    assert process.features.shape == (13, 12)


@pytest.mark.parametrize("world", ENTRIES)
def test_rates_of_each_world(world):
    process = ENTRIES[world].build(1, **ENTRIES[world].settings)
    _, on = drawn(process, n=20_000)
    rates = {
        "parents": process.p,
        "children": process.p * 0.8 / 4,
        "distractors": process.p_distractor,
    }
    for group, rate in rates.items():
        assert on[group].mean().item() == pytest.approx(rate, rel=0.05)
    assert ENTRIES[world].setup.n_latents == len(process.features)
    assert ENTRIES[world].setup.inner == process.n_parents


def test_a_parent_has_at_most_one_child_and_a_child_its_parent():
    _, on = drawn(tree(1))
    per_parent = on["children"].unflatten(1, (16, 4)).sum(2)  # [N, P]
    assert per_parent.max() == 1
    assert not (per_parent > on["parents"]).any()
    assert (per_parent.sum() / on["parents"].sum()).item() == pytest.approx(0.8, abs=0.01)
    by_order = on["children"].unflatten(1, (16, 4)).mean((0, 1))
    torch.testing.assert_close(by_order, torch.full((4,), 0.012), rtol=0.06, atol=0)


def test_children_of_the_null_know_nothing_of_parents():
    _, null = drawn(tree(1, independent=1), n=100_000)
    _, real = drawn(tree(1), n=100_000)
    for on, expected in ((null, 0.06), (real, 1.0)):
        children = on["children"].unflatten(1, (16, 4)).sum(2)
        given = (on["parents"] * children).sum() / children.sum()  # P(parent | child)
        assert given.item() == pytest.approx(expected, abs=0.01)
    # siblings are independent of each other too
    pairs = null["children"][:, :4].T @ null["children"][:, :4] / 100_000
    assert (pairs - torch.diag(pairs.diag())).max() < 5 * 0.012**2


def test_x_is_its_features_and_noise():
    process = tree(2)
    sample, _ = drawn(process)
    rest = sample.x - sample.codes @ process.features
    assert rest.std().item() == pytest.approx(0.05, rel=0.02)
    assert rest.mean().item() == pytest.approx(0, abs=1e-3)
    exact, _ = drawn(tree(2, noise=0), n=100)
    torch.testing.assert_close(exact.x, exact.codes @ process.features)


@pytest.mark.parametrize(("settings", "loud"), [({}, 1.5), ({"amp_parent": 1.0}, 1.0)])
def test_amplitudes(settings, loud):
    sample, _ = drawn(tree(3, **settings))
    for features, mean in ((range(16), loud), (range(16, 96), 1.0)):
        codes = sample.codes[:, list(features)]
        active = codes[codes > 0]
        assert active.mean().item() == pytest.approx(mean, abs=0.01)
        assert active.std().item() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("settings", [{}, {"parents": 32, "distractors": 32, "d": 96}])
def test_features_are_unit_and_as_far_apart_as_asked(settings):
    features = tree(4, **settings).features
    torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)))
    nearest = (features @ features.T).fill_diagonal_(0).abs().amax(1).mean()
    assert 0.18 < nearest < 0.2


def test_equal_seeds_equal_worlds():
    torch.testing.assert_close(tree(5).features, tree(5, amp_parent=1.0).features, rtol=0, atol=0)
    assert not torch.equal(tree(5).features, tree(6).features)
    same, other = drawn(tree(5), 7, 100)[0], drawn(tree(5), 8, 100)[0]
    assert torch.equal(drawn(tree(5), 7, 100)[0].x, same.x)
    assert not torch.equal(same.x, other.x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"p": 0}, "p is 0; it must be above 0 and at most 1"),
        ({"p_child": 1.5}, "p_child is 1.5; it must be above 0 and at most 1"),
        ({"parents": 0}, "parents is 0; it must be at least 1"),
        ({"noise": -1}, "noise is -1; it must be at least 0"),
        ({"d": float("nan")}, "d is nan; it must be at least 1"),
        (
            {"independent": 0.5},
            r"independent is 0.5; it must be 1 \(on\) or 0 \(off\): the null, without parents",
        ),
        (
            {"d": 8},
            r"96 directions in 8 dimensions do not get their largest \|cosine\| down to 0.2",
        ),
    ],
)
def test_numbers_that_make_no_tree_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tree(0, **settings)
