"""Parents, children and the edges between them: is a parent still found where its child fires, and
is the tree?

Absorption (Chanin et al. 2024, 2409.14507) is a parent's latent going silent where a child's fires,
because the child's latent has taken over the parent's direction. On a world with a true tree it is
counted directly.

Scores: `parent_fn`, `absorption_excess`, `parent_precision` (absorption); `coverage_f1`, `edge_f1`,
`edge_f1_lasso` (edges); `placement`, `promotions` (which features the first block holds);
`removal`, `collateral`, also with `_64` (ablation of a tree).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saelab.evals.common.matching import Matched, cosines, match
from saelab.evals.common.world import process_of, undefined, world_of, world_score
from saelab.evals.composition.edges import Coverage, best_coverage, f1, lasso_edges, tree_edges
from saelab.evals.composition.removal import Target, removal
from saelab.evals.result import Result
from saelab.figures import Node, Tree
from saelab.ground.held_out import HeldOut
from saelab.synth.worlds.s2_tree import TreeProcess
from saelab.types import Dictionary, Score, structure_of

ACTIVATIONS = 24_000
FEW, MANY = 8, 64  # labelled activations that an ablation is chosen by
ALIKE = 0.7  # |cosine| from which a first-block latent stands for its feature
FLAT = "the dictionary has fewer than two blocks"


@dataclass(frozen=True)
class CompositionData:
    """Held-out activations of a world with a tree, and what is true of them."""

    x: Tensor  # [N, D]
    active: Tensor  # [N, F] bool
    process: TreeProcess
    targets: tuple[Target, ...]  # one a parent that is there often enough to be removed


def prepare(held: HeldOut) -> CompositionData:
    """Draw held-out and labelled activations. Raises `TypeError` for a world without a tree."""
    world = world_of(held)
    lack = f"is a {type(world.process).__name__} and has no tree; composition reads the s2 worlds"
    process = process_of(held, TreeProcess, f"{lack} (TreeProcess)")
    sample = world.sample(ACTIVATIONS, "composition")
    generator = world.generator("composition labels")
    targets = [
        tree_target(sample.codes, process, parent, generator) for parent in range(process.n_parents)
    ]
    usable = tuple(target for target in targets if len(target.labelled) and len(target.codes))
    return CompositionData(sample.x, sample.codes > 0, process, usable)


def tree_target(
    codes: Tensor, process: TreeProcess, parent: int, generator: torch.Generator
) -> Target:
    """A parent's tree, with up to 64 labelled activations of the first half of `codes [N, F]`."""
    half = len(codes) // 2
    members = [parent, *process.children(parent)]
    there = (codes[:half, parent] > 0).nonzero().flatten()
    labelled = there[torch.randperm(len(there), generator=generator)[:MANY]]
    present = codes[half:, parent] > 0
    return Target(labelled, present, process.features[members], codes[half:][present][:, members])


@torch.no_grad()
def measure(dictionary: Dictionary, data: CompositionData) -> Result:
    """Score any SAE; what needs blocks, a tree or promotions is undefined where it has none."""
    z = dictionary.encode(data.x)  # [N, L]
    firing, process = z > 0, data.process
    matched = match(dictionary.directions, process.features)
    truth = true_graph(matched, process, z.shape[1])
    n_true = process.n_parents * process.n_children
    tree = structure_of(dictionary).tree
    own_edges = None if tree is None else tree_edges(tree.detach(), z.shape[1])
    coverage = best_coverage(firing, truth, n_true)
    scores = absorption(firing, matched, data) | {"coverage_f1": world_score(coverage.f1, len(z))}
    if own_edges is None:
        scores["edge_f1"] = undefined("the dictionary has no tree of its own")
    else:
        scores["edge_f1"] = world_score(f1(own_edges, truth, n_true), n_true)
    scores |= first_block(dictionary, z, truth, data) | removals(z, dictionary, data)
    details = recovered_tree(matched, process, coverage, own_edges)
    return Result(scores, figures=(tree_figure(details),), details=details)


def true_graph(matched: Matched, process: TreeProcess, n_latents: int) -> Tensor:
    """The true edges `[L, L]` between matched latents, without those that lack one at an end."""
    graph = torch.zeros(n_latents, n_latents, dtype=torch.bool)
    for parent in range(process.n_parents):
        family = matched.latent[list(process.children(parent))]
        if matched.latent[parent] >= 0:
            graph[matched.latent[parent], family[family >= 0]] = True
    return graph


def absorption(firing: Tensor, matched: Matched, data: CompositionData) -> dict[str, Score]:
    """How often parents' latents are silent where their parent is on, and how often they are right
    where they fire.

    `parent_fn`: share of (activation, parent) with the parent and a child of it on where the
    parent's latent is silent. `absorption_excess`: that minus the same share where the parent is on
    without a child, in [-1, 1]: what shrinkage and a tight budget cost is in both.
    `parent_precision`: P(parent on | its latent fires), mean over parents, 0 for a latent that
    never fires. A parent without a latent is always silent.
    """
    latents = matched.latent[: data.process.n_parents]
    fires = firing[:, latents] & (latents >= 0)  # [N, P]
    on = data.active[:, : data.process.n_parents]
    children = data.active[:, list(data.process.groups["children"])]
    with_child = on & children.unflatten(1, (-1, data.process.n_children)).any(2)
    without = on & ~with_child
    # shares of these places at which the latent is silent, NaN where there is no such place
    missed, missed_alone = (
        float((~fires & where).sum() / where.sum()) for where in (with_child, without)
    )
    n, nowhere = int(with_child.sum()), "no held-out activation has a parent"
    n_both = min(n, int(without.sum()))
    precision = ((fires & on).sum(0) / fires.sum(0).clamp_min(1)).mean()
    return {
        "parent_fn": world_score(missed, n, f"{nowhere} with a child"),
        "absorption_excess": world_score(
            missed - missed_alone, n_both, f"{nowhere} with and one without a child"
        ),
        "parent_precision": world_score(float(precision), int(fires.sum())),
    }


def first_block(
    dictionary: Dictionary, z: Tensor, truth: Tensor, data: CompositionData
) -> dict[str, Score]:
    """What the first block holds, and the edges from it to the rest that are read from the codes
    without labels.

    `placement`: share of its latents that point along a parent (|cosine| above .7, and no other
    feature is closer). `edge_f1_lasso`: see `composition_edges.lasso_edges`. `promotions`: how many
    latents training moved into the block.
    """
    structure = structure_of(dictionary)
    count = math.nan if structure.promotions is None else structure.promotions
    scores = {"promotions": world_score(count, 1, "the dictionary keeps no count of promotions")}
    if len(structure.blocks) < 2:
        return scores | dict.fromkeys(("placement", "edge_f1_lasso"), undefined(FLAT))
    first, process = next(iter(structure.blocks.values())), data.process
    closest = (
        cosines(dictionary.directions[first.start : first.stop], process.features).abs().max(1)
    )
    parents = (closest.indices < process.n_parents) & (closest.values > ALIKE)
    edges = f1(lasso_edges(z, first), truth, process.n_parents * process.n_children)
    return scores | {
        "placement": world_score(float(parents.float().mean()), len(first)),
        "edge_f1_lasso": world_score(edges, len(z)),
    }


def removals(z: Tensor, dictionary: Dictionary, data: CompositionData) -> dict[str, Score]:
    """`removal` and `collateral` (see `composition_removal.removal`) with 8 labelled activations,
    and with 64 (`_64`).
    """
    scores: dict[str, Score] = {}
    n, reason = len(data.targets), "no parent is in both halves of the held-out activations"
    for suffix, labels in (("", FEW), (f"_{MANY}", MANY)):
        tree = structure_of(dictionary).tree
        share = removal(z, dictionary.directions, data.targets, labels=labels, tree=tree)
        scores[f"removal{suffix}"] = world_score(share.removed, n, reason)
        scores[f"collateral{suffix}"] = world_score(share.collateral, n, reason)
    return scores


def recovered_tree(
    matched: Matched, process: TreeProcess, coverage: Coverage, own_edges: Tensor | None
) -> dict[str, Any]:
    """The true tree with what was found of it, for the picture.

    Per parent and child the |cosine| of its latent; per child whether its edge is in the best
    coverage graph (`found`) and in the dictionary's own tree (`found_in_tree`, where it has one).
    `threshold`: the best coverage graph's.
    """

    def has(graph: Tensor, parent: int, child: int) -> bool:
        ends = matched.latent[[parent, child]]
        return bool((ends >= 0).all() and graph[ends[0], ends[1]])

    def describe(parent: int, child: int) -> dict[str, Any]:
        node = {
            "child": child,
            "cosine": float(matched.cosine[child]),
            "found": has(coverage.graph, parent, child),
        }
        if own_edges is None:
            return node
        return node | {"found_in_tree": has(own_edges, parent, child)}

    parents = [
        {
            "parent": parent,
            "cosine": float(matched.cosine[parent]),
            "children": [describe(parent, child) for child in process.children(parent)],
        }
        for parent in range(process.n_parents)
    ]
    return {"parents": parents, "threshold": coverage.threshold}


def tree_figure(details: Mapping[str, Any]) -> Tree:
    """The picture of `recovered_tree`: an edge is drawn where the best coverage graph has it."""

    def leaf(child: Mapping[str, Any]) -> Node:
        link = 1.0 if child["found"] else None
        return Node(f"child {child['child']}", child["cosine"], link=link)

    roots = tuple(
        Node(f"parent {root['parent']}", root["cosine"], tuple(map(leaf, root["children"])))
        for root in details["parents"]
    )
    children = [child for parent in details["parents"] for child in parent["children"]]
    counts = f"{sum(child['found'] for child in children)} of {len(children)} edges found"
    if any("found_in_tree" in child for child in children):
        counts += f", {sum(child['found_in_tree'] for child in children)} in its own tree"
    return Tree(
        "recovered_tree",
        "Recovered tree",
        "A node's shade is the |cosine| of a true feature with its latent, parents above their "
        "children. A line is an edge found by the SAE's best coverage graph (where one latent's "
        "firings cover another's, at the threshold that fits the truth best), a faint one an edge "
        "that it missed.",
        roots,
        counts,
    )
