"""The one training loop: a generator that moves runs in lock-step over a stream of activations."""

import copy
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from saelab.runs import Run, Spec
from saelab.sae.module import SAE
from saelab.terms.base import Need, Variant
from saelab.threads import side_by_side
from saelab.train.health import SILENT, Health, Measured, check
from saelab.train.member import Member, Record, under
from saelab.types import ActivationSource, Cursor, Hook, Tokens, View, Windows
from saelab.variants import build as build_variant

RECORDS = 200  # health records per run
CALIBRATION_ROWS = 16_384  # activations a finished SAE is calibrated and measured on
# pre-activations held at once while a threshold is calibrated (128 MiB)
CALIBRATION_ENTRIES = 1 << 25

Build = Callable[[Spec, int, int, Hook], Variant]
# how a need is met: computed, or found where it was kept
Meet = Callable[[Need, ActivationSource], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Progress:
    """Where a group is after a step; `records` has one entry per run at the steps that are
    recorded, else none.
    """

    step: int
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Trained:
    """A finished run: the SAE in the model's own units, and the gate's verdict."""

    run: Run
    sae: SAE
    health: Health
    measured: Measured


class Training:
    """Runs that share a `Source`, trained on the very same batches: paired by construction. Does no
    I/O.

    Iterating trains from `step` to `steps` and yields after every step; `state` and `load` make a
    resumed training equal to an uninterrupted one, bit for bit. Raises `ValueError` when the runs
    do not share a source, would take no step, or ask for a model or batches that the source lacks.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        source: ActivationSource,
        *,
        build: Build = build_variant,
        meet: Meet = Need.of,
    ):
        if not runs or any(run.source != runs[0].source for run in runs):
            raise ValueError(
                "runs trained in lock-step must share one Source, and there must be at least one"
            )
        self.source, self.steps, self.step, self.meet = source, runs[0].source.steps, 0, meet
        if self.steps < 1:
            tokens, batch = runs[0].source.tokens, runs[0].source.batch
            raise ValueError(
                f"{tokens:,} tokens are fewer than one batch of {batch:,}: 0 training steps; "
                "raise tokens or lower batch"
            )
        mean, scale = source.stats.mean, source.stats.scale
        variants = [build(run.spec, source.d_in, run.seed, source.hook) for run in runs]
        for run, variant in zip(runs, variants, strict=True):
            variant.check_source(run.spec.name, source)
        self.members = [
            Member(i, run, variant, mean, scale, source.lm)
            for i, (run, variant) in enumerate(zip(runs, variants, strict=True))
        ]
        # One reader of windows makes all read them: runs of a group are trained on equal batches.
        ordered = any(variant.batches["main"] is Windows for variant in variants)
        self.main: type[Tokens] | type[Windows] = Windows if ordered else Tokens
        self.sides: set[View] = {
            kind for variant in variants for name, kind in variant.batches.items() if name != "main"
        }
        self.cursor = Cursor()

    def __iter__(self) -> Iterator[Progress]:
        every = max(1, self.steps // RECORDS)
        if self.step >= self.steps:
            return
        self._meet_needs()
        with side_by_side(len(self.members) if self._apart else 1) as map_:
            for views, following in self.source.batches(self.main, self.cursor, self.sides):
                record = (self.step + 1) % every == 0 or self.step + 1 == self.steps
                place = {"step": self.step, "steps": self.steps}
                rows = [
                    *map_(partial(Member.step, views=views, record=record, **place), self.members)
                ]
                self.step, self.cursor = self.step + 1, following
                yield Progress(self.step, tuple(row for row in rows if row is not None))
                if self.step >= self.steps:
                    return

    @property
    def _apart(self) -> bool:
        """Whether the members' steps share nothing: no hooks of a model, no state of a script's own
        code, no GPU.
        """
        shared = any(member.lm is not None or member.run.code for member in self.members)
        return self.source.stats.mean.is_cpu and not shared

    def _meet_needs(self) -> None:
        """Compute every need once, for all members that name it. It is recomputed, the same, by a
        resumed training.

        Cloned, because a tensor that comes from a file may lie in memory where products round
        otherwise.
        """
        needs = {need.name: need for member in self.members for need in member.variant.needs}
        device = self.source.stats.mean.device
        met = {
            name: {
                f"{name}.{key}": tensor.to(device).clone()
                for key, tensor in self.meet(need, self.source).items()
            }
            for name, need in needs.items()
        }
        for member in self.members:
            member.stats = dict(ChainMap(*(met[need.name] for need in member.variant.needs)))

    def state(self) -> dict[str, Tensor]:
        """A copy of weights, optimizer, steered coefficients, counters, randomness and the data
        cursor: named tensors.
        """
        tensors = {
            f"{m.index}.{name}": tensor.clone()
            for m in self.members
            for name, tensor in m.state().items()
        }
        place = [self.step, self.cursor.epoch, self.cursor.block, self.cursor.batch]
        return tensors | {"place": torch.tensor(place)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `state`. Raises `ValueError` when it belongs to other runs."""
        try:
            for m in self.members:
                m.load(under(f"{m.index}.", {name: t.clone() for name, t in tensors.items()}))
            self.step, *place = (int(i) for i in tensors["place"])
        except (KeyError, RuntimeError) as error:
            raise ValueError(
                f"the checkpoint does not belong to these runs ({error}); remove it to start anew"
            ) from error
        self.cursor = Cursor(*place)

    def results(self) -> list[Trained]:
        """Calibrate thresholds on activations that follow the training ones, measure, judge, and
        fold the input scale.
        """
        rows = self._calibration_rows()
        return [self._finish(member, rows) for member in self.members]

    def _calibration_rows(self) -> Tensor:
        narrowest = min(member.sae.n_latents for member in self.members)
        wanted, rows = min(CALIBRATION_ROWS, max(1, CALIBRATION_ENTRIES // narrowest)), []
        for views, _ in self.source.batches(Tokens, self.cursor):
            rows.append(views.main.flat)
            if sum(map(len, rows)) >= wanted:
                break
        return torch.cat(rows)[:wanted]

    @torch.no_grad()
    def _finish(self, member: Member, rows: Tensor) -> Trained:
        sae = copy.deepcopy(member.sae).requires_grad_(False)
        # whoever else is in the group
        x = rows[: max(1, CALIBRATION_ENTRIES // sae.n_latents)] * member.scale
        if member.variant.calibrate is not None:
            sae.calibrate_(x, member.variant.calibrate)
        z = sae.encode(x)
        error, spread = (x - sae.decode(z)).square().sum(), (x - x.mean(0)).square().sum()
        measured = Measured(
            steps=self.step,
            l0=float((z > 0).sum()) / len(z),
            explained_variance=float(1 - error / spread),
            dead=float(((z > 0).sum(0) == 0).logical_and(member.dead).float().mean()),
            reads_nothing=not sae.directions.any(),
            silent=tuple(
                name
                for name, block in sae.blocks.items()
                if float((z[:, block.start : block.stop] > 0).sum()) < SILENT * len(z)
            ),
        )
        sae.fold_scale_(member.scale)
        return Trained(member.run, sae, check(member.run, measured), measured)
