"""The latents that carry a concept, and what the model predicts when they are changed together.

Carriers: the latents of the highest AUROC for the concept on the training files, among those that
fire there. All carriers that are active at a position are changed at once; under `steer`, all that
are silent. Compared, at the same position and with a change of exactly the same norm: a direction u
~ N(0, Sigma) made orthogonal to all carriers, and as many other latents that are active there, of
codes as near as can be (under `steer`: silent ones, at random), scaled to that norm.

Legend: S types | n positions | m carriers | L latents | N kept positions of the text | M pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from saelab.effects.intervene import ON_SILENT, changes
from saelab.effects.pairs import MIN_CONTEXTS, Pairs
from saelab.effects.reactions import MAX_BYTES, Text
from saelab.effects.sets import set_effects
from saelab.evals.concepts.latents import auroc_of_latents
from saelab.evals.concepts.scores import Array
from saelab.evals.nces.effects import Latents

GROUPS = ("carriers", "control", "others")
CHANCE = 0.5  # AUROC
UNDIRECTED = ("noise",)  # types that move a latent either way: the size of the change counts


@dataclass(frozen=True)
class Subject:
    """A dictionary on a text, as interventions on several latents need it."""

    text: Text
    latents: Latents
    by_row: Any  # scipy csr [N, L] of codes
    live: Tensor  # [L] bool: active on at least 30 positions of the training files
    root: Tensor  # [D, D], root root' is the control's covariance
    generator: torch.Generator
    max_bytes: int = MAX_BYTES


@dataclass(frozen=True)
class Effects:
    """Effects at n positions by type and group (carriers, control, others), nats; NaN where there
    is no other latent.
    """

    mass: Tensor  # [S, 3, n] on the log-probability of the tokens, see `effects_of`
    kl: Tensor  # [S, 3, n]
    touched: Tensor  # [n] bool: some carrier is changed
    # mean norm of the carriers' change over that of the others before it is matched, first type
    stretch: float


def subject(
    text: Text, latents: Latents, train: Tensor, covariance: Tensor, *, seed: int, max_bytes: int
) -> Subject:
    """A dictionary's codes ready to be changed; `train [N]`: positions of the training files."""
    from scipy.sparse import csc_array

    codes = latents.codes
    shape = (codes.n, len(latents.directions))
    by_row = csc_array(
        (codes.value.numpy(), codes.row.numpy(), codes.start.numpy()), shape=shape
    ).tocsr()
    fired = codes.latent[train[codes.row]].bincount(minlength=shape[1])
    live = (fired >= MIN_CONTEXTS) & (latents.directions.norm(dim=1) > 0)
    root = torch.linalg.cholesky(covariance.double()).float()
    return Subject(
        text, latents, by_row, live, root, torch.Generator().manual_seed(seed), max_bytes
    )


@dataclass(frozen=True)
class Chosen:
    """Latents of one concept."""

    carriers: Tensor  # [m] the best first
    by_chance: Tensor  # [m] the same for shuffled labels
    auroc: list[float]  # [m] of the carriers on the test files


def carriers_of(of: Subject, holds: Array, rows: Tensor, m: int) -> list[Tensor]:
    """Carriers `[<= m]` of every concept, the best first, at positions `rows [n]` where the
    concepts are `holds [n, C]`.

    A latent that is dead, rare or no better than chance is no carrier.
    """
    auroc = np.where(of.live.numpy()[:, None], auroc_at(of, holds, rows), 0)  # [L, C]
    order = np.argsort(-auroc, 0, kind="stable")[:m]  # [m, C]
    return [
        torch.from_numpy(order[auroc[order[:, c], c] > CHANCE, c]) for c in range(holds.shape[1])
    ]


def auroc_at(of: Subject, holds: Array, rows: Tensor) -> Array:
    """AUROC `[L, C]` of every latent for concepts `holds [n, C]` at positions `rows [n]`."""
    return auroc_of_latents(of.by_row[rows.numpy()].tocsc(), holds)


def effects_of(
    of: Subject, carriers: Tensor, rows: Tensor, members: Tensor, types: Sequence[str]
) -> Effects:
    """Effects on the tokens `members` of changing the carriers `[m]` at the positions `rows [n]`.

    `types` are all for active latents or all for silent ones. An effect is the fall of the
    log-probability of the tokens together, under `steer` its rise, under `noise` its absolute
    change. A position where no carrier is changed has effects of exactly 0.
    """
    silent = types[0] in ON_SILENT
    n = len(rows)
    code = of.latents.codes.at(carriers.repeat(n), rows.repeat_interleave(len(carriers))).view(
        n, len(carriers)
    )
    there = (code == 0) if silent else (code > 0)
    touched = there.any(1)
    mass, kl = (torch.zeros(len(types), len(GROUPS), n, dtype=torch.float32) for _ in range(2))
    near, code, there = rows[touched], code[touched], there[touched]
    if not len(near):
        return Effects(mass, kl, touched, float("nan"))
    where, which = there.nonzero(as_tuple=True)
    # [S, n, D]
    own = _joint(of, types, where, Pairs(carriers[which], near[where], code[there]), len(near))
    other = _joint(of, types, *_others(of, carriers, near, code, there, silent=silent), len(near))
    norm, natural = own.norm(dim=-1, keepdim=True), other.norm(dim=-1, keepdim=True)
    # [S, 3, n, D]
    delta = torch.stack(
        [own, norm * _apart(of, carriers, own.shape), normalize(other, dim=-1) * norm], 1
    )
    found = set_effects(of.text, near, delta.flatten(0, 1), members, max_bytes=of.max_bytes)
    change = (found.changed - found.clean).view(len(types), len(GROUPS), -1)
    for s, name in enumerate(types):
        change[s] = change[s].abs() if name in UNDIRECTED else change[s] if silent else -change[s]
    kls = found.kl.view_as(change)
    alone = (natural == 0).squeeze(-1) & (norm > 0).squeeze(-1)  # [S, n]
    change[:, 2][alone], kls[:, 2][alone] = torch.nan, torch.nan
    mass[:, :, touched], kl[:, :, touched] = change, kls
    matched = (natural[0] > 0).squeeze(-1)
    stretch = (
        float((norm[0, matched] / natural[0, matched]).mean()) if matched.any() else float("nan")
    )
    return Effects(mass, kl, touched, stretch)


def _joint(of: Subject, types: Sequence[str], where: Tensor, pairs: Pairs, n: int) -> Tensor:
    """Change of the activation `[S, n, D]`: the pairs `[M]` of each position `where [M]`
    together.
    """
    amounts = changes(types, of.latents.codes, pairs, of.generator)  # [S, M]
    along = amounts.unsqueeze(-1) * of.latents.directions[pairs.latent]
    return along.new_zeros(len(types), n, along.shape[-1]).index_add_(1, where, along)


def _apart(of: Subject, carriers: Tensor, shape: torch.Size) -> Tensor:
    """Unit directions `shape` from N(0, Sigma), orthogonal to every carrier."""
    span = torch.linalg.qr(of.latents.directions[carriers].T).Q  # [D, m]
    u = torch.randn(shape, generator=of.generator, dtype=of.root.dtype) @ of.root.T
    return normalize(u - u @ span @ span.T, dim=-1)


def _others(
    of: Subject, carriers: Tensor, rows: Tensor, code: Tensor, there: Tensor, *, silent: bool
) -> tuple[Tensor, Pairs]:
    """As many other latents at each position as carriers are changed there, or as many as there
    are.
    """
    where, latents = [], []
    for i, row in enumerate(rows.tolist()):
        part = slice(of.by_row.indptr[row], of.by_row.indptr[row + 1])
        active = torch.from_numpy(of.by_row.indices[part]).long()
        if silent:
            free = of.live.clone()
            free[active] = free[carriers] = False
            rest = free.nonzero().squeeze(1)
            picked = rest[torch.randperm(len(rest), generator=of.generator)[: int(there[i].sum())]]
        else:
            rest = ~torch.isin(active, carriers)
            picked = active[rest][
                _nearest(torch.from_numpy(of.by_row.data[part])[rest], code[i][there[i]])
            ]
        where.append(torch.full((len(picked),), i))
        latents.append(picked)
    at, latent = torch.cat(where), torch.cat(latents)
    return at, Pairs(latent, rows[at], of.latents.codes.at(latent, rows[at]))


def _nearest(values: Tensor, wanted: Tensor) -> Tensor:
    """Places in `values` of the one nearest to each wanted code, the largest code first, each place
    once.
    """
    left, picked = values.clone(), []
    for code in wanted.sort(descending=True).values[: len(values)]:
        picked.append(int((left - code).abs().argmin()))
        left[picked[-1]] = torch.inf
    return torch.tensor(picked, dtype=torch.long)
