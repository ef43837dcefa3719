"""Do latents tell what lasts along a text, beside what changes from token to token?

Labels are fixed beforehand and come from Python's grammar. Everything is fitted and chosen on half
of the files and scored on the other. Legend: n labelled tokens | L latents | C labels | P places.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelab.evals.common.auroc import Array
from saelab.evals.common.halves import halves_of, holding, usable_concepts
from saelab.evals.concepts.latents import mean_differences, top_columns
from saelab.evals.concepts.scores import (
    Counts,
    TestFiles,
    mean_over_concepts,
    metrics,
    probe_logits,
    resamples,
)
from saelab.evals.result import Table
from saelab.evals.temporal.metrics import PROBES, SPEEDS
from saelab.evals.temporal.text import Codes
from saelab.text.labels.labelled import REMAINDER, Concept, TokenLabels
from saelab.text.windows import TokenWindows
from saelab.types import Score

FEW = {"k4": 4, "k16": 16}
LATENTS_AT_ONCE = 128
DEPTHS = ("2", "3", "4+")  # open brackets
SMOOTHED = "slow_latent_smoothed"
SLOW = (
    Concept("in_docstring", ("yes",)),
    Concept("in_comment", ("yes",)),
    *(Concept("scope", (value,)) for value in ("module", "class", "function", "method")),
    Concept("indentation", ("3", "4", "5", "6+")),
    Concept("indentation", ("0",)),
)
FAST_FAMILIES = ("token_type", "role")
LASTING = ("docstring", "comment")  # values of the token's type that are slow labels too


@dataclass(frozen=True, eq=False)
class Labels:
    """Labelled tokens of the text."""

    places: Array  # [n] of P
    y: Array  # [n, C] bool
    concepts: tuple[Concept, ...]
    slow: Array  # [C] bool
    files: TestFiles


def labels_of(labels: TokenLabels, windows: TokenWindows, keep: Tensor) -> Labels:
    """The labels of Python source that are slow or fast, where they are on enough tokens and files
    of both halves. Raises `ValueError` where none is, or the windows show another text.
    """
    halves = halves_of(labels, windows, keep)
    concepts, _ = usable_concepts(labels, halves, (*SLOW, *_fast(labels)))
    y = holding(labels, concepts)[halves.place[halves.rows]].numpy()
    test_file = halves.file[halves.test].unique(return_inverse=True)[1]
    return Labels(
        keep.flatten().nonzero().squeeze(1)[halves.rows].numpy(),
        y,
        tuple(concepts),
        np.array([concept in SLOW for concept in concepts]),
        TestFiles(halves.is_train.numpy(), test_file.numpy()),
    )


def _fast(labels: TokenLabels) -> list[Concept]:
    of_tokens = [
        Concept(family.name, (value,))
        for family in labels.families
        if family.name in FAST_FAMILIES
        for value in family.values
        if value not in (*REMAINDER, *LASTING)
    ]
    return [*of_tokens, Concept("brackets", DEPTHS)]


def unlabelled(reason: str) -> dict[str, Score]:
    """Every score of this file where a text has no labels."""
    keys = [f"{speed}_{probe}{end}" for speed in SPEEDS for probe in PROBES for end in ENDS]
    return dict.fromkeys([*keys, SMOOTHED], Score(None, reason=reason))


ENDS = ("", "_block")  # of keys: of the whole dictionary, of its block


def probes(codes: Codes, labels: Labels, block: Array) -> tuple[dict[str, Score], Table]:
    """The scores of single latents and sparse probes, and all of them by label."""
    from scipy.sparse import csc_array

    z: Any = csc_array(codes.rows[labels.places])
    whole = np.arange(z.shape[1])
    weight = resamples(int(labels.files.file.max()) + 1)
    samples: dict[str, Array] = {}  # probe and end -> [C, 1 + R]
    for end, latents in zip(ENDS, (whole, block), strict=True):
        for probe, counts in _counts(z[:, latents], labels).items():
            quality = "auroc" if probe in FEW else "accuracy"
            samples[probe + end] = np.stack([metrics(count, weight)[quality] for count in counts])
    smoothed = _smoothed_latents(codes, labels)
    n_files = weight.shape[1]
    scores = {
        f"{speed}_{key}": _mean(sample[labels.slow == (speed == "slow")], n_files, speed)
        for speed in SPEEDS
        for key, sample in samples.items()
    }
    sample = np.stack([metrics(count, weight)["auroc"] for count in smoothed])
    scores[SMOOTHED] = _mean(sample[labels.slow], n_files, "slow")
    return scores, _table(labels, samples | {"smoothed": sample})


def _mean(sample: Array, n_files: int, speed: str) -> Score:
    if not len(sample):
        reason = f"no {speed} label is on enough tokens and files of both halves; evaluate more"
        return Score(None, reason=f"{reason} windows")
    return mean_over_concepts(sample, n_files)


def _counts(codes: Any, labels: Labels) -> Mapping[str, list[Counts]]:
    """What each probe says of each label, from the codes `[n, l]` of some latents (csc)."""
    train, y, files = labels.files.train, labels.y, labels.files
    fires = (codes != 0).astype(float)
    share = fires[train].T @ y[train] / y[train].sum(0)
    false = (fires[train].sum(0)[:, None] - fires[train].T @ y[train]) / (~y[train]).sum(0)
    best = (share - false).argmax(0)  # balanced accuracy of firing, on the training files
    counts = {"latent": _said(files, fires[:, best].toarray(), y)}
    fitted = codes[train]
    mean = fitted.sum(0) / train.sum()
    deviation = np.sqrt(np.maximum(fitted.multiply(fitted).sum(0) / train.sum() - mean**2, 0))
    scale = np.where(deviation > 0, 1 / np.where(deviation > 0, deviation, 1), 0)
    correlation = np.abs(mean_differences(fitted, y[train])) * scale[:, None]
    for probe, k in FEW.items():
        columns = top_columns(codes, correlation, train, k).float()
        logits = probe_logits(columns, torch.from_numpy(train), torch.from_numpy(y))
        counts[probe] = _said(files, logits.numpy(), y)
    return counts


def _said(files: TestFiles, scores: Array, y: Array) -> list[Counts]:
    return [files.counts(scores[:, c], y[:, c]) for c in range(y.shape[1])]


def _smoothed_latents(codes: Codes, labels: Labels) -> list[Counts]:
    """The same of the single latent per label that correlates most with it after smoothing, a few
    latents at a time.
    """
    text, train = codes.text, labels.files.train
    y = torch.from_numpy(labels.y[train]).float()
    y = (y - y.mean(0)) / y.std(0).clamp_min(1e-6)
    strongest, scores = np.zeros(y.shape[1]), np.zeros((len(train), y.shape[1]), np.float32)
    cuts = range(LATENTS_AT_ONCE, len(codes.live), LATENTS_AT_ONCE)
    for latents in np.array_split(codes.live, cuts):
        few = codes.of(latents)
        z = torch.cat([text.smoothed(few.grid(windows), windows) for windows in text.slices()])
        z = z.flatten(0, 1)[labels.places]
        fitted = z[torch.from_numpy(train)]
        deviation = fitted.std(0)
        fitted = (fitted - fitted.mean(0)) / torch.where(deviation > 0, deviation, 1)
        found, best = (fitted.T @ y / len(y)).abs().max(0)
        sign = (fitted[:, best] * y).sum(0).sign()
        better = (found.numpy() > strongest) & (found.numpy() > 0)
        scores[:, better] = (z[:, best] * sign)[:, torch.from_numpy(better)].numpy()
        strongest = np.where(better, found.numpy(), strongest)
    return _said(labels.files, scores, labels.y)


def _table(labels: Labels, samples: Mapping[str, Array]) -> Table:
    names = {"latent": "latent", "k4": "k=4", "k16": "k=16", "smoothed": "smoothed latent"}
    rows = [
        (
            concept.name,
            "slow" if slow else "fast",
            *(float(v) if np.isfinite(v := samples[key][c, 0]) else None for key in samples),
        )
        for c, (concept, slow) in enumerate(zip(labels.concepts, labels.slow, strict=True))
    ]
    columns = [
        names[key.removesuffix("_block")] + ", block" * key.endswith("_block") for key in samples
    ]
    return Table(
        "Labels on held-out files: slow ones and fast ones",
        ("label", "kind", *columns),
        rows,
        "Balanced accuracy of the best single latent, AUROC of the others; .5 is chance. A block "
        "that tells slow labels well and fast ones badly holds what lasts.",
    )
