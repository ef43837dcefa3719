"""Composition: oracles, chance, and the closed forms of its parts."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from in_world import as_held_out
from saelab.evals.composition.edges import best_coverage, f1, lifts, nonnegative_lasso, tree_edges
from saelab.evals.composition.measure import measure, prepare
from saelab.evals.composition.removal import enriched
from saelab.synth.world import World
from saelab.synth.worlds.s2_tree import tree
from saelab.types import Hook, Structure

P, C, F, D = 4, 2, 16, 32  # features: parents 0-3, children 4-11, distractors 12-15


@dataclass
class Table:
    """A dictionary whose codes of the held-out activations are given."""

    codes: Tensor  # [N, L]
    directions: Tensor  # [L, D]
    blocks: dict[str, range] = field(default_factory=dict)
    tree: Tensor | None = None
    promotions: int | None = None
    hook: Hook | None = None

    @property
    def structure(self) -> Structure:
        return Structure(self.blocks, self.tree, self.promotions)

    def encode(self, x: Tensor) -> Tensor:
        assert len(x) == len(self.codes)
        return self.codes.clone()

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.directions


def world_of(**settings) -> World:
    process = tree(
        0, parents=P, children=C, distractors=4, d=D, p=0.15, p_distractor=0.25, **settings
    )
    return World("toy", process, seed=0, batch=64)


@pytest.fixture(scope="module")
def data():
    return prepare(as_held_out(world_of()))


@pytest.fixture(scope="module")
def codes(data):
    """True codes, the features' amplitudes left out of `active`: all that measuring an oracle
    needs.
    """
    return world_of().sample(len(data.x), "composition").codes


@pytest.fixture(scope="module")
def oracle(data, codes):
    return Table(
        codes, data.process.features, {"first": range(P), "rest": range(P, F)}, true_tree()
    )


def true_tree() -> Tensor:
    weights = torch.zeros(P, F - P)
    for parent in range(P):
        weights[parent, parent * C : parent * C + C] = 1
    return weights


def values(dictionary: Any, data) -> dict[str, float | None]:
    return {name: score.value for name, score in measure(dictionary, data).scores.items()}


def changed(oracle: Table, **fields) -> Table:
    return Table(**{**vars(oracle), **fields})


PERFECT = {
    "parent_fn": 0,
    "absorption_excess": 0,
    "parent_precision": 1,
    "coverage_f1": 1,
    "edge_f1": 1,
    "edge_f1_lasso": 1,
    "placement": 1,
    "removal": 1,
    "collateral": 0,
    "removal_64": 1,
    "collateral_64": 0,
}


def test_the_oracle_is_perfect(oracle, data):
    scores = values(oracle, data)
    assert {name: scores[name] for name in PERFECT} == pytest.approx(PERFECT, abs=1e-5)
    # latents are then chosen by enrichment: with 64 labels the right ones
    scores = values(changed(oracle, tree=None), data)
    assert (scores["removal_64"], scores["collateral_64"]) == pytest.approx((1, 0), abs=1e-5)


def test_the_order_of_latents_is_nothing(oracle, data):
    order = torch.randperm(F, generator=torch.Generator().manual_seed(0))
    plain = changed(oracle, blocks={}, tree=None)
    shuffled = changed(plain, codes=oracle.codes[:, order], directions=oracle.directions[order])
    assert values(shuffled, data) == pytest.approx(values(plain, data), abs=1e-6)


def test_codes_without_relation_to_the_truth_are_chance(oracle, data):
    generator = torch.Generator().manual_seed(0)
    columns = [
        column[torch.randperm(len(column), generator=generator)] for column in oracle.codes.T
    ]
    scores = values(changed(oracle, codes=torch.stack(columns, 1), tree=None), data)
    assert scores["parent_fn"] == pytest.approx(1 - 0.15, abs=0.01)
    assert scores["absorption_excess"] == pytest.approx(0, abs=0.015)
    assert scores["parent_precision"] == pytest.approx(0.15, abs=0.01)
    assert scores["coverage_f1"] == 0
    # some of the target's energy is always in what fires at random
    assert scores["removal_64"] < 0.3


def test_edges_of_the_null_are_not_found():
    world = world_of(independent=1)
    data = prepare(as_held_out(world))
    codes = world.sample(len(data.x), "composition").codes
    scores = values(
        Table(codes, data.process.features, {"first": range(P), "rest": range(P, F)}), data
    )
    assert scores["parent_fn"] == 0
    assert scores["coverage_f1"] <= 0.15
    # that all fire at times together is all that a read-out of the mean can see
    assert scores["edge_f1_lasso"] <= 0.5


def test_dead_latents_change_nothing(oracle, data):
    dead = torch.randn(5, D, generator=torch.Generator().manual_seed(1))
    wider = changed(
        oracle,
        codes=torch.cat([oracle.codes, torch.zeros(len(oracle.codes), 5)], 1),
        directions=torch.cat([oracle.directions, dead]),
        blocks={"first": range(P), "rest": range(P, F + 5)},
        tree=torch.cat([oracle.tree, torch.zeros(P, 5)], 1),
    )
    assert values(wider, data) == pytest.approx(values(oracle, data), abs=1e-6)
    in_block = changed(wider, blocks={"first": range(F, F + 5), "rest": range(F)}, tree=None)
    assert values(in_block, data)["placement"] == 0


@pytest.mark.parametrize("with_tree", [True, False])
def test_halved_codes_halve_only_what_is_removed(oracle, data, with_tree):
    whole = oracle if with_tree else changed(oracle, tree=None)
    half = values(changed(whole, codes=oracle.codes / 2), data)
    assert half.pop("removal_64") == pytest.approx(0.75, abs=1e-5)  # 1 - |t/2 - t|^2 / |t|^2
    full = values(whole, data)
    for name in half:
        if not name.startswith(("removal", "collateral")):
            assert half[name] == pytest.approx(full[name], abs=1e-6), name
    same = changed(whole, codes=oracle.codes / 2, directions=2 * oracle.directions)
    assert values(same, data) == pytest.approx(full, abs=1e-5)


def test_absorption_is_silence_where_a_child_fires(oracle, data, codes):
    absorbed = codes.clone()
    for parent in range(P):
        # the first child takes the parent over
        absorbed[:, parent] *= codes[:, data.process.children(parent)[0]] == 0
    scores = values(changed(oracle, codes=absorbed), data)
    by_first = sum(
        (codes[:, data.process.children(parent)[0]] > 0).sum().item() for parent in range(P)
    )
    expected = by_first / (codes[:, P : P + P * C] > 0).sum().item()
    assert 0.45 < expected < 0.55
    assert scores["parent_fn"] == pytest.approx(expected)
    assert scores["absorption_excess"] == pytest.approx(expected)
    assert scores["parent_precision"] == 1


def test_silence_everywhere_is_no_excess(oracle, data, codes):
    silent = codes.clone()
    silent[:, :P] *= torch.rand(len(codes), P, generator=torch.Generator().manual_seed(0)) > 0.3
    scores = values(changed(oracle, codes=silent), data)
    assert scores["parent_fn"] == pytest.approx(0.3, abs=0.01)
    assert scores["absorption_excess"] == pytest.approx(0, abs=0.02)


def test_a_parent_without_a_latent_is_silent(oracle, data):
    few = list(range(1, F))  # parent 0 has no latent of its own
    scores = values(Table(oracle.codes[:, few], oracle.directions[few]), data)
    with_child = [
        (data.active[:, list(data.process.children(parent))].any(1)).sum().item()
        for parent in range(P)
    ]
    assert scores["parent_fn"] == pytest.approx(with_child[0] / sum(with_child))
    assert scores["parent_precision"] == pytest.approx(3 / 4)
    # two of eight edges cannot be found
    assert scores["coverage_f1"] == pytest.approx(2 * 6 / (6 + 8))


def test_collateral_is_what_goes_elsewhere(oracle, data, codes):
    leaky = codes.clone()
    # each parent's latent fires everywhere else too
    leaky[:, :P] = torch.where(codes[:, :P] > 0, codes[:, :P], 0.5)
    scores = values(changed(oracle, codes=leaky), data)
    half = len(codes) // 2
    expected = []
    for parent in range(P):
        members = [parent, *data.process.children(parent)]
        present = codes[half:, parent] > 0
        energy = (codes[half:][present][:, members] @ data.process.features[members]).square().sum()
        expected.append((0.25 * (~present).sum() / energy).item())
    assert scores["removal"] == pytest.approx(1, abs=1e-5)
    assert scores["collateral"] == pytest.approx(sum(expected) / P, rel=1e-4)


def test_a_wrong_tree_removes_less(oracle, data):
    wrong = values(changed(oracle, tree=oracle.tree.roll(C, dims=1)), data)
    assert wrong["edge_f1"] == 0
    assert wrong["removal"] < 0.8
    assert wrong["collateral"] > 0.1


def test_placement_counts_parents_in_the_first_block(oracle, data):
    order = [0, 1, 12, 13, *range(2, 12), 14, 15]  # two parents and two distractors first
    mixed = changed(
        oracle, codes=oracle.codes[:, order], directions=-oracle.directions[order], tree=None
    )
    assert values(mixed, data)["placement"] == 0.5


def test_what_a_dictionary_lacks_is_undefined(oracle, data):
    scores = measure(Table(oracle.codes, oracle.directions), data).scores
    missing = {name: score.reason for name, score in scores.items() if score.value is None}
    assert missing == {
        "edge_f1": "the dictionary has no tree of its own",
        "promotions": "the dictionary keeps no count of promotions",
        "placement": "the dictionary has fewer than two blocks",
        "edge_f1_lasso": "the dictionary has fewer than two blocks",
    }
    counted = Table(oracle.codes, oracle.directions, promotions=3)
    assert values(counted, data)["promotions"] == 3


def test_a_dictionary_that_never_fires(oracle, data):
    scores = values(changed(oracle, codes=torch.zeros_like(oracle.codes), tree=None), data)
    assert (
        scores["parent_fn"],
        scores["parent_precision"],
        scores["coverage_f1"],
        scores["edge_f1_lasso"],
    ) == (1, 0, 0, 0)
    assert (scores["removal"], scores["collateral"]) == pytest.approx((0, 0))


def test_a_world_where_nothing_is_active_leaves_scores_undefined():
    world = World(
        "toy", tree(0, parents=P, children=C, distractors=4, d=D, p=1e-9), seed=0, batch=64
    )
    data = prepare(as_held_out(world))
    scores = measure(Table(torch.zeros(len(data.x), F), data.process.features), data).scores
    for name in ("parent_fn", "absorption_excess", "removal", "collateral_64"):
        assert scores[name].value is None
        assert scores[name].reason.startswith("no ")


def test_details_are_the_recovered_tree(oracle, data):
    details = measure(oracle, data).to_json()
    assert json.loads(json.dumps(details)) == details
    assert [entry["parent"] for entry in details["parents"]] == list(range(P))
    assert [child["child"] for child in details["parents"][1]["children"]] == [6, 7]
    children = [child for entry in details["parents"] for child in entry["children"]]
    assert all(child["found"] and child["found_in_tree"] for child in children)
    assert all(child["cosine"] == pytest.approx(1) for child in children)
    assert 0.1 <= details["threshold"] <= 0.95
    without = measure(changed(oracle, tree=None), data).details["parents"][0]["children"][0]
    assert "found_in_tree" not in without


def test_only_a_tree_can_be_read():
    class Other:
        features = torch.eye(3)

    with pytest.raises(
        TypeError,
        match=r"world 'other' is a Other and has no tree; composition reads the s2 worlds",
    ):
        prepare(as_held_out(World("other", Other(), seed=0, batch=1)))  # type: ignore[arg-type]


def test_held_out_activations_are_the_seeds(data):
    again = prepare(as_held_out(world_of()))
    assert torch.equal(again.x, data.x)
    assert all(
        torch.equal(a.labelled, b.labelled)
        for a, b in zip(again.targets, data.targets, strict=True)
    )
    assert {len(target.labelled) for target in data.targets} == {64}


# The parts ----------------------------------------------------------------------------------------


def graph_of(n, *edges):
    graph = torch.zeros(n, n, dtype=torch.bool)
    for i, j in edges:
        graph[i, j] = True
    return graph


def test_f1_counts_every_edge():
    truth = graph_of(4, (0, 1), (0, 2))
    assert f1(graph_of(4, (0, 1), (1, 2), (3, 2)), truth, 2) == pytest.approx(2 * 1 / (3 + 2))
    assert f1(truth, truth, 4) == pytest.approx(2 * 2 / (2 + 4))  # two more edges have no latents
    assert f1(graph_of(4), truth, 2) == 0


def test_lift_by_hand():
    firing = torch.tensor(
        [[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]],
        dtype=torch.bool,
    )
    lift = lifts(firing)  # rates 4/8, 2/8, 3/8
    assert lift[0, 1].item() == pytest.approx((1 - 1 / 2) / (1 / 2))
    assert lift[0, 2].item() == pytest.approx((1 / 3 - 1 / 2) / (1 / 2))
    # the rarer one is no parent
    assert lift[1, 0].item() == lift[2, 0].item() == lift[0, 0].item() == -1


def test_the_best_graph_is_chosen_on_the_truth():
    child = torch.arange(100) < 10
    parent, near = torch.arange(100) < 20, torch.arange(100) < 40  # both hold where the child fires
    firing = torch.stack([child, parent, near], 1)
    ancestors, nearest = graph_of(3, (1, 0), (2, 1), (2, 0)), graph_of(3, (1, 0))
    assert best_coverage(firing, ancestors, 3).f1 == 1
    best = best_coverage(firing, nearest, 1)
    # no threshold leaves out the others: they hold as surely
    assert best.f1 == pytest.approx(2 * 1 / (3 + 1))
    wrong = best_coverage(firing, graph_of(3, (0, 1)), 1)
    assert (wrong.f1, wrong.threshold, int(wrong.graph.sum())) == (0, None, 0)


def test_lasso_of_orthogonal_inputs_is_a_soft_threshold():
    inputs = torch.eye(4).repeat(50, 1) * 2  # mean square 1 each, no overlap
    weights = torch.tensor([[0.5, 0.001, 0.0, 1.5], [0.0, -0.7, 0.3, 0.0]])
    found = nonnegative_lasso(inputs, inputs @ weights.T)
    torch.testing.assert_close(found, (weights - 2e-3).relu(), rtol=0, atol=1e-6)


def test_tree_edges_need_weight_and_share():
    weights = torch.tensor([[1.0, 0.04, 0.06], [30.0, 1.0, 0.0]])
    expected = graph_of(5, (0, 2), (0, 4), (1, 2))  # .04 is light; 1 of 31 is a small share
    assert torch.equal(tree_edges(weights, 5), expected)
    with pytest.raises(ValueError, match=r"the dictionary's tree is \[2, 3\] and it has 6 latents"):
        tree_edges(weights, 6)


def test_enrichment_prefers_what_fires_only_there():
    known = torch.zeros(100, 4)
    known[:, 0] = 1  # fires everywhere
    known[:10, 1] = 1
    known[90:, 2] = 1  # never on the labelled ones
    marked = known[:8]
    assert enriched(marked, known, 2).tolist() == [1, 0]
    assert enriched(marked, known, 4).tolist() == [1, 0]  # what did not fire is not chosen
