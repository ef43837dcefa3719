"""Concepts: how well single latents, and a few, tell what is known about every token, beside what
needs no dictionary.

For every concept (`scope=method`) on held-out activations, by the methods of `metrics.METHOD`,
fitted on half of the files and scored on the other half. The best latent is that of the highest
AUROC on the training files, for F1 the latent and threshold of the highest F1. `k1` and `k5` are
sparse probes (SAEBench, Karvonen et al. 2025, 2503.09532, after Gurnee et al. 2023, 2305.01610).
The rule by the token alone counts all tokens of the training files, not only those in windows. What
is chosen for shuffled labels must be near an AUROC of 0.5.

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

from saelab.evals.common.auroc import Array
from saelab.evals.common.halves import embedded_labels, halves_of, holding, usable_concepts
from saelab.evals.common.reading import check_fits
from saelab.evals.concepts.latents import choose, mean_differences, sparse_codes, top_columns
from saelab.evals.concepts.scores import (
    QUALITIES,
    Counts,
    TestFiles,
    mean_over_concepts,
    metrics,
    probe_logits,
    resamples,
    token_rule,
    whitened,
)
from saelab.evals.result import Result, Table
from saelab.ground.held_out import HeldOut
from saelab.text.labels.labelled import Concept, TokenLabels
from saelab.types import Dictionary, Hook, Score

SPARSE = (1, 5)  # latents of the sparse probes
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


def prepare(held: HeldOut) -> ConceptData:
    """Label the held-out files of the embedded corpus and fit what needs no dictionary."""
    labels, facts = embedded_labels(held)
    return prepare_labelled(held, labels, facts=facts)


def prepare_labelled(
    held: HeldOut, labels: TokenLabels, *, facts: Mapping[str, Any] | None = None
) -> ConceptData:
    """The same on any labelled tokens and held-out windows that were cut from them.

    A token with an unknown label is left out. Raises `ValueError` when the windows show another
    text, there are fewer than two files, or no concept has 50 tokens with it and without it and 3
    files with it, in each half.
    """
    windows = [batch for batch, _ in held.batches]
    assert held.text is not None
    keep = torch.cat([batch.keep.cpu() for batch in windows])
    halves = halves_of(labels, held.text, keep)
    x = torch.cat([batch.flat.float().cpu() for batch in windows])[halves.rows]
    concepts, skipped = usable_concepts(labels, halves)
    holds, place, is_train = holding(labels, concepts), halves.place[halves.rows], halves.is_train
    test_file = halves.file[halves.test].unique(return_inverse=True)[1]
    files, y = TestFiles(is_train.numpy(), test_file.numpy()), holds[place].numpy()
    shuffled = _shuffled(y, files.train, torch.Generator().manual_seed(1))
    white = whitened(x, is_train)
    for_rule = halves.tokens_of_training_files(labels)
    rule = token_rule(
        labels.tokens[for_rule].numpy(), holds[for_rule].numpy(), labels.tokens[place].numpy()
    )
    references = {"token": _counts(files, rule, y)}
    for method, target in (("probe", y), ("probe_shuffled", shuffled)):
        logits = probe_logits(white, is_train, torch.from_numpy(target))
        references[method] = _counts(files, logits.numpy(), target)
    about = {
        **(facts or {}),
        "tokens": len(x),
        "train_tokens": int(is_train.sum()),
        "train_files": len(halves.file[halves.train].unique()),
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
    files, y, shuffled = data.files, data.y, data.shuffled
    codes = sparse_codes(dictionary, data.x)
    train = codes[files.train]
    best, best_f1 = choose(train, y[files.train])
    best_shuffled, _ = choose(train, shuffled[files.train])
    counts = {
        "best_latent": _counts(files, codes[:, best].toarray(), y, codes[:, best_f1].toarray()),
        "best_latent_shuffled": _counts(files, codes[:, best_shuffled].toarray(), shuffled),
    }
    difference = np.abs(mean_differences(train, y[files.train]))  # [L, C]
    for k in SPARSE:
        columns = top_columns(codes, difference, files.train, k)
        logits = probe_logits(columns, torch.from_numpy(files.train), torch.from_numpy(y))
        counts[f"k{k}"] = _counts(files, logits.numpy(), y)
    counts |= data.references
    weight = resamples(int(files.file.max()) + 1)
    values = {
        method: [metrics(count, weight) for count in of_concepts]
        for method, of_concepts in counts.items()
    }
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
                method: {quality: float(of_concepts[c][quality][0]) for quality in QUALITIES}
                for method, of_concepts in values.items()
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
    """Means over concepts with their intervals: `concepts_<quality>_<method>`, and the best
    latent's lead over the token.
    """
    samples = {  # each [C, 1 + R]
        f"{quality}_{method}": np.stack([qualities[quality] for qualities in of_concepts])
        for method, of_concepts in values.items()
        for quality in QUALITIES
    }
    samples |= {
        f"{quality}_above_token": samples[f"{quality}_best_latent"] - samples[f"{quality}_token"]
        for quality in ("auroc", "f1")
    }
    return {
        f"concepts_{name}": mean_over_concepts(sample, n_files) for name, sample in samples.items()
    }


def _shuffled(y: Array, train: Array, generator: torch.Generator) -> Array:
    shuffled = y.copy()
    for half in (train, ~train):
        rows = np.flatnonzero(half)
        shuffled[rows] = y[rows[torch.randperm(len(rows), generator=generator).numpy()]]
    return shuffled


def _counts(files: TestFiles, scores: Array, y: Array, for_f1: Array | None = None) -> list[Counts]:
    """The counts of every concept: scores and labels `[n, C]`; `for_f1`: other scores for F1."""
    for_f1 = scores if for_f1 is None else for_f1
    return [files.counts(scores[:, c], y[:, c], f1_score=for_f1[:, c]) for c in range(y.shape[1])]
