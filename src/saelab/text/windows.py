"""Text -> packed windows of token ids that keep, for every token, its document and its position.

Documents are joined, each after a separator, and cut into windows of `context` tokens. Separator
and first token of every window are BOS where the tokenizer has one, else EOS, else there is none
(`TokenWindows.start` records which). A document is held out when a hash of its number and text is 0
modulo 20; of a corpus with fewer than 200 documents the last 5 % of the tokens are held out
instead. Memory: 13 bytes per token.
"""

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelab.runs import Source
from saelab.text.corpora import EMBEDDED_CORPUS, MARK, Document, corpus_hash, read_documents
from saelab.text.stdlib import HELD_OUT_ONE_IN, Split

FEW_DOCUMENTS = 200
SPREAD = 8  # windows are spread over up to this many times the text they cover ...
SPREAD_TOKENS = 4_000_000  # ... as long as no more tokens than this are read for it
AT_ONCE = 64  # documents tokenised together


@dataclass(frozen=True, eq=False)
class TokenWindows:
    """Packed windows of one split of a corpus."""

    tokens: Tensor  # [W, T] int32
    # [W, T] int32, number of the document; a separator belongs to the document it opens
    doc: Tensor
    pos: Tensor  # [W, T] position in the window
    at: Tensor  # [W, T] int32, number of the token in its document; -1: bos, separator
    keep: Tensor  # [W, T] bool, False for bos, eos and pad
    split: Split
    corpus_hash: str
    n_documents: int  # documents read
    n_tokens: int  # tokens of text read, separators not counted
    start: str  # what windows and documents begin with: bos, eos or none
    names: tuple[str, ...]  # of the documents, where they have names
    dropped: dict[str, float]  # share of all positions left out as bos, eos, pad

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def context(self) -> int:
        """Tokens per window, T."""
        return self.tokens.shape[1]

    @property
    def n_kept(self) -> int:
        """Positions that count."""
        return int(self.keep.sum())

    @property
    def hash(self) -> str:
        """sha256 of the token ids: equal windows, equal hash."""
        return hashlib.sha256(self.tokens.numpy().tobytes()).hexdigest()[:16]


def load_windows(source: Source, lm: Any, split: Split) -> TokenWindows:
    """Windows of one split, as many as `source` asks for, spread evenly over up to 8 times the text
    they cover.

    Documents differ in length by orders of magnitude: a run of neighbouring ones is a poor sample
    of a corpus.

    `lm` is an `HFModel` or its tokenizer. No more text is tokenised than needed. Raises
    `ValueError` naming the corpus and the numbers when the text is shorter than one window (or two,
    where both splits come from one text).
    """
    tokenizer = getattr(lm, "tokenizer", lm)
    start, start_id = start_token(tokenizer)
    wanted = _windows_wanted(source, split)
    need = max(wanted * source.context, min(SPREAD * wanted * source.context, SPREAD_TOKENS))
    documents, few = _documents(source, split)
    ids, doc, names = _tokenise(documents, tokenizer, start_id, None if few else need)
    at = np.arange(len(ids)) - np.searchsorted(doc, doc) - (start_id is not None)
    if few:
        share = _share(len(ids), source, split, need)
        ids, doc, at = ids[share], doc[share], at[share]
    # [W, T] indices, -1 for the first token of a window
    windows = _cut(ids, source.context, start_id)
    if not len(windows):
        raise ValueError(
            f"corpus {source.corpus}: its {split.replace('_', '-')} text has {len(ids):,} tokens, "
            f"fewer than one window of {source.context}; give a longer text or a smaller context"
        )
    windows = windows[
        np.linspace(0, len(windows) - 1, min(wanted, len(windows))).round().astype(int)
    ]
    tokens = np.where(windows < 0, start_id if start_id is not None else 0, ids[windows])
    # BOS belongs to what follows
    numbers = np.where(windows < 0, np.roll(doc[windows], -1, 1), doc[windows])
    dropped, keep = hygiene(tokens, special_ids(tokenizer))
    return TokenWindows(
        tokens=torch.from_numpy(tokens.astype(np.int32)),
        doc=torch.from_numpy(numbers.astype(np.int32)),
        pos=torch.arange(source.context).expand(len(windows), -1),
        at=torch.from_numpy(np.where(windows < 0, -1, at[windows]).astype(np.int32)),
        keep=torch.from_numpy(keep),
        split=split,
        corpus_hash=corpus_hash(source),
        n_documents=len(np.unique(doc)),
        n_tokens=int((ids != start_id).sum()) if start_id is not None else len(ids),
        start=start,
        names=tuple(names) if any(names) else (),
        dropped=dropped,
    )


def split_documents(documents: Iterable[Document], tokenizer: Any) -> Iterator[tuple[str, str]]:
    """Name and text of what windows count as documents, in the order of their numbers
    `TokenWindows.doc`.

    A special token's own text inside a document separates documents: it must not become a token
    that hygiene would keep.
    """
    marks = re.compile(
        "|".join(
            re.escape(mark)
            for mark in sorted({MARK, *tokenizer.all_special_tokens}, key=len, reverse=True)
        )
    )
    return ((d.name, text) for d in documents for text in marks.split(d.text) if text.strip())


def start_token(tokenizer: Any) -> tuple[str, int | None]:
    """What windows begin with, and its id: bos, else eos, else none."""
    ids = special_ids(tokenizer)
    return next(((name, ids[name]) for name in ("bos", "eos") if name in ids), ("none", None))


def special_ids(tokenizer: Any) -> dict[str, int]:
    """The ids of bos, eos and pad, those that the tokenizer has; 0 is an id."""
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return {name: token_id for name, token_id in ids.items() if token_id is not None}


def _windows_wanted(source: Source, split: Split) -> int:
    """Windows of a split; for training with room for what the last partial batch of each buffer
    load leaves over.
    """
    if split == "held_out":
        return source.eval_windows
    kept = source.steps * source.batch * (1 + source.batch / source.buffer) + source.buffer
    return math.ceil(kept / max(source.context - 1, 1))


def _documents(source: Source, split: Split) -> tuple[Iterator[Document], bool]:
    """The documents of a split, or (True) all documents of a corpus too small to be split by
    document.
    """
    if source.corpus == EMBEDDED_CORPUS:
        return read_documents(source, split), False
    everything = read_documents(source)
    first = list(itertools.islice(everything, FEW_DOCUMENTS))
    if len(first) < FEW_DOCUMENTS:
        return iter(first), True
    wanted = split == "held_out"
    return (
        d for d in itertools.chain(first, everything) if (d.hash % HELD_OUT_ONE_IN == 0) == wanted
    ), False


def _tokenise(
    documents: Iterator[Document], tokenizer: Any, start_id: int | None, need: int | None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Ids and document numbers of the joined text (each document after its separator), and the
    documents' names.
    """
    pieces = split_documents(documents, tokenizer)
    prefix = [] if start_id is None else [start_id]
    texts: list[np.ndarray] = []
    names: list[str] = []
    count = 0
    while (need is None or count < need) and (batch := list(itertools.islice(pieces, AT_ONCE))):
        encoded = tokenizer(
            [text for _, text in batch],
            add_special_tokens=False,
            return_attention_mask=False,
            verbose=False,
        )
        for (name, _), ids in zip(batch, encoded["input_ids"], strict=True):
            if ids:
                names.append(name)
                texts.append(np.array(prefix + ids, np.int32))
                count += len(texts[-1])
    doc = np.repeat(np.arange(len(texts), dtype=np.int32), [len(text) for text in texts])
    return np.concatenate([np.zeros(0, np.int32), *texts]), doc, names


def _share(n_tokens: int, source: Source, split: Split, need: int) -> slice:
    """The last 5 % of a short text (at least one window) are held out, the rest is for training."""
    if n_tokens < 2 * source.context:
        raise ValueError(
            f"corpus {source.corpus} has {n_tokens:,} tokens, fewer than two windows of "
            f"{source.context}: "
            "one to train on and one held out; give a longer text or a smaller context"
        )
    cut = n_tokens - max(n_tokens // HELD_OUT_ONE_IN, source.context + 1)
    return slice(cut, None) if split == "held_out" else slice(min(cut, need))


def _cut(ids: np.ndarray, context: int, start_id: int | None) -> np.ndarray:
    """Indices `[W, T]` into `ids`; -1 is the start token put in front. A separator there is not
    doubled.
    """
    if start_id is None:
        count = len(ids) // context
        return np.arange(count * context).reshape(count, context)
    rows: list[int] = []
    i = 0
    while True:
        i += bool(i < len(ids) and ids[i] == start_id)
        if i + context - 1 > len(ids):
            break
        rows.append(i)
        i += context - 1
    indices = np.array(rows, int)[:, None] + np.arange(-1, context - 1)  # [W, T]
    indices[:, 0] = -1
    return indices


def hygiene(tokens: np.ndarray, special: dict[str, int]) -> tuple[dict[str, float], np.ndarray]:
    """Share of positions left out by reason (an id with two roles counts for the first), and what
    is kept `[W, T]`.
    """
    keep = np.ones(tokens.shape, bool)
    dropped: dict[str, float] = {}
    for name, token_id in special.items():
        hit = (tokens == token_id) & keep
        dropped[name] = float(hit.mean())
        keep &= ~hit
    return dropped, keep
