"""A held-out text in order, and the codes of one dictionary on it.

Documents are split in two halves: on one everything is fitted and chosen, in two folds, and on the
other it is scored. Legend: W windows | T positions | P = W T places in all windows, numbered window
after window | D width | L latents | l latents that were asked for.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelab.evals.common.auroc import Array
from saelab.evals.common.reading import kept_activations
from saelab.evals.concepts.latents import sparse_codes
from saelab.ground.held_out import HeldOut
from saelab.sae.smoothing import smooth
from saelab.text.labels.sets import parts_by_file
from saelab.types import Dictionary, LanguageModel, Windows

TEST = 2  # number of the fold that is scored; 0 and 1 are fitted on
SHARES = (0.25, 0.25, 0.5)  # of the tokens in each fold
MIN_DOCUMENTS = 4
PLACES_AT_ONCE = 1 << 13
SHIFTS = (1, 4, 16, 64)  # tokens put before a text
DECAY = 0.85  # of smoothed codes
ALIVE = 1e-3  # share of tokens on which a latent must fire


@dataclass(frozen=True, eq=False)
class Text:
    """Held-out windows with what does not depend on the dictionary."""

    lm: LanguageModel
    x: Tensor  # [W, T, D]
    y: Tensor  # [W, T, D] x less the mean at its position, over the documents that are fitted on
    tokens: Tensor  # [W, T]
    doc: Tensor  # [W, T] from 0
    keep: Tensor  # [W, T] bool
    fold: Tensor  # [W, T] 0, 1 or `TEST`; -1 where not kept
    order: Tensor  # [P] the places with the kept ones of the test documents permuted
    shifted: Mapping[int, Tensor]  # shift -> [n, D] at `last_places`, with less text before them

    @property
    def n_docs(self) -> int:
        return int(self.doc.max()) + 1

    def together(self, lag: int, windows: slice = slice(None)) -> Tensor:
        """Whether two positions are kept and of one document `[w, T - lag]`."""
        keep, doc = self.keep[windows], self.doc[windows]
        n = max(0, keep.shape[1] - lag)
        return keep[:, :n] & keep[:, lag:] & (doc[:, :n] == doc[:, lag:])

    def pairs(self, lag: int, *folds: int) -> tuple[Tensor, Tensor]:
        """Places `[n]` of tokens of these folds, and of those `lag` later in their documents."""
        n = max(0, self.keep.shape[1] - lag)
        fold = self.fold[:, :n]
        wanted = self.together(lag) & torch.isin(fold, torch.tensor(folds))
        row, column = wanted.nonzero(as_tuple=True)
        first = row * self.keep.shape[1] + column
        return first, first + lag

    def has(self, lag: int) -> bool:
        """Whether every fold has two tokens of one document so far apart."""
        return all(len(self.pairs(lag, fold)[0]) for fold in range(TEST + 1))

    def slices(self) -> Iterator[slice]:
        """All windows, a few at a time."""
        step = max(1, PLACES_AT_ONCE // self.keep.shape[1])
        return (slice(at, at + step) for at in range(0, len(self.keep), step))

    def smoothed(self, z: Tensor, windows: slice) -> Tensor:
        """Codes `[w, T, l]` of some windows, averaged over the past of their documents."""
        return smooth(z, DECAY, doc=self.doc[windows], keep=self.keep[windows])

    def sums(self, values: Tensor, places: Tensor) -> Tensor:
        """Sums by document `[docs, S]` of values `[n, S]` that lie at `places [n]`."""
        sums = torch.zeros(self.n_docs, values.shape[1], dtype=torch.double)
        return sums.index_add_(0, self.doc.flatten()[places], values.double())

    def last_places(self) -> Tensor:
        """Kept places `[n]` of the scored documents in the last quarter of a window."""
        context = self.keep.shape[1]
        late = torch.arange(context) >= context - max(1, context // 4)
        return ((self.fold == TEST) & late).flatten().nonzero().squeeze(1)


def text_of(held: HeldOut, *, seed: int = 0) -> Text:
    """The held-out windows of a model, with their shifted copies read anew.

    Raises `ValueError` for text without order (no two neighbouring tokens of one document), with
    fewer than four documents, or whose activations are not finite.
    """
    lm, windows = held.model, [batch for batch, _ in held.batches]
    kept_activations(windows, lm.hook)  # refuses what is empty or not finite
    x, tokens, doc, keep = (_joined(windows, name) for name in ("x", "tokens", "doc", "keep"))
    n_docs = len(doc[keep].unique())
    if n_docs < MIN_DOCUMENTS:
        raise ValueError(
            f"the held-out text has {n_docs} documents; give at least {MIN_DOCUMENTS}, two to fit "
            "on and two to score, or more windows of it"
        )
    fold = torch.full(doc.shape, -1)
    fold[keep] = parts_by_file(doc[keep], SHARES, seed=seed)
    fitted = ((fold == 0) | (fold == 1)).unsqueeze(2)
    mean = (x * fitted).sum(0) / fitted.sum(0).clamp_min(1)
    places = torch.arange(keep.numel())
    test = places[(fold == TEST).flatten()]
    generator = torch.Generator().manual_seed(seed)
    places[test] = test[torch.randperm(len(test), generator=generator)]
    number = doc.unique(return_inverse=True)[1]
    text = Text(lm, x, x - mean, tokens, number, keep, fold, places, {})
    if not text.has(1):
        raise ValueError(
            f"windows of {keep.shape[1]} have too few neighbouring tokens of one document: nothing "
            "is in order here; give longer documents, a larger context, or a hook whose "
            "activations come as windows"
        )
    shifts = [shift for shift in SHIFTS if shift <= keep.shape[1] // 2]
    return replace(text, shifted={shift: _shifted(text, windows, shift) for shift in shifts})


def _joined(windows: Sequence[Windows], name: str) -> Tensor:
    values = torch.cat([getattr(batch, name).cpu() for batch in windows])
    return values.float() if name == "x" else values


def _shifted(text: Text, windows: Sequence[Windows], shift: int) -> Tensor:
    """Activations `[n, D]` at `last_places`, of windows whose first `shift` tokens, after the very
    first, are left out.
    """
    tokens = (torch.cat([w.tokens[:, :1], w.tokens[:, 1 + shift :]], 1) for w in windows)
    x = torch.cat([text.lm.capture(shorter)[0].float().cpu() for shorter in tokens])
    whole = torch.nn.functional.pad(x, (0, 0, shift, 0))
    return whole.flatten(0, 1)[text.last_places()]


@dataclass(frozen=True, eq=False)
class Codes:
    """The codes of one dictionary on a text, only the active ones: 12 bytes each."""

    text: Text
    rows: Any  # scipy csr array [P, L], zero where not kept

    @cached_property
    def active(self) -> Any:
        """1 where a latent fires, csr `[P, L]`."""
        active = self.rows.copy()
        active.data = np.ones_like(active.data)
        return active

    @property
    def n_kept(self) -> int:
        return int(self.text.keep.sum())

    def spread(self, *folds: int) -> tuple[Array, Array]:
        """Mean and variance `[L]` over the tokens of these folds; the variance is 1 where it is 0,
        so that what is divided by it is 0.
        """
        places = torch.isin(self.text.fold, torch.tensor(folds)).flatten().numpy()
        rows, n = self.rows[places], int(places.sum())
        mean = rows.sum(0) / n
        variance = rows.multiply(rows).sum(0) / n - mean**2
        still = variance <= 1e-12 * np.maximum(mean**2, 1e-30)
        return mean, np.where(still, 1, variance)

    @property
    def mean(self) -> Array:
        """`[L]`, over all tokens."""
        return self._spread[0]

    @property
    def variance(self) -> Array:
        """`[L]`, over all tokens; 1 where it is 0."""
        return self._spread[1]

    @cached_property
    def _spread(self) -> tuple[Array, Array]:
        return self.spread(*range(TEST + 1))

    @cached_property
    def density(self) -> Array:
        """Share of the tokens `[L]` on which each latent fires."""
        return self.active.sum(0) / self.n_kept

    @cached_property
    def live(self) -> Array:
        """Numbers of the latents that fire on over one token in a thousand."""
        return np.flatnonzero(self.density > ALIVE)

    def of(self, latents: Array) -> "Codes":
        """The same of a few latents."""
        return Codes(self.text, self.rows[:, latents])

    def grid(self, windows: slice = slice(None)) -> Tensor:
        """Dense codes `[w, T, L]` of some windows."""
        context = self.text.keep.shape[1]
        first, last, _ = windows.indices(len(self.text.keep))
        rows = self.rows[first * context : last * context].toarray()
        return torch.from_numpy(rows).float().view(last - first, context, -1)


def codes_of(dictionary: Dictionary, text: Text) -> Codes:
    """What a dictionary says of every kept token."""
    from scipy.sparse import csr_array

    kept: Any = csr_array(sparse_codes(dictionary, text.x[text.keep]))
    count = np.zeros(text.keep.numel() + 1, dtype=kept.indptr.dtype)
    count[1:][text.keep.flatten().numpy()] = np.diff(kept.indptr)
    shape = (text.keep.numel(), kept.shape[1])
    data = (kept.data.astype(float), kept.indices, count.cumsum())
    return Codes(text, csr_array(data, shape=shape))
