"""Many sparse features in few dimensions, as SynthSAEBench draws them (arXiv 2602.14687): sampling
by what is active.

x = bias + sum_f code_f feature_f. Feature f fires where slope_f . z + own noise > offset_f, z and
own noise standard normal: a Gaussian copula of low rank R. A firing feature has the raw code max(0,
mean_f + sd_f normal). Then the forest, from the roots down: a child is silent where its parent is,
at most one child of a parent stays (a fair draw among those with a code above 0), and a child's
code is multiplied by its parent's over the parent's mean. Features outside the forest fire for
themselves.

What does not fire costs nothing: given z all own noises are independent, so a child is only drawn
where its parent is active, and features without a parent come from a Poisson process of proposals
that is thinned to the exact chances. No table of [N, features] is made, and x is a sum of the
active rows.

Legend: F features | N activations | D width | R rank of the copula | T features without a parent |
M active entries | P active parents | C children of a parent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag
from torch.special import ndtr

from saelab.synth.world import Sample, SparseSample

ROWS = 1_024  # activations drawn at a time, at most 2^15
BLOCK = 256  # of them whose shared parts fit in a cache
# standard deviations of the shared part that proposals are good for; the few cells beyond are drawn
# singly
TAIL = 2.5
LEVEL = 3.0  # nor are they good for chances beyond ndtr of this: their number grows without limit


@dataclass(frozen=True)
class Forest:
    """Roots 0, 1, ..., then the children of feature 0, of feature 1, ...: breadth first, every
    inner node with C children.
    """

    roots: int
    branching: int
    depth: int  # levels below the roots

    @property
    def levels(self) -> tuple[range, ...]:
        """The features of every level, roots first."""
        ranges, start, width = [], 0, self.roots
        for _ in range(self.depth + 1):
            ranges.append(range(start, start + width))
            start, width = start + width, width * self.branching
        return tuple(ranges)

    @property
    def size(self) -> int:
        """Features in the forest."""
        return self.levels[-1].stop

    @property
    def parents(self) -> int:
        """Features that have children, the first ones."""
        return self.levels[-1].start

    def children(self, values: Tensor) -> Tensor:
        """Values of features `[F, ...]` -> of the children of every parent `[parents, C, ...]`."""
        return values[self.roots : self.size].unflatten(0, (self.parents, self.branching))


@dataclass(frozen=True)
class FeatureProcess:
    """Features with a copula, magnitudes and a forest; satisfies `synth.world.SparseProcess`."""

    features: Tensor  # [F, D] unit rows
    bias: Tensor  # [D]
    slope: Tensor  # [F, R] shared part by standard deviation of the own noise
    offset: Tensor  # [F] threshold by standard deviation of the own noise
    mean: Tensor  # [F] of the raw code, before the cut at 0
    sd: Tensor  # [F] of the raw code
    forest: Forest
    scaled: bool  # children by their parent's code

    @property
    def groups(self) -> Mapping[str, range]:
        """Levels of the forest, and the features outside."""
        levels = {
            f"level {i}" if i else "roots": level for i, level in enumerate(self.forest.levels)
        }
        return {**levels, "free": range(self.forest.size, len(self.features))}

    def draw(self, n: int, generator: torch.Generator) -> Sample:
        """n activations: `x [n, D]` and dense `codes [n, F]`."""
        sample = self.draw_sparse(n, generator)
        return Sample(sample.x, sample.codes)

    def draw_sparse(self, n: int, generator: torch.Generator) -> SparseSample:
        """The same n activations with a list of what is active."""
        x = torch.empty(n, self.features.shape[1])
        entries, start = [], 0
        for z in torch.randn(n, self.slope.shape[1], generator=generator).split(ROWS):
            row, feature, code = self._active(z, generator)
            first = torch.searchsorted(row, torch.arange(len(z)))
            rows = embedding_bag(feature, self.features, first, mode="sum", per_sample_weights=code)
            torch.add(rows, self.bias, out=x[start : start + len(z)])
            entries.append((row + start, feature, code))
            start += len(z)
        row, feature, code = map(torch.cat, zip(*entries, strict=True))
        return SparseSample(x, row, feature, code, len(self.features))

    def _active(self, z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, features and codes `[M]` of what is active given z `[N, R]`, by rows."""
        row, feature = self._tops.draw(z, generator)
        code = torch.relu(
            self.mean[feature] + self.sd[feature] * torch.randn(len(row), generator=generator)
        )
        positive = code > 0
        row, feature, code = row[positive], feature[positive], code[positive]
        root = feature < self.forest.roots
        active, levels = (row[root], feature[root], code[root]), [(row, feature, code)]
        for _ in range(self.forest.depth):
            active = self._children(z, *active, generator=generator)
            levels.append(active)
        row, feature, code = map(torch.cat, zip(*levels, strict=True))
        order = torch.from_numpy(row.short().numpy().argsort(kind="stable"))  # a radix sort
        return row[order], feature[order], code[order]

    def _children(
        self, z: Tensor, row: Tensor, parent: Tensor, code: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The active children of active parents: rows, features and codes; at most one for each of
        the P parents.
        """
        slope, offset, mean, sd = self._family
        level = torch.einsum("pcr,pr->pc", slope[parent], z[row]) - offset[parent]  # [P, C]
        fires = torch.rand(level.shape, generator=generator) < ndtr(level)
        raw = (
            torch.relu(mean[parent] + sd[parent] * torch.randn(level.shape, generator=generator))
            * fires
        )
        ticket = (raw > 0) * (1 + torch.rand(level.shape, generator=generator))
        won, which = ticket.max(1)
        child = raw.gather(1, which.unsqueeze(1)).squeeze(1)
        if self.scaled:
            child = child * (code / self.mean[parent])
        feature = self.forest.roots + self.forest.branching * parent + which
        stays = won > 0
        return row[stays], feature[stays], child[stays]

    @cached_property
    def _family(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Slopes, offsets, means and deviations of the children of every parent `[parents, C,
        ...]`.
        """
        slope, offset, mean, sd = (
            self.forest.children(values) for values in (self.slope, self.offset, self.mean, self.sd)
        )
        return slope, offset, mean, sd

    @cached_property
    def _tops(self) -> "Tops":
        free = torch.arange(self.forest.size, len(self.features))
        feature = torch.cat([torch.arange(self.forest.roots), free])
        slope, offset = self.slope[feature], self.offset[feature]
        level = (TAIL * slope.norm(dim=1) - offset).clamp(max=LEVEL)
        rate = -torch.log1p(-ndtr(level))
        return Tops(feature, slope.T.contiguous(), offset, level + offset, rate)


@dataclass(frozen=True)
class Tops:
    """Features without a parent given z: cell (n, f) of a table `[N, T]` is on with chance
    ndtr(slope_f . z_n - offset_f).

    Where slope_f . z_n is at most `bound_f`, cells come from a Poisson process of proposals, with
    the intensity `rate_f` = -log(1 - chance at the bound) in every cell: a proposal is kept with
    chance -log(1 - chance) / rate_f, and a cell with a kept proposal is on, which has exactly the
    chance asked for. The few cells above their bound are drawn singly.
    """

    feature: Tensor  # [T]
    slope: Tensor  # [R, T]
    offset: Tensor  # [T]
    bound: Tensor  # [T]
    rate: Tensor  # [T]

    def draw(self, z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows and features of the cells that are on, for z `[N, R]`."""
        rows, columns, start = [], [], 0
        for block in z.split(BLOCK):
            cell = self._cells(block, generator)
            rows.append(start + cell // len(self.feature))
            columns.append(cell % len(self.feature))
            start += len(block)
        return torch.cat(rows), self.feature[torch.cat(columns)]

    def _cells(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Numbers of the cells that are on, ascending: row times T plus column."""
        table = z @ self.slope  # [BLOCK, T]
        # four times as fast as torch's
        above = torch.from_numpy(np.flatnonzero((table > self.bound).numpy()))
        shared = table.flatten()
        chance = ndtr(shared[above] - self.offset[above % len(self.feature)])
        single = torch.rand(len(above), generator=generator) < chance
        proposals = torch.poisson(len(z) * self.rate, generator).long()
        column = torch.arange(len(self.feature)).repeat_interleave(proposals)
        cell = torch.randint(len(z), column.shape, generator=generator) * len(self.feature) + column
        level = shared[cell]
        intensity = -torch.log1p(-ndtr(level - self.offset[column]))
        kept = (level <= self.bound[column]) & (
            torch.rand(len(cell), generator=generator) * self.rate[column] < intensity
        )
        return torch.cat([above[single], cell[kept]]).unique()
