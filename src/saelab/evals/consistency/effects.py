"""The latents that carry a concept, and what the model predicts when they are changed together.

Carriers: the latents of the highest AUROC for the concept on the training files, among those that
fire there. All carriers that are active at a position are changed at once; under `steer`, all that
are silent. Compared, at the same position and with a change of exactly the same norm: a direction u
~ N(0, Sigma) made orthogonal to all carriers, and as many other latents that are active there, of
codes as near as can be (under `steer`: silent ones, at random), scaled to that norm.

Legend: S types | n positions | m carriers | L latents | N kept positions of the text | M pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from saelab.effects.intervene import ON_SILENT, changes
from saelab.effects.pairs import MIN_CONTEXTS, Pairs
from saelab.effects.reactions import Text
from saelab.effects.sets import set_effects
from saelab.evals.common.auroc import Array, auroc_of_latents
from saelab.evals.common.interventions import Latents
from saelab.types import Score

GROUPS = ("carriers", "control", "others")
CARRIERS, CONTROL, OTHERS = range(3)
AGAINST = {"above_control": CONTROL, "above_others": OTHERS}
CHANCE = 0.5  # AUROC
UNDIRECTED = ("noise",)  # types that move a latent either way: the size of the change counts


@dataclass(frozen=True, eq=False)
class Subject:
    """A dictionary on a text, as interventions on several latents need it."""

    text: Text
    latents: Latents
    train: Tensor  # [n] positions of the training files
    file: Tensor  # [N] number of each position's file
    covariance: Tensor  # [D, D] of the control
    generator: torch.Generator

    @cached_property
    def by_row(self) -> Any:
        """Codes as a scipy csr array `[N, L]`."""
        from scipy.sparse import csc_array

        codes = self.latents.codes
        columns = (codes.value.numpy(), codes.row.numpy(), codes.start.numpy())
        return csc_array(columns, shape=(codes.n, len(self.latents.directions))).tocsr()

    @cached_property
    def live(self) -> Tensor:
        """Latents `[L]` bool that are active on at least 30 positions of the training files."""
        codes, directions = self.latents.codes, self.latents.directions
        is_train = torch.zeros(codes.n, dtype=torch.bool).index_fill_(0, self.train, True)
        fired = codes.latent[is_train[codes.row]].bincount(minlength=len(directions))
        return (fired >= MIN_CONTEXTS) & (directions.norm(dim=1) > 0)

    @cached_property
    def root(self) -> Tensor:
        """A root `[D, D]` of the control's covariance: root root' is it."""
        return torch.linalg.cholesky(self.covariance.double()).float()

    def auroc(self, holds: Array, rows: Tensor) -> Array:
        """AUROC `[L, C]` of every latent for concepts `holds [n, C]` at positions `rows [n]`."""
        return auroc_of_latents(self.by_row[rows.numpy()].tocsc(), holds)

    def carriers(self, holds: Array, m: int) -> list[Tensor]:
        """Carriers `[<= m]` of every concept, the best first, where on the training files the
        concepts are `holds [n, C]`.

        A latent that is dead, rare or no better than chance is no carrier.
        """
        auroc = np.where(self.live.numpy()[:, None], self.auroc(holds, self.train), 0)  # [L, C]
        order = np.argsort(-auroc, 0, kind="stable")[:m]  # [m, C]
        return [
            torch.from_numpy(order[auroc[order[:, c], c] > CHANCE, c])
            for c in range(holds.shape[1])
        ]


@dataclass(frozen=True)
class GroupEffects:
    """Effects of carriers, control and others at n positions, nats; NaN where there is no other
    latent.

    The carriers' effect counts in the direction that the concept predicts. Nothing says which way
    the control and the other latents should move the decided tokens: theirs counts in absolute
    value, or both would average out to little.
    """

    mass: Tensor  # [3, n] on the decided tokens, signed, see `effects_of`
    kl: Tensor  # [3, n]
    file: Tensor  # [n]

    @property
    def of_carriers(self) -> float:
        """Mean over positions."""
        return float(self.mass[CARRIERS].mean())

    def lead(self, group: int) -> Score:
        """Mean of carriers less |group|; 95 % bootstrap over files."""
        from saelab.stats import bootstrap_ratio

        lead = self.mass[CARRIERS] - self.mass[group].abs()
        defined = lead.isfinite()
        if not defined.any():
            return Score(None, reason="no other latent is active there")
        return bootstrap_ratio(lead[defined], torch.ones(int(defined.sum())), self.file[defined])

    def row(self) -> dict[str, Any]:
        """Means over positions, and the carriers' lead over control and others, paired by position,
        with intervals.
        """
        signed, size = _means(self.mass), _means(self.mass.abs())
        return {
            "positions": self.mass.shape[1],
            **size,
            "carriers": signed.pop("carriers"),
            "signed": signed,
            "kl": _means(self.kl),
            **{name: asdict(self.lead(group)) for name, group in AGAINST.items()},
        }


def _means(effects: Tensor) -> dict[str, float]:
    """Of each group over positions, `effects [3, n]`."""
    return dict(zip(GROUPS, effects.nanmean(1).tolist(), strict=True))


@dataclass(frozen=True)
class Outcome:
    """What changing a concept's carriers did, by type of change."""

    touched: Tensor  # [n] bool: some carrier is changed
    by_type: Mapping[str, GroupEffects]
    # mean norm of the carriers' change over that of the others before it is matched, first type
    stretch: float


def effects_of(
    subject: Subject, carriers: Tensor, rows: Tensor, members: Tensor, types: Sequence[str]
) -> Outcome:
    """Effects on the tokens `members` of changing the carriers `[m]` at the positions `rows [n]`.

    `types` are all for active latents or all for silent ones. An effect is the fall of the
    log-probability of the tokens together, under `steer` its rise, under `noise` its absolute
    change. A position where no carrier is changed has effects of exactly 0.
    """
    silent, n, m = types[0] in ON_SILENT, len(rows), len(carriers)
    code = subject.latents.codes.at(carriers.repeat(n), rows.repeat_interleave(m)).view(n, m)
    changed = (code == 0) if silent else (code > 0)  # [n, m]
    touched, stretch = changed.any(1), float("nan")
    mass = torch.zeros(len(types), len(GROUPS), n, dtype=torch.float32)
    kl = torch.zeros_like(mass)
    if touched.any():
        at, code, changed = rows[touched], code[touched], changed[touched]
        where, which = changed.nonzero(as_tuple=True)
        pairs = Pairs(carriers[which], at[where], code[changed])
        along = _together(subject, types, where, pairs, len(at))  # [S, n, D]
        where, pairs = _others(subject, carriers, at, code, changed, silent=silent)
        others = _together(subject, types, where, pairs, len(at))
        norm, natural = along.norm(dim=-1, keepdim=True), others.norm(dim=-1, keepdim=True)
        control = norm * _orthogonal(subject, carriers, along.shape)
        # [S, 3, n, D]
        delta = torch.stack([along, control, normalize(others, dim=-1) * norm], 1)
        after = set_effects(subject.text, at, delta.flatten(0, 1), members)
        rise = (after.changed - after.clean).view(delta.shape[:-1])
        for s, name in enumerate(types):
            signed = rise[s] if silent else -rise[s]
            mass[s][:, touched] = rise[s].abs() if name in UNDIRECTED else signed
        kl[:, :, touched] = after.kl.view_as(rise)
        alone = torch.zeros(len(types), n, dtype=torch.bool)
        alone[:, touched] = ((natural == 0) & (norm > 0)).squeeze(-1)
        mass[:, OTHERS][alone] = kl[:, OTHERS][alone] = torch.nan
        matched = (natural[0] > 0).squeeze(-1)
        if matched.any():
            stretch = float((norm[0, matched] / natural[0, matched]).mean())
    file = subject.file[rows]
    by_type = {name: GroupEffects(mass[s], kl[s], file) for s, name in enumerate(types)}
    return Outcome(touched, by_type, stretch)


def _together(
    subject: Subject, types: Sequence[str], where: Tensor, pairs: Pairs, n: int
) -> Tensor:
    """Change of the activation `[S, n, D]`: the pairs `[M]` of each position `where [M]`
    together.
    """
    amounts = changes(types, subject.latents.codes, pairs, subject.generator)  # [S, M]
    along = amounts.unsqueeze(-1) * subject.latents.directions[pairs.latent]
    return along.new_zeros(len(types), n, along.shape[-1]).index_add_(1, where, along)


def _orthogonal(subject: Subject, carriers: Tensor, shape: torch.Size) -> Tensor:
    """Unit directions `shape` from N(0, Sigma), orthogonal to every carrier."""
    span = torch.linalg.qr(subject.latents.directions[carriers].T).Q  # [D, m]
    root = subject.root
    u = torch.randn(shape, generator=subject.generator, dtype=root.dtype) @ root.T
    return normalize(u - u @ span @ span.T, dim=-1)


def _others(
    subject: Subject,
    carriers: Tensor,
    rows: Tensor,
    code: Tensor,
    changed: Tensor,
    *,
    silent: bool,
) -> tuple[Tensor, Pairs]:
    """As many other latents at each position as carriers are changed there, or as many as there
    are.
    """
    codes, drawn = subject.by_row, []
    for i, row in enumerate(rows.tolist()):
        entries = slice(codes.indptr[row], codes.indptr[row + 1])
        active = torch.from_numpy(codes.indices[entries]).long()
        if silent:
            free = subject.live.clone()
            free[active] = free[carriers] = False
            free = free.nonzero().squeeze(1)
            order = torch.randperm(len(free), generator=subject.generator)
            drawn.append(free[order[: int(changed[i].sum())]])
        else:
            free = ~torch.isin(active, carriers)
            value = torch.from_numpy(codes.data[entries])[free]
            drawn.append(active[free][_nearest(value, code[i][changed[i]])])
    latent = torch.cat(drawn)
    where = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(d) for d in drawn]))
    return where, Pairs(latent, rows[where], subject.latents.codes.at(latent, rows[where]))


def _nearest(values: Tensor, wanted: Tensor) -> Tensor:
    """Places in `values` of the one nearest to each wanted code, the largest code first, each place
    once.
    """
    left, places = values.clone(), []
    for code in wanted.sort(descending=True).values[: len(values)]:
        places.append(int((left - code).abs().argmin()))
        left[places[-1]] = torch.inf
    return torch.tensor(places, dtype=torch.long)
