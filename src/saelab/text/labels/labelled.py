"""Labelled text -> labelled tokens: one interface for labels that Python's grammar gives and labels
from files.

A `LabelledCorpus` holds texts with a label of every character, in one column per family (token
type, scope, ...); its makers are `stdlib_labels` here and `labels.files.read_labels`. A token takes
the label of its first character that is not blank. What a causal language model cannot know (that
an identifier will be called, before its bracket) is labelled all the same. -1 stands for unknown
everywhere. Every split goes by file: neighbouring tokens share nearly everything.
"""

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelab.runs import Source
from saelab.store import read_json
from saelab.text.corpora import EMBEDDED_CORPUS, read_documents
from saelab.text.labels.python import FAMILIES, VALUES, python_labels
from saelab.text.stdlib import Split, stdlib_corpus
from saelab.text.windows import TokenWindows, split_documents, start_token

TOP_LEVEL = "top level"  # module family of a file outside every package
REMAINDER = ("no", "none")  # values that say a thing is absent: no concept of their own
# constant over many tokens
SLOW = ("file", "module_family", "scope", "in_docstring", "indentation")
FAST = ("token_type", "role")  # change from token to token
FACTS = Path(__file__).parents[2] / "lm" / "pylm" / "weights" / "facts.json"


@dataclass(frozen=True)
class Family:
    """One column of labels: its name and what its numbers mean."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Concept:
    """A yes-or-no question about a token: does the family have one of these values?"""

    family: str
    values: tuple[str, ...]

    @property
    def name(self) -> str:
        """`scope=method`."""
        return f"{self.family}={'|'.join(self.values)}"


_NAME = Concept("token_type", ("name",))
_CALLED = Concept("role", ("call", "builtin_call", "method_call"))
_BOUND = Concept("role", ("function_name", "class_name", "parameter", "store"))
HIERARCHY: tuple[tuple[Concept, Concept], ...] = (
    (Concept("in_string", ("yes",)), Concept("in_docstring", ("yes",))),
    (_NAME, _CALLED),
    (_CALLED, Concept("role", ("builtin_call",))),
    (_CALLED, Concept("role", ("method_call",))),
    (_NAME, _BOUND),
    (_BOUND, Concept("role", ("function_name",))),
    (_BOUND, Concept("role", ("class_name",))),
    (Concept("token_type", ("op", "bracket")), Concept("token_type", ("bracket",))),
    (Concept("scope", ("function", "method")), Concept("scope", ("method",))),
    (Concept("construct", ("dict", "list", "set", "tuple")), Concept("construct", ("dict",))),
)
"""(parent, child): wherever the child holds, the parent holds, in Python source."""


@dataclass(frozen=True, eq=False)
class LabelledText:
    """A text with the labels of its characters."""

    name: str  # of its file: what splits go by
    text: str
    labels: np.ndarray  # [characters, C] int16
    problem: str = ""  # why it has no labels, if it has none


@dataclass(frozen=True, eq=False)
class LabelledCorpus:
    """Labelled texts and the families that their columns belong to."""

    families: tuple[Family, ...]
    texts: tuple[LabelledText, ...]

    @property
    def problems(self) -> dict[str, str]:
        """Texts without labels by name, each with the reason."""
        return {text.name: text.problem for text in self.texts if text.problem}


@dataclass(frozen=True, eq=False)
class TokenLabels:
    """The tokens of a labelled corpus, text after text."""

    families: tuple[Family, ...]
    values: Tensor  # [N, C] int16
    tokens: Tensor  # [N] token ids
    doc: Tensor  # [N] number of the text
    names: tuple[str, ...]  # of the texts
    problems: Mapping[str, str]  # texts without labels, and why

    @property
    def file(self) -> Tensor:
        """Number of the file `[N]`: texts of one name share it."""
        numbers = {name: i for i, name in enumerate(dict.fromkeys(self.names))}
        return torch.tensor([numbers[name] for name in self.names])[self.doc]

    def column(self, family: str) -> int:
        """The place of a family. Raises `ValueError` for an unknown one."""
        names = [f.name for f in self.families]
        if family not in names:
            raise ValueError(f"no label family {family!r}; there are {', '.join(names)}")
        return names.index(family)

    def of(self, family: str) -> Tensor:
        """The numbers `[N]` of one family's values."""
        return self.values[:, self.column(family)]

    def counts(self, family: str) -> dict[str, int]:
        """Tokens per value."""
        values, numbers = self.families[self.column(family)].values, self.of(family)
        counts = numbers[numbers >= 0].long().bincount(minlength=len(values))
        return dict(zip(values, counts.tolist(), strict=True))

    def holds(self, concept: Concept) -> Tensor:
        """Whether a concept holds, `[N]`: 1, 0, or -1 where the label is unknown. Raises
        `ValueError` for unknown names.
        """
        values = self.families[self.column(concept.family)].values
        if missing := [value for value in concept.values if value not in values]:
            raise ValueError(
                f"family {concept.family} has no value {missing[0]!r}; it has {', '.join(values)}"
            )
        numbers = self.of(concept.family)
        wanted = torch.tensor([values.index(value) for value in concept.values])
        return torch.where(numbers < 0, -1, torch.isin(numbers, wanted).long())

    def concepts(self) -> list[Concept]:
        """One concept for every value of every family, but those that only say that something is
        absent.
        """
        return [
            Concept(f.name, (value,))
            for f in self.families
            for value in f.values
            if value not in REMAINDER
        ]


def stdlib_labels(split: Split, tokenizer: Any, documents: int | None = None) -> LabelledCorpus:
    """The embedded corpus with the labels that `tokenize` and `ast` give, in the order in which
    windows number its files.

    Families: those of `labels.python`, the module family (the first folder of the path) and the
    file. A file that this Python cannot parse keeps the last two and is named in `problems`.
    `documents`: label the first so many only.
    """
    corpus = read_documents(Source(corpus=EMBEDDED_CORPUS), split)
    pieces = list(itertools.islice(split_documents(corpus, tokenizer), documents))
    files = tuple(dict.fromkeys(name for name, _ in pieces))
    modules = tuple(sorted({_module_family(name) for name in files}))
    texts = []
    for name, text in pieces:
        labels, problem = np.full((len(text), len(FAMILIES) + 2), -1, np.int16), ""
        try:
            labels[:, :-2] = python_labels(text)
        except ValueError as error:
            problem = str(error)
        labels[:, -2:] = modules.index(_module_family(name)), files.index(name)
        texts.append(LabelledText(name, text, labels, problem))
    values = {**VALUES, "module_family": modules, "file": files}
    return LabelledCorpus(
        tuple(Family(name, words) for name, words in values.items()), tuple(texts)
    )


def missing_files() -> tuple[str, ...]:
    """Held-out files of the embedded model that the running Python's library lacks, such as its
    tests.
    """
    here = {file.path for file in stdlib_corpus().held_out}
    return tuple(path for path in read_json(FACTS)["held_out_paths"] if path not in here)


def _module_family(path: str) -> str:
    return path.split("/")[0] if "/" in path else TOP_LEVEL


def label_tokens(corpus: LabelledCorpus, tokenizer: Any) -> TokenLabels:
    """Tokenise a labelled corpus; a token takes the label of its first character that is not blank.

    Raises `ValueError` for a tokenizer that does not say where its tokens lie in the text (a slow
    one).
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            "labels need to know where a token lies in its text: give a fast tokenizer "
            "(PreTrainedTokenizerFast)"
        )
    tokens, values, doc, names = [], [], [], []
    for text in corpus.texts:
        coded = tokenizer(
            text.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        if coded["input_ids"]:
            tokens.append(np.array(coded["input_ids"], np.int32))
            values.append(text.labels[_deciding(text.text, np.array(coded["offset_mapping"]))])
            doc.append(np.full(len(tokens[-1]), len(names), np.int32))
            names.append(text.name)
    if not tokens:
        raise ValueError("the labelled corpus has no tokens: every text is empty")
    columns = (torch.from_numpy(np.concatenate(parts)) for parts in (values, tokens, doc))
    return TokenLabels(corpus.families, *columns, names=tuple(names), problems=corpus.problems)


def _deciding(text: str, spans: np.ndarray) -> np.ndarray:
    """The character `[n]` that decides on the label of the tokens at `spans [n, 2]`: the first that
    is no space or tab.
    """
    blank = np.array([c in " \t" for c in text] + [False])
    solid = np.where(blank, len(text), np.arange(len(text) + 1))
    following = np.minimum.accumulate(solid[::-1])[::-1]  # the next place that is not blank
    last = np.maximum(spans[:, 1] - 1, spans[:, 0])  # of an all-blank token its last character
    return np.minimum(np.minimum(following[spans[:, 0]], last), len(text) - 1)


def at_windows(labels: TokenLabels, windows: TokenWindows) -> Tensor:
    """The number `[W, T]` of each window position among the labelled tokens; -1 at separators.

    Raises `ValueError` when the windows were cut from another text or by another tokenizer.
    """
    # [docs]
    first = torch.searchsorted(labels.doc, torch.arange(len(labels.names), dtype=labels.doc.dtype))
    text = (windows.at >= 0) & (windows.doc < len(first))
    place = torch.where(text, first[windows.doc.clamp(max=len(first) - 1).long()] + windows.at, -1)
    at = place.clamp(0, len(labels.tokens) - 1)
    if (place >= len(labels.tokens)).any() or not torch.equal(
        labels.tokens[at][text], windows.tokens[text]
    ):
        raise ValueError(
            "the windows do not show the labelled text: label the same documents with the same "
            "tokenizer"
        )
    return place


def labelled_windows(labels: TokenLabels, tokenizer: Any, *, context: int) -> TokenWindows:
    """Windows of a labelled corpus, every text from a window of its own on; short ones are filled
    up, `keep` is False there.

    For texts that are labelled as a whole: the model sees nothing of the text before. Raises
    `ValueError` for a context under 2.
    """
    if context < 2:
        raise ValueError(
            f"context is {context}; a window needs at least 2 tokens, the first is the separator"
        )
    start, start_id = start_token(tokenizer)
    front = int(start_id is not None)
    rows: list[np.ndarray] = []
    for places in torch.arange(len(labels.doc)).split(labels.doc.bincount().tolist()):
        for shown in places.split(context - front):
            filling = (front, context - front - len(shown))
            rows.append(np.pad(shown.numpy(), filling, constant_values=-1))
    place = torch.from_numpy(np.stack(rows))  # [W, T]
    keep, at = place >= 0, place.clamp(min=0)
    doc = labels.doc[at[:, front]].unsqueeze(1).expand_as(place)
    first = torch.searchsorted(labels.doc, doc.contiguous())
    return TokenWindows(
        tokens=torch.where(keep, labels.tokens[at], start_id or 0).int(),
        doc=doc.int(),
        pos=torch.arange(context).expand_as(place),
        at=torch.where(keep, at - first, -1).int(),
        keep=keep,
        split="held_out",
        corpus_hash=hashlib.sha256(labels.tokens.numpy().tobytes()).hexdigest()[:16],
        n_documents=len(labels.names),
        n_tokens=len(labels.tokens),
        start=start,
        names=labels.names,
        dropped={"separator and filling": float((~keep).double().mean())},
    )
