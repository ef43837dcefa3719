"""Held-out tokens that are labelled, with whole files either to fit on or to test on.

Legend: W windows | T positions | N kept positions | n those of them that are fully labelled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from saelab.ground.held_out import HeldOut
    from saelab.runs import Source, WorldSource
    from saelab.text.labels.labelled import Concept, TokenLabels
    from saelab.text.windows import TokenWindows

MIN_COUNT = 50  # tokens with and without the concept, in each half
MIN_FILES = 3  # files with the concept, in each half
BY_FILE = ("file",)  # families that name the split itself


def needs_labels(source: "Source | WorldSource") -> list[str]:
    """For an evaluation that reads labels of tokens: they come from Python's grammar, so the text
    must be the embedded one.
    """
    from saelab.text.corpora import EMBEDDED_CORPUS

    if source.corpus == EMBEDDED_CORPUS:
        return []
    return [
        f"labels are known for the corpus {EMBEDDED_CORPUS} only (labels from files: "
        "`prepare_labelled` in Python)"
    ]


def embedded_labels(held: "HeldOut") -> tuple["TokenLabels", dict[str, Any]]:
    """Labels of the held-out files of the embedded corpus, and what is to be recorded of them."""
    from saelab.text.labels.labelled import label_tokens, missing_files, stdlib_labels

    lm: Any = held.model
    assert held.text is not None
    source = cast("Source", held.source)
    labels = label_tokens(stdlib_labels(held.text.split, lm.tokenizer), lm.tokenizer)
    return labels, {
        "model": source.model,
        "corpus": source.corpus,
        "missing_files": list(missing_files() if source.model == "pylm" else ()),
        "unparsed": dict(labels.problems),
    }


@dataclass(frozen=True, eq=False)
class Halves:
    """The fully labelled positions of a text, each file in one half: to fit on or to test on."""

    place: Tensor  # [N] number of each position among the labelled tokens, -1 where it has none
    file: Tensor  # [N] number of its file, -1 where a label is unknown
    rows: Tensor  # [n] positions whose labels are all known, in the order of the text
    is_train: Tensor  # [n] bool: of the training files

    @property
    def train(self) -> Tensor:
        """Positions of the training files, in the order of the text."""
        return self.rows[self.is_train]

    @property
    def test(self) -> Tensor:
        """Positions of the test files, in the order of the text."""
        return self.rows[~self.is_train]

    def tokens_of_training_files(self, labels: "TokenLabels") -> Tensor:
        """Whether each labelled token `[tokens]` is of a training file and fully labelled, be it in
        a window or not.
        """
        return fully_labelled(labels) & torch.isin(labels.file, self.file[self.train].unique())


def halves_of(labels: "TokenLabels", windows: "TokenWindows", keep: Tensor) -> Halves:
    """Split the positions of the windows that are kept `[W, T]` and fully labelled by file.

    Raises `ValueError` when the windows show another text than the labels, or there are fewer than
    two files.
    """
    from saelab.text.labels.labelled import at_windows
    from saelab.text.labels.sets import split_by_file

    place = at_windows(labels, windows)[keep]
    rows = ((place >= 0) & fully_labelled(labels)[place.clamp(min=0)]).nonzero().squeeze(1)
    file = torch.full((len(place),), -1)
    file[rows] = labels.file[place[rows]]
    return Halves(place, file, rows, split_by_file(file[rows]))


def fully_labelled(labels: "TokenLabels") -> Tensor:
    """Tokens `[tokens]` whose labels are all known, but for the families that name the file."""
    used = [i for i, family in enumerate(labels.families) if family.name not in BY_FILE]
    return (labels.values[:, used] >= 0).all(1)


def usable_concepts(
    labels: "TokenLabels", halves: Halves, concepts: "Sequence[Concept] | None" = None
) -> tuple[list["Concept"], dict[str, str]]:
    """Of these concepts, or of all that the labels know, those with enough tokens and files in both
    halves, each set of tokens once; and of the others, why they are left out.

    Raises `ValueError` when no concept is left.
    """
    place, file = halves.place[halves.rows], halves.file[halves.rows].numpy()
    train = halves.is_train.numpy()
    usable: dict[bytes, Concept] = {}
    skipped: dict[str, str] = {}
    for concept in labels.concepts() if concepts is None else concepts:
        if concept.family in BY_FILE:
            continue
        y = labels.holds(concept)[place].numpy() == 1
        key = np.packbits(y).tobytes()
        enough = all(
            min(y[half].sum(), (~y[half]).sum()) >= MIN_COUNT
            and len(np.unique(file[half & y])) >= MIN_FILES
            for half in (train, ~train)
        )
        if not enough:
            skipped[concept.name] = "too few tokens or files"
        elif key in usable:
            skipped[concept.name] = f"the same tokens as {usable[key].name}"
        else:
            usable[key] = concept
    if not usable:
        raise ValueError(
            f"no concept has {MIN_COUNT} tokens and {MIN_FILES} files in each half of "
            f"{len(place):,} tokens; "
            "evaluate more windows"
        )
    return list(usable.values()), skipped


def holding(labels: "TokenLabels", concepts: list["Concept"]) -> Tensor:
    """Whether each labelled token has each of C concepts, `[tokens, C]` bool."""
    return torch.stack([labels.holds(concept) == 1 for concept in concepts], 1)
