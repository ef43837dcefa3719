"""The vocabulary of saelab: what crosses from one folder to another, and nothing else.

Shapes, used at the right margin everywhere:

    B windows or pairs | T positions | N flat tokens | D model width (d_in) | L latents (n_latents)
    | V vocabulary

Units: squared error is summed over D and averaged over positions; CE and KL are nats per token.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

Site = Literal["resid_pre", "resid_post", "mlp_out", "attn_out"]
SITES: tuple[Site, ...] = get_args(Site)


@dataclass(frozen=True)
class Hook:
    """A place in a language model: the residual stream before or after a layer, or what its MLP or
    attention adds to it.
    """

    layer: int
    site: Site = "resid_post"

    @property
    def name(self) -> str:
        """The field's spelling, `blocks.5.hook_resid_post`."""
        return f"blocks.{self.layer}.hook_{self.site}"

    @staticmethod
    def from_name(name: str) -> "Hook":
        """Inverse of `name`; the other spellings need the model (see `lm.hooks.parse_hook`)."""
        match = re.fullmatch(r"blocks\.(\d+)\.hook_(\w+)", name)
        for site in SITES:
            if match is not None and match[2] == site:
                return Hook(int(match[1]), site)
        raise ValueError(
            f"{name!r} is no hook name; write blocks.<layer>.hook_<site> with a site of "
            f"{', '.join(SITES)}"
        )


# Batches ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Windows:
    """Activations in order: the canonical form. Order and document are never lost."""

    x: "Tensor"  # [B, T, D]
    tokens: "Tensor"  # [B, T] token ids
    doc: "Tensor"  # [B, T] document number
    pos: "Tensor"  # [B, T] position in the window
    keep: "Tensor"  # [B, T] bool: False for BOS, EOS, pad and masked outliers

    @property
    def flat(self) -> "Tensor":
        """The kept activations as `[N, D]`, in order."""
        return self.x[self.keep]

    def in_order(self, values: "Tensor") -> "Tensor":
        """Values of the kept positions `[N, *]` back in their windows `[B, T, *]`, 0 elsewhere."""
        ordered = values.new_zeros(*self.keep.shape, *values.shape[1:])
        ordered[self.keep] = values
        return ordered

    def rows(self, numbers: "Tensor") -> "Windows":
        """The windows with these numbers `[B]`, in this order."""
        at = numbers.to(self.x.device)
        return Windows(self.x[at], self.tokens[at], self.doc[at], self.pos[at], self.keep[at])

    def stretches(self, places: "Tensor") -> "Windows":
        """Windows of other positions: `places [b, t]` numbers the positions of all windows, window
        after window.
        """
        at, flat = places.to(self.x.device), self.keep.numel()
        tokens, doc, pos, keep = (
            values.reshape(flat)[at] for values in (self.tokens, self.doc, self.pos, self.keep)
        )
        return Windows(self.x.reshape(flat, -1)[at], tokens, doc, pos, keep)


@dataclass(frozen=True)
class Tokens:
    """Kept activations of shuffled positions."""

    x: "Tensor"  # [N, D]

    @property
    def flat(self) -> "Tensor":
        return self.x


@dataclass(frozen=True)
class Pairs:
    """Pairs of windows that have something in common, or have not; `kind` says what.

    `flat` holds the kept positions of all first windows, then those of all second ones.
    """

    first: Windows  # [B, T]
    second: Windows  # [B, T]
    kind: "Tensor"  # [B] number in `kinds`
    kinds: tuple[str, ...]  # what the two of a pair share, in words
    # [B, 2, C] what is true of both windows, where the source tells it; for supervised runs
    values: "Tensor | None" = None

    @property
    def flat(self) -> "Tensor":
        """The kept activations as `[N, D]`, those of the first windows before the others."""
        import torch  # not with the module: this one stays light

        return torch.cat([self.first.flat, self.second.flat])

    def in_order(self, values: "Tensor") -> "Tensor":
        """Values of the kept positions `[N, *]` back in their windows `[2, B, T, *]`, else 0."""
        import torch  # not with the module: this one stays light

        first, second = values.tensor_split([int(self.first.keep.sum())])
        return torch.stack([self.first.in_order(first), self.second.in_order(second)])


@dataclass(frozen=True)
class Labelled:
    """Activations with labels: a probe set, or a labelled sub-batch."""

    x: "Tensor"  # [N, D]
    labels: "Tensor"  # [N, C] number of the value in its column, -1: unknown
    names: tuple[str, ...]  # of the columns

    @property
    def flat(self) -> "Tensor":
        return self.x


Batch = Tokens | Windows | Pairs | Labelled


@dataclass(frozen=True)
class Pieces:
    """Asks for short stretches of one document each, in order, as `Windows` `[B, length, D]` that
    hold about as many positions as a batch of tokens.

    A piece reads every `every`-th position, so that few positions reach far. Where a source draws
    windows as short as that itself, as worlds do, those are the pieces.
    """

    length: int = 16  # positions of a piece
    every: int = 1  # from one of them to the next; 1: neighbours
    sliding: bool = True  # pieces may overlap; else they begin at multiples of their span

    @property
    def span(self) -> int:
        """Positions from its first to its last, both counted."""
        return (self.length - 1) * self.every + 1

    @property
    def name(self) -> str:
        """What they are called in messages."""
        apart = "" if self.sliding else ", none over another"
        return f"pieces of {self.length} positions, {self.every} apart{apart}"


View = type[Batch] | Pieces  # what may be asked for


def view_name(view: View) -> str:
    """What a kind of batch is called in messages."""
    return view.name if isinstance(view, Pieces) else view.__name__


@dataclass(frozen=True)
class Views:
    """What one training step reads: views of the stream at one cursor."""

    # windows also where tokens were asked for, if the stream does not shuffle: their kept positions
    # in order are the tokens
    main: Tokens | Windows
    sides: Mapping[View, Batch] = field(default_factory=dict)  # by what was asked for


@dataclass(frozen=True)
class Cursor:
    """Where in a stream the next batch lies. Small and plain, so that a checkpoint can hold it."""

    epoch: int = 0
    block: int = 0  # shuffle-buffer load within the epoch
    batch: int = 0  # within the block


@dataclass(frozen=True)
class InputStats:
    """Statistics of the kept activations, estimated once at the start of the stream."""

    mean: "Tensor"  # [D]
    scale: float  # x * scale has mean squared norm 1
    n: int  # activations they were estimated from


class ActivationSource(Protocol):
    """A stream of batches that any number of readers share. A language model's activations and a
    world both are one.
    """

    @property
    def hook(self) -> Hook:
        """Where the model is read."""
        ...

    @property
    def d_in(self) -> int:
        """Width D of the activations."""
        ...

    @property
    def lm(self) -> "LanguageModel | None":
        """The model behind the stream; None where there is none, as in most worlds."""
        ...

    @property
    def stats(self) -> InputStats:
        """Mean and scale of the kept activations."""
        ...

    def missing(self, kind: View) -> str:
        """Why the stream has no batches of this kind, in one sentence; empty where it has."""
        ...

    def batches(
        self,
        main: type[Tokens] | type[Windows],
        start: Cursor,
        sides: Collection[View] = (),
    ) -> Iterator[tuple[Views, Cursor]]:
        """Batches from `start` on, without end, each with the cursor that follows it.

        Equal cursors, equal batches: a view does not depend on which others are asked for. How many
        batches lie between two loads of the shuffle buffer is that of `main`. Raises `ValueError`
        with the sentence of `missing`.
        """
        ...


def refuse_missing(source: ActivationSource, kinds: "Collection[View]") -> None:
    """Raise `ValueError` with the source's own sentence for the first kind of batch it lacks."""
    for kind in kinds:
        lack = source.missing(kind)
        if lack:
            raise ValueError(lack)


# What the parts may ask of each other -------------------------------------------------------------


@runtime_checkable
class LanguageModel(Protocol):
    """What terms and evaluations may ask of a language model, read at one hook. A synthetic world
    satisfies it too.
    """

    @property
    def hook(self) -> Hook:
        """Where the model is read."""
        ...

    @property
    def d_in(self) -> int:
        """Width D of the activations there."""
        ...

    def capture(self, tokens: "Tensor") -> "tuple[Tensor, Any]":
        """Token ids `[B, T]` -> activations `[B, T, D]` at the hook, and a state; stops there."""
        ...

    def resume(self, x: "Tensor", state: Any, since: int = 0) -> "Tensor":
        """Activations `[B, T, D]` at the hook -> logits `[B, T - since, V]` of positions `since`
        on; runs what is above.
        """
        ...

    def loss(self, logits: "Tensor", tokens: "Tensor") -> "Tensor":
        """Next-token cross-entropy `[B, T-1]`, nats; entry t is of predicting token t + 1."""
        ...


@runtime_checkable
class Dictionary(Protocol):
    """What evaluations see of an SAE, ours or imported, in the model's own units. What else it
    may know of its latents it says as `Structured`.
    """

    hook: Hook | None

    @property
    def directions(self) -> "Tensor":
        """Decoder rows `[L, D]`."""
        ...

    def encode(self, x: "Tensor") -> "Tensor":
        """Activations `[..., D]` -> non-negative codes `[..., L]`."""
        ...

    def decode(self, z: "Tensor") -> "Tensor":
        """Codes `[..., L]` -> reconstruction `[..., D]`."""
        ...


@dataclass(frozen=True)
class Structure:
    """What a dictionary knows of its own latents, where it knows anything."""

    blocks: Mapping[str, range] = field(default_factory=dict)  # latents that were trained apart
    tree: "Tensor | None" = None  # [coarse, fine] weights of the first latents, on the rest
    promotions: int | None = None  # latents that training moved into the first block
    encoder: "Tensor | None" = None  # [D, L] what the activations are multiplied by
    encoder_bias: "Tensor | None" = None  # [L]


@runtime_checkable
class Structured(Protocol):
    """A dictionary that can say how its latents are arranged and read."""

    @property
    def structure(self) -> Structure:
        """What it knows."""
        ...


def structure_of(dictionary: Dictionary) -> Structure:
    """What a dictionary knows of its own latents; nothing where it has no word for it."""
    return dictionary.structure if isinstance(dictionary, Structured) else Structure()


Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Score:
    """A reported number with its 95 % interval. `value` None: undefined, and `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0  # units the interval was taken over (documents, seeds)
    reason: str = ""


Schedule = Callable[[float], float]  # progress in [0, 1] -> value
Number = float | Schedule


def value_at(number: Number, progress: float) -> float:
    """A float-or-schedule at `progress` in [0, 1]."""
    return number(progress) if callable(number) else number
