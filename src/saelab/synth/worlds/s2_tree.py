"""World S2: a two-level tree of features beside frequent features that belong to no tree.

Hypothesis it tests: an SAE short of latents per token does not pay for a parent where a child
fires, and folds the parent's direction into the child's latent instead: absorption (Chanin et al.
2024, 2409.14507; a tree of features as in Bussmann et al. 2025, 2503.17547). The distractors fire
more often than the parents, so a first level that is picked by frequency is wrong.

x = sum_f code_f feature_f + noise; per activation each parent is on with chance p, then with chance
p_child exactly one of its children; each distractor is on with chance p_distractor; amplitudes are
|N(mean, amp_sd)|.

Features: parents 0 ... P-1, then the children of parent 0, of parent 1, ..., then the distractors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saelab.numbers import Kind
from saelab.synth.directions import feature_generator, spread
from saelab.synth.entry import Entry, Setup, check_kind
from saelab.synth.world import Sample


@dataclass(frozen=True)
class TreeProcess:
    """Parents, their children and distractors; satisfies `synth.world.Process`."""

    features: Tensor  # [F, D]
    amplitude: Tensor  # [F] mean amplitude where active
    n_parents: int
    n_children: int  # of each parent
    p: float  # chance of a parent
    p_child: float  # chance that a parent has a child
    p_distractor: float  # chance of a distractor
    amp_sd: float  # spread of the amplitudes
    noise: float  # standard deviation of x per dimension
    independent: bool  # children fire whatever their parents do, as often as they would in the tree

    @property
    def groups(self) -> Mapping[str, range]:
        """Parents, children, distractors."""
        first = self.n_parents * (1 + self.n_children)
        return {
            "parents": range(self.n_parents),
            "children": range(self.n_parents, first),
            "distractors": range(first, len(self.features)),
        }

    def children(self, parent: int) -> range:
        """The features that are children of a parent."""
        first = self.n_parents + parent * self.n_children
        return range(first, first + self.n_children)

    def draw(self, n: int, generator: torch.Generator) -> Sample:
        """n activations: `x [n, D]`, `codes [n, F]`."""
        groups = self.groups
        rows, parent = bernoulli(n, self.n_parents, self.p, generator)
        if self.independent:
            child_rows, child = bernoulli(
                n, len(groups["children"]), self.p * self.p_child / self.n_children, generator
            )
        else:
            which = (
                torch.rand(len(rows), generator=generator) * (self.n_children / self.p_child)
            ).long()
            one = which < self.n_children  # the others have no child
            child_rows, child = rows[one], (parent * self.n_children + which)[one]
        other_rows, other = bernoulli(n, len(groups["distractors"]), self.p_distractor, generator)
        rows = torch.cat([rows, child_rows, other_rows])
        active = torch.cat(
            [parent, groups["children"].start + child, groups["distractors"].start + other]
        )
        codes = torch.zeros(n, len(self.features))
        codes[rows, active] = (
            self.amplitude[active] + self.amp_sd * torch.randn(len(rows), generator=generator)
        ).abs()
        x = self.noise * torch.randn(n, self.features.shape[1], generator=generator)
        return Sample(torch.addmm(x, codes, self.features), codes)


def bernoulli(n: int, width: int, p: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows and columns of the ones in an `[n, width]` table of independent draws that are 1 with
    chance p.
    """
    rows, columns = (torch.rand(n, width, generator=generator) < p).nonzero(as_tuple=True)
    return rows, columns


def tree(
    seed: int,
    *,
    parents: float = 16,
    children: float = 4,
    distractors: float = 16,
    d: float = 48,
    p: float = 0.06,
    p_child: float = 0.8,
    p_distractor: float = 0.15,
    amp_parent: float = 1.5,
    amp_sd: float = 0.3,
    noise: float = 0.05,
    max_cos: float = 0.2,
    independent: float = 0,
) -> TreeProcess:
    """The tree's process. `max_cos`: largest |cosine| of a feature with another, in the mean;
    `independent` 1: the null.

    Raises `ValueError` for numbers that make no such tree.
    """
    check_kind(Kind(1), parents=parents, children=children, d=d)
    check_kind(Kind(0), distractors=distractors, amp_parent=amp_parent, amp_sd=amp_sd, noise=noise)
    chance = Kind(0, 1, above=True)
    check_kind(chance, p=p, p_child=p_child, p_distractor=p_distractor, max_cos=max_cos)
    Kind(0, 1, whole=True).check("independent", independent, "the null, without parents")
    n_parents, n_children = round(parents), round(children)
    n_features = n_parents * (1 + n_children) + round(distractors)
    amplitude = torch.ones(n_features)
    amplitude[:n_parents] = amp_parent
    features = spread(n_features, round(d), feature_generator("s2", seed), target=max_cos)
    return TreeProcess(
        features=features,
        amplitude=amplitude,
        n_parents=n_parents,
        n_children=n_children,
        p=p,
        p_child=p_child,
        p_distractor=p_distractor,
        amp_sd=amp_sd,
        noise=noise,
        independent=bool(independent),
    )


S2 = Entry(
    tests=(
        "Are parents found, kept active where a child fires, and linked to their children, "
        "though distractors are more frequent?"
    ),
    build=tree,
    # k is .72 of the features active per activation: with a latent for each of them there is
    # nothing to gain by absorption
    setup=Setup(n_latents=96, k=3, steps=5_000, batch=512, lr=2e-3, inner=16),
    headline=("parent_fn", "coverage_f1", "placement", "explained_variance"),
    head="s2",
)
ENTRIES = {
    "s2": S2,
    "s2_amp1": replace(
        S2,
        tests=(
            "As s2, with parents no louder than other features: does the tree alone, not "
            "amplitude, put them first?"
        ),
        settings={"amp_parent": 1.0},
    ),
    "s2_freq": replace(
        S2,
        tests=(
            "As s2, with parents more frequent than distractors: frequency alone finds the tree, "
            "so no lead is expected."
        ),
        setup=replace(S2.setup, k=3.8),
        settings={"p": 0.15, "p_distractor": 0.06},
    ),
    "s2_null": replace(
        S2,
        tests=(
            "The null of s2: children fire whatever their parents do, so every edge and every "
            "promotion is an error."
        ),
        settings={"independent": 1},
    ),
    "s2_full": replace(
        S2,
        tests="s2 at full size: 32 parents, 128 children and 32 distractors in 96 dimensions.",
        setup=replace(S2.setup, n_latents=192, k=6, inner=32),
        settings={"parents": 32, "distractors": 32, "d": 96},
    ),
}
