"""Concepts: how well single latents, and a few, tell what is known about every token, beside what
needs no dictionary.

For every concept (`scope=method`) on held-out activations, fitted on half of the files and scored
on the other half:

- `best_latent`: the latent of the highest AUROC on the training files (for F1: the latent and
  threshold of the highest F1);
- `k1`, `k5`: logistic regression on the 1 or 5 latents of the largest difference of means (sparse
  probing, SAEBench, Karvonen et al. 2025, 2503.09532, after Gurnee et al. 2023, 2305.01610);
- `best_latent_shuffled`: the same choice with shuffled labels, which must be near an AUROC of 0.5;
- `token`: the concept's rate given the token id alone, from all tokens of the training files, not
  only those in windows;
- `probe`, `probe_shuffled`: logistic regression on the activation.

Each is a score per token, and has three metrics: AUROC; F1 and balanced accuracy at thresholds
chosen on the training files. AUROC and balanced accuracy (mean of both classes' recalls) do not
depend on how rare a concept is; F1 does. A score of the evaluation is the mean over concepts; its
95 % interval is a bootstrap over the test files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelab.evals.common.reading import check_fits
from saelab.evals.concepts.latents import (
    choose,
    column,
    mean_differences,
    sparse_codes,
    top_columns,
)
from saelab.evals.concepts.scores import (
    QUALITIES,
    Array,
    Counts,
    TestFiles,
    metrics,
    probe_logits,
    resamples,
    token_rule,
    whitening,
)
from saelab.evals.result import Result, Table
from saelab.ground.held_out import HeldOut
from saelab.runs import Source, WorldSource
from saelab.text.corpora import EMBEDDED
from saelab.text.labels.labelled import (
    Concept,
    TokenLabels,
    at_windows,
    label_tokens,
    missing_files,
    stdlib_labels,
)
from saelab.text.labels.sets import split_by_file
from saelab.types import Dictionary, Hook, Score

MIN_COUNT = 50  # tokens with and without the concept, in each half
MIN_FILES = 3  # files with the concept, in each half
SPARSE = (1, 5)  # latents of the sparse probes
BY_FILE = ("file",)  # families that name the split itself
OF_DICTIONARY = ("best_latent", "k1", "k5")
IN_TABLE = {  # method -> its column
    "best_latent": "best latent",
    "k1": "k=1",
    "k5": "k=5",
    "token": "token rule",
    "probe": "probe on x",
    "best_latent_shuffled": "shuffled",
}


@dataclass(frozen=True, eq=False)
class ConceptData:
    """Held-out activations, their labels, and what needs no dictionary."""

    x: Tensor  # [N, D]
    y: Array  # [N, C] bool
    shuffled: Array  # [N, C] bool, each half's labels in random order
    concepts: tuple[Concept, ...]
    files: TestFiles
    references: Mapping[str, list[Counts]]  # method -> a count per concept
    hook: Hook
    facts: Mapping[str, Any]


def missing(source: Source | WorldSource) -> list[str]:
    """Labels come from Python's grammar, so the text must be the embedded one."""
    if isinstance(source, Source) and source.corpus == EMBEDDED:
        return []
    return [
        f"labels are known for the corpus {EMBEDDED} only (labels from files: `prepare_labelled` "
        "in Python)"
    ]


def embedded_labels(held: HeldOut) -> tuple[TokenLabels, dict[str, Any]]:
    """Labels of the held-out files of the embedded corpus, and what is to be recorded of them."""
    lm: Any = held.model
    assert isinstance(held.source, Source) and held.text is not None
    labels = label_tokens(stdlib_labels(held.text.split, lm.tokenizer), lm.tokenizer)
    return labels, {
        "model": held.source.model,
        "corpus": held.source.corpus,
        "missing_files": list(missing_files() if held.source.model == "pylm" else ()),
        "unparsed": dict(labels.problems),
    }


def prepare(held: HeldOut) -> ConceptData:
    """Label the held-out files of the embedded corpus and fit what needs no dictionary."""
    labels, facts = embedded_labels(held)
    return prepare_labelled(held, labels, facts=facts)


def prepare_labelled(
    held: HeldOut,
    labels: TokenLabels,
    *,
    facts: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> ConceptData:
    """The same on any labelled tokens and held-out windows that were cut from them.

    A token with an unknown label is left out. Raises `ValueError` when the windows show another
    text, there are fewer than two files, or no concept has 50 tokens with it and without it and 3
    files with it, in each half.
    """
    captured = [w for w, _ in held.batches]
    assert held.text is not None
    place = at_windows(labels, held.text)[torch.cat([w.keep.cpu() for w in captured])]  # [N]
    x = torch.cat([w.flat.float().cpu() for w in captured])
    used = [i for i, family in enumerate(labels.families) if family.name not in BY_FILE]
    known = (place >= 0) & (labels.values[place.clamp(min=0)][:, used] >= 0).all(1)
    place, x = place[known], x[known]
    by_token = split_by_file(labels.file[place], seed=seed)  # [N]
    train_files = labels.file[place[by_token]].unique()
    for_rule = torch.isin(labels.file, train_files) & (labels.values[:, used] >= 0).all(1)
    files = TestFiles(
        by_token.numpy(), labels.file[place[~by_token]].unique(return_inverse=True)[1].numpy()
    )
    concepts, skipped = usable(labels, place, files)
    holds = torch.stack([labels.holds(concept) == 1 for concept in concepts], 1)  # [tokens, C]
    y, generator = holds[place].numpy(), torch.Generator().manual_seed(seed + 1)
    shuffled = _shuffled(y, files.train, generator)
    whitened = whitening(x[by_token])(x)
    rule = token_rule(
        labels.tokens[for_rule].numpy(), holds[for_rule].numpy(), labels.tokens[place].numpy()
    )
    references = {
        "token": _counts(files, rule, y),
        "probe": _counts(files, probe_logits(whitened, by_token, torch.from_numpy(y)).numpy(), y),
        "probe_shuffled": _counts(
            files, probe_logits(whitened, by_token, torch.from_numpy(shuffled)).numpy(), shuffled
        ),
    }
    about = {
        **(facts or {}),
        "tokens": len(x),
        "train_tokens": int(by_token.sum()),
        "train_files": len(train_files),
        "test_files": int(files.file.max()) + 1,
        "token_rule_tokens": int(for_rule.sum()),
        "skipped": skipped,
    }
    return ConceptData(x, y, shuffled, tuple(concepts), files, references, held.model.hook, about)


@torch.no_grad()
def measure(dictionary: Dictionary, data: ConceptData) -> Result:
    """Every method's qualities for every concept. Deterministic.

    Raises `ValueError` when the dictionary has another width or hook than the data.
    """
    check_fits(dictionary, data.x.shape[1], data.hook)
    codes = sparse_codes(dictionary, data.x)
    train = codes[data.files.train]
    best, best_f1 = choose(train, data.y[data.files.train])
    chosen_shuffled, _ = choose(train, data.shuffled[data.files.train])
    counts: dict[str, list[Counts]] = {
        "best_latent": [
            data.files.counts(column(codes, a), data.y[:, c], f1_score=column(codes, b))
            for c, (a, b) in enumerate(zip(best, best_f1, strict=True))
        ],
        "best_latent_shuffled": [
            data.files.counts(column(codes, a), data.shuffled[:, c])
            for c, a in enumerate(chosen_shuffled)
        ],
    }
    difference = np.abs(mean_differences(train, data.y[data.files.train]))  # [L, C]
    halves, y = torch.from_numpy(data.files.train), torch.from_numpy(data.y)
    for k in SPARSE:
        logits = probe_logits(top_columns(codes, difference, data.files.train, k), halves, y)
        counts[f"k{k}"] = _counts(data.files, logits.numpy(), data.y)
    counts |= data.references
    weight = resamples(int(data.files.file.max()) + 1)
    values = {name: [metrics(count, weight) for count in own] for name, own in counts.items()}
    rows = _rows(data, values, best, best_f1)
    facts = {**data.facts, "hook": data.hook.name, "n_latents": len(dictionary.directions)}
    return Result(
        _scores(values, weight.shape[1]),
        tables={"concepts": _table(rows)},
        details={"eval": "concepts", "facts": facts, "concepts": rows},
    )


def _rows(
    data: ConceptData,
    values: Mapping[str, Sequence[Mapping[str, Array]]],
    best: Array,
    best_f1: Array,
) -> list[dict[str, Any]]:
    """A row per concept: its latents, its counts, and the qualities of every method."""
    return [
        {
            "concept": concept.name,
            "family": concept.family,
            "latent": int(best[c]),
            "latent_f1": int(best_f1[c]),
            "share": float(data.y[:, c].mean()),
            "train": int(data.y[data.files.train, c].sum()),
            "test": int(data.y[~data.files.train, c].sum()),
            **{
                name: {quality: float(own[c][quality][0]) for quality in QUALITIES}
                for name, own in values.items()
            },
        }
        for c, concept in enumerate(data.concepts)
    ]


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """AUROC per concept, those first that single latents tell best beside the token alone."""
    lead = lambda row: row["token"]["auroc"] - row["best_latent"]["auroc"]  # noqa: E731
    return Table(
        "Concepts: AUROC on held-out files",
        ("concept", "share", *IN_TABLE.values(), "latent"),
        [
            (
                row["concept"],
                f"{row['share']:.1%}",
                *(row[method]["auroc"] for method in IN_TABLE),
                row["latent"],
            )
            for row in sorted(rows, key=lead)
        ],
        "Shuffled labels must give 0.5. A latent that tells a concept no better than the token "
        "rule shows little.",
    )


def _scores(values: Mapping[str, Sequence[Mapping[str, Array]]], n_files: int) -> dict[str, Score]:
    """Means over concepts with their intervals: `concepts_<metric>_<method>`, and the best latent's
    lead over the token.
    """
    # [C, 1 + R]
    means = {
        (m, name): np.stack([v[m] for v in each])
        for name, each in values.items()
        for m in QUALITIES
    }
    scores = {}
    for (metric, name), each in means.items():
        scores[f"concepts_{metric}_{name}"] = _mean(each, n_files)
    for metric in ("auroc", "f1"):
        lead = means[metric, "best_latent"] - means[metric, "token"]
        scores[f"concepts_{metric}_above_token"] = _mean(lead, n_files)
    return scores


def _mean(each: Array, n_files: int) -> Score:
    """Mean over the concepts that are defined on a resample; `each [C, 1 + R]`, the whole sample
    first.
    """
    there = np.isfinite(each)
    mean = np.where(there, each, 0).sum(0) / np.maximum(there.sum(0), 1)
    low, high = np.quantile(mean[1:], (0.025, 0.975))
    return Score(float(mean[0]), float(low), float(high), n_files)


def usable(
    labels: TokenLabels, place: Tensor, files: TestFiles
) -> tuple[list[Concept], dict[str, str]]:
    """Concepts with enough tokens and files in both halves, each set of tokens once; and the
    others, with the reason.
    """
    file = labels.file[place].numpy()
    found: dict[bytes, Concept] = {}
    skipped: dict[str, str] = {}
    for concept in labels.concepts():
        if concept.family in BY_FILE:
            continue
        y = labels.holds(concept)[place].numpy() == 1
        key = np.packbits(y).tobytes()
        enough = all(
            min(y[half].sum(), (~y[half]).sum()) >= MIN_COUNT
            and len(np.unique(file[half & y])) >= MIN_FILES
            for half in (files.train, ~files.train)
        )
        if not enough:
            skipped[concept.name] = "too few tokens or files"
        elif key in found:
            skipped[concept.name] = f"the same tokens as {found[key].name}"
        else:
            found[key] = concept
    if not found:
        raise ValueError(
            f"no concept has {MIN_COUNT} tokens and {MIN_FILES} files in each half of "
            f"{len(place):,} tokens; "
            "evaluate more windows"
        )
    return list(found.values()), skipped


def _shuffled(y: Array, train: Array, generator: torch.Generator) -> Array:
    shuffled = y.copy()
    for half in (train, ~train):
        rows = np.flatnonzero(half)
        shuffled[rows] = y[rows[torch.randperm(len(rows), generator=generator).numpy()]]
    return shuffled


def _counts(files: TestFiles, scores: Array, y: Array) -> list[Counts]:
    return [files.counts(scores[:, c], y[:, c]) for c in range(y.shape[1])]
