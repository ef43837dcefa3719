"""What a loss term sees (`Step`), what it is (`Term`), and what makes a `Variant`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from saelab.sae.module import SAE
from saelab.types import (
    ActivationSource,
    Batch,
    LanguageModel,
    Number,
    Pairs,
    Tokens,
    View,
    Windows,
    value_at,
    view_name,
)


@dataclass(frozen=True)
class Step:
    """All that a loss term may look at, built once per step. Activations are scaled to mean squared
    norm 1.

    Positions are those that token hygiene keeps, whatever the batch: a variant that reads windows
    never sees BOS in its loss, and its reconstruction is that of its control on the very same
    batch. `in_windows` puts codes back in order.

    `z` are the training-time codes; `dead` marks latents that have not fired for long; `progress`
    runs from 0 to 1. `lm` is there when the variant says `lm=True`, and works in its own units:
    divide x by `scale`. `stats` holds what the variant needs of the stream, `<need>.<tensor>`.
    """

    sae: SAE
    batches: Mapping[str, Batch]  # what the variant reads, by its names; "main" is coded here
    x: Tensor  # [N, D] scaled activations, also the target
    pre: Tensor  # [N, L]
    z: Tensor  # [N, L]
    x_hat: Tensor  # [N, D]
    dead: Tensor  # [L] bool
    progress: float
    generator: torch.Generator
    scale: float = 1.0  # of x over the model's own activations
    lm: LanguageModel | None = None
    stats: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def batch(self) -> Batch:
        return self.batches["main"]

    def reordered(self, order: Tensor) -> "Step":
        """The same step for latents in another order: entry i is what entry `order[i]` was."""
        return replace(self, pre=self.pre[:, order], z=self.z[:, order], dead=self.dead[order])

    @property
    def windows(self) -> Windows:
        """The batch in order. Raises `TypeError` where the step has no windows."""
        if not isinstance(self.batch, Windows):
            raise TypeError(
                "this step has no windows; a variant whose terms need some says "
                'batches={"main": Tokens, "windows": Windows}, or {"main": Windows}'
            )
        return self.batch

    def side(self, name: str) -> "Step":
        """The same SAE on another batch that the variant reads, such as `Variant(batches={"main":
        Tokens, "pairs": Pairs})` and `side("pairs")`.

        Its positions are coded as if each had been in the main batch: an activation that selects
        among the positions of a batch keeps, here, the entries that reach the smallest one kept in
        the main batch. So L0 may differ between the two, and no position of the side batch
        competes with another. There is a gradient through these codes. Coded once a step, however
        many terms ask. Raises `TypeError` for a batch that the variant does not read.
        """
        if name not in self.batches:
            raise TypeError(
                f"this step has no batch {name!r}, it has {', '.join(self.batches)}; a variant "
                f'whose terms read it says so, as in batches={{"main": Tokens, {name!r}: Pairs}}'
            )
        if name not in self._sides:
            batch = self.batches[name]
            self._sides[name] = self if batch is self.batch else self._on(batch, self)
        return self._sides[name]

    @cached_property
    def _sides(self) -> dict[str, "Step"]:
        return {}  # those that were asked for so far

    def on_windows(self, share: float = 1.0) -> "Step":
        """The step on windows, for terms that run the model: itself, or the same SAE on the batch
        "windows"; on a random `share` of them, at least 1.

        Unlike in `side`, TopK over a batch selects among the positions of these windows alone: what
        the model reads then is as sparse as the SAE is asked to be. Raises `TypeError` when there
        are no windows.
        """
        ordered = isinstance(self.batch, Windows) or "windows" not in self.batches
        windows = self.windows if ordered else self.batches["windows"]
        assert isinstance(windows, Windows)
        if share >= 1 and windows is self.batch:
            return self
        rows = windows.keep.any(1).nonzero().squeeze(1).cpu()  # the others have nothing to code
        if share < 1:
            n = max(1, round(share * len(rows)))
            rows = rows[torch.randperm(len(rows), generator=self.generator)[:n]]
        return self._on(windows.rows(rows), None)

    def _on(self, batch: Batch, among: "Step | None") -> "Step":
        """The SAE on another batch; `among`: the step whose selection counts, else its own."""
        x = batch.flat.to(self.x.dtype) * self.scale
        selection = None if among is None else (among.x, among.pre)
        pre, z = self.sae.codes(x, self.progress, selection)
        x_hat = self.sae.decode(z)
        return replace(self, batches={"main": batch}, x=x, pre=pre, z=z, x_hat=x_hat)

    def in_windows(self, values: Tensor) -> Tensor:
        """Values of the kept positions `[N, *]` back in their windows `[B, T, *]`, of pairs `[2, B,
        T, *]`; 0 where `keep` is False.

        Raises `TypeError` for shuffled tokens: the variant must ask for windows
        (`Variant(batches={"main": Windows})`).
        """
        if isinstance(self.batch, Windows | Pairs):
            return self.batch.in_order(values)
        raise TypeError(
            "this step has shuffled tokens, no windows; a variant that needs order says "
            'batches={"main": Windows}'
        )


TermFunction = Callable[[Step], Tensor]
# a scalar, or a scalar and the values of what it is made of, for the log
LossFunction = Callable[[Step], Tensor | tuple[Tensor, Mapping[str, Tensor]]]


# of the logarithm of a steered coefficient: an L0 out of reach ends as a warning, not as an
# infinite loss
LARGEST = 20.0


class Steered(nn.Module):
    """The coefficient of a sparsity penalty, steered so that the mean L0 becomes `l0`.

    A proportional-integral controller on e = log(L0 / target) moves the logarithm of the
    coefficient by `gain * e` per step. Between 0 and `warmup` of training the target falls
    geometrically from `start` times `l0`, which is the warm-up of the penalty. Only L0 is steered;
    the penalty itself stays the paper's.
    """

    log_coefficient: Tensor
    last: Tensor

    def __init__(
        self,
        l0: float,
        *,
        initial: float,
        gain: float = 0.1,
        warmup: float = 0.33,
        start: float = 4.0,
    ):
        super().__init__()
        self.l0, self.gain, self.warmup, self.start = l0, gain, warmup, start
        self.register_buffer("log_coefficient", torch.tensor(initial, dtype=torch.float64).log())
        # error of the step before
        self.register_buffer("last", torch.zeros((), dtype=torch.float64))

    @property
    def coefficient(self) -> Tensor:
        return self.log_coefficient.exp()

    def forward(self, penalty: Tensor, step: Step) -> Tensor:
        """coefficient * the penalty of a step; then the coefficient moves."""
        value = self.coefficient.to(step.x.dtype) * penalty
        l0 = float((step.z.detach() > 0).sum()) / (step.z.numel() / step.z.shape[-1])
        rest = max(0.0, 1 - step.progress / self.warmup) if self.warmup else 0.0
        target = torch.tensor(self.l0 * self.start**rest, dtype=torch.float64)
        error = (torch.tensor(max(l0, 1e-3), dtype=torch.float64) / target).log().clamp(-1, 1)
        move = self.gain * error + 5 * self.gain * (error - self.last)
        self.log_coefficient.add_(move).clamp_(-LARGEST, LARGEST)
        self.last.copy_(error)
        return value


@dataclass(frozen=True)
class Term:
    """A named part of the loss. `weight` may follow a schedule; 0 means not computed. `fn` may be
    an `nn.Module`. `steered`: its coefficient, where that is steered to an L0.
    """

    name: str
    fn: LossFunction
    weight: Number = 1.0
    steered: Steered | None = None

    def value(self, step: Step) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The term before its weight, a scalar, and what it is made of, for the log."""
        result = self.fn(step)
        value, pieces = result if isinstance(result, tuple) else (result, {})
        return value if self.steered is None else self.steered(value, step), pieces


class Objective(nn.Module):
    """The loss: a sum of weighted terms. A term that is a module trains along and is saved too."""

    def __init__(self, *terms: Term):
        super().__init__()
        names = [term.name for term in terms]
        if len(set(names)) < len(names):
            raise ValueError(f"terms need different names, given {', '.join(names)}")
        self.terms = terms
        functions = [fn for term in terms for fn in (term.fn, term.steered)]
        self.parts = nn.ModuleList(fn for fn in functions if isinstance(fn, nn.Module))

    def forward(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss (scalar) and the value of each computed term before its weight."""
        total, values = torch.zeros((), device=step.x.device), {}
        for term in self.terms:
            weight = value_at(term.weight, step.progress)
            if weight != 0:
                value, pieces = term.value(step)
                values |= {name: torch.as_tensor(piece).detach() for name, piece in pieces.items()}
                total = total + weight * value
                values[term.name] = value.detach()
        return total, values

    @property
    def coefficient(self) -> float | None:
        """The steered sparsity coefficient, if a term has one."""
        steered = [float(term.steered.coefficient) for term in self.terms if term.steered]
        return steered[0] if steered else None


@dataclass(frozen=True)
class Event:
    """What changes the SAE instead of adding to the loss, at these fractions of training (0: after
    the first step).

    An event that only reorders latents returns their new order `[L]`, and the counters of silence
    move along; any other returns None, and every latent is watched anew. `moves`: whether latents
    may leave their places.
    """

    at: Sequence[float]
    fn: Callable[[SAE, torch.optim.Optimizer, Step], Tensor | None]
    moves: bool = False


@dataclass(frozen=True)
class Need:
    """A statistic of the stream, computed once before the first step and seen as
    `step.stats["<name>.<tensor>"]`.

    `compute` is deterministic, so that a resumed run sees the same. Runs that train together share
    it by its name, which therefore says every number that it depends on. `lm`: whether it asks the
    model behind the stream.
    """

    name: str
    compute: Callable[[ActivationSource], Mapping[str, Tensor]]
    lm: bool = False

    def of(self, source: ActivationSource) -> Mapping[str, Tensor]:
        """The statistic of `source`, computed."""
        return self.compute(source)


@dataclass(frozen=True)
class Variant:
    """A named composition: the SAE, its objective, the batches it reads, its events, and what it
    asks of the model.

    `calibrate`: the mean L0 that the inference threshold is set to after training; None leaves the
    SAE as trained. `lm`: its terms run the model behind the stream (`step.lm`). `restart`: the last
    share of training is like a run of its own, with new moments and a new warm-up and decay of the
    learning rate, up to `restart_rate` times that of the run.
    """

    sae: SAE
    objective: Objective
    # what it reads in a step, by names of its own; "main" is what it reconstructs
    batches: Mapping[str, View] = field(default_factory=lambda: {"main": Tokens})
    events: tuple[Event, ...] = ()
    calibrate: float | None = None
    needs: tuple[Need, ...] = ()
    lm: bool = False
    restart: float = 0.0
    restart_rate: float = 1.0

    def __post_init__(self) -> None:
        if self.batches.get("main") not in (Tokens, Windows):
            raise ValueError(
                f"a variant's main batch is Tokens or Windows; given batches={dict(self.batches)}"
            )

    def check_source(self, name: str, source: ActivationSource) -> None:
        """Raise `ValueError` when the variant called `name` asks for a model or for batches that
        the source does not have.
        """
        if source.lm is None and (self.lm or any(need.lm for need in self.needs)):
            raise ValueError(
                f"{name} asks the model behind the activations for its predictions, and these "
                "have none; train it on a "
                "language model or a world with a model (s1, s1b, s1d), or leave it out"
            )
        for kind in self.batches.values():
            if lack := source.missing(kind):
                raise ValueError(f"{name} reads {view_name(kind)}: {lack}; or leave it out")
