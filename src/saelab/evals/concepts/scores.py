"""Formulas of the concept evaluation: probes of many labels at once, cuts, intervals over files.

Legend: n tokens | C concepts | F test files | R resamples
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from saelab.evals.common.auroc import Array
from saelab.types import Score

RIDGE = 0.03  # times |w|^2 of whitened or standardised columns, added to the balanced cross-entropy
FLOOR = 1e-6  # of a variance, relative to the largest: directions under it are left small
ITERATIONS = 100  # of L-BFGS, at most
N_BOOT = 1_000
QUALITIES = ("auroc", "f1", "accuracy")


def whitened(x: Tensor, train: Tensor) -> Tensor:
    """Activations `[n, D]`, turned and scaled to mean 0 and identity covariance on the tokens
    `train [n]` bool, up to directions that hardly vary.
    """
    fitted = x[train].double()
    mean = fitted.mean(0)
    centred = fitted - mean
    variance, vectors = torch.linalg.eigh(centred.T @ centred / len(fitted))
    scale = (variance.clamp_min(0) + FLOOR * variance.max().clamp_min(1e-30)).rsqrt()
    return (x - mean.float()) @ (vectors * scale).float()


def probe_logits(x: Tensor, train: Tensor, y: Tensor) -> Tensor:
    """What a logistic regression per concept says of every token, as logits `[n, C]`, fitted on the
    tokens `train [n]` bool.

    `x [n, D]` or, where every concept has its own columns, `[C, n, K]`, standardised or whitened;
    labels `y [n, C]` bool. Minimised: cross-entropy with both classes weighing the same + 0.03
    |w|^2, for all concepts together by L-BFGS.
    """
    fit, target = x[..., train, :], y[train].float()
    share = target.mean(0)
    weight = torch.where(
        target > 0, 0.5 / share.clamp_min(1e-9), 0.5 / (1 - share).clamp_min(1e-9)
    ) / len(target)
    w = torch.zeros(x.shape[-1], y.shape[1])
    b = torch.zeros(y.shape[1])

    def logits(x: Tensor) -> Tensor:
        return (x @ w if x.ndim == 2 else torch.einsum("cnk,kc->nc", x, w)) + b

    with torch.enable_grad():
        w.requires_grad_()
        b.requires_grad_()
        optimizer = torch.optim.LBFGS(
            [w, b], max_iter=ITERATIONS, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = (
                binary_cross_entropy_with_logits(logits(fit), target, weight, reduction="sum")
                + RIDGE * w.square().sum()
            )
            value.backward()
            return value

        optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        return logits(x)


def token_rule(tokens: Array, y: Array, asked: Array) -> Array:
    """How often each concept holds where a token id stands, `[m, C]`: counted on `tokens [n]` with
    labels `y [n, C]`, for the ids `asked [m]`.

    One count of the base rate is added, so an id that was never seen gets the base rate.
    """
    size = int(max(tokens.max(), asked.max())) + 1
    base = y.mean(0)
    seen = np.bincount(tokens, minlength=size)
    hits = np.stack([np.bincount(tokens, y[:, c], minlength=size) for c in range(y.shape[1])], 1)
    return ((hits + base) / (seen + 1)[:, None])[asked]


def best_cut(score: Array, y: Array, metric: Literal["f1", "accuracy"]) -> tuple[float, float]:
    """The highest F1 or balanced accuracy of "score > t", and t: scores `[n]`, labels `[n]` bool
    with both classes.
    """
    order = np.argsort(-score, kind="stable")
    value, hit = score[order], y[order]
    positive, negative = hit.sum(), len(hit) - hit.sum()
    tp = np.cumsum(hit)
    fp = np.arange(1, len(hit) + 1) - tp
    whole = np.append(value[1:] < value[:-1], True)  # equal scores stay on one side
    gain = (
        2 * tp / (tp + fp + positive) if metric == "f1" else (tp / positive + 1 - fp / negative) / 2
    )
    best = int(np.where(whole, gain, -1).argmax())
    return float(gain[best]), float(value[best + 1]) if best + 1 < len(value) else -np.inf


@dataclass(frozen=True)
class Counts:
    """What one score says about one concept on the test files: enough for every metric on every
    resample of files.
    """

    # [F, F] pairs (positive of a file, negative of a file) in the right order, ties a half
    wins: Array
    positive: Array  # [F]
    negative: Array  # [F]
    f1: Array  # [F, 2] true and false positives at the threshold for F1
    accuracy: Array  # [F, 2] the same at the threshold for balanced accuracy


@dataclass(frozen=True)
class TestFiles:
    """Which tokens are for training, and the number of the file, from 0, of those that are not."""

    train: Array  # [n] bool
    file: Array  # [tokens that are not for training]

    def counts(self, score: Array, y: Array, *, f1_score: Array | None = None) -> Counts:
        """Thresholds from the training tokens, counts on the others: `score [n]`, `y [n]` bool;
        `f1_score`: another for F1.
        """
        f1_score = score if f1_score is None else f1_score
        n_files = int(self.file.max()) + 1
        for_f1 = best_cut(f1_score[self.train], y[self.train], "f1")[1]
        for_accuracy = best_cut(score[self.train], y[self.train], "accuracy")[1]
        score, f1_score, y = score[~self.train], f1_score[~self.train], y[~self.train]
        wins = np.zeros((n_files, n_files))
        order = np.argsort(score[y])
        positives, where = score[y][order], self.file[y][order]
        for f in range(n_files):
            other = np.sort(score[~y & (self.file == f)])
            if len(other):
                below = np.searchsorted(other, positives, "left")
                beaten = (below + np.searchsorted(other, positives, "right")) / 2
                wins[:, f] = np.bincount(where, beaten, minlength=n_files)
        return Counts(
            wins,
            np.bincount(self.file[y], minlength=n_files).astype(float),
            np.bincount(self.file[~y], minlength=n_files).astype(float),
            self._flagged(f1_score > for_f1, y, n_files),
            self._flagged(score > for_accuracy, y, n_files),
        )

    def _flagged(self, said: Array, y: Array, n_files: int) -> Array:
        both = (said & y, said & ~y)
        return np.stack(
            [np.bincount(self.file[which], minlength=n_files) for which in both], 1
        ).astype(float)


def resamples(n_files: int, *, seed: int = 0) -> Array:
    """How often each file counts `[1 + N_BOOT, F]`: first once each, then drawn with
    replacement.
    """
    drawn = np.random.default_rng(seed).multinomial(n_files, np.full(n_files, 1 / n_files), N_BOOT)
    return np.concatenate([np.ones((1, n_files)), drawn])


def metrics(counts: Counts, weight: Array) -> Mapping[str, Array]:
    """AUROC, F1 and balanced accuracy `[R]` with every file counted as often as `weight [R, F]`
    says; NaN if undefined.
    """
    positive, negative = weight @ counts.positive, weight @ counts.negative
    tp, fp = (weight @ counts.f1).T
    true, false = (weight @ counts.accuracy).T
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "auroc": ((weight @ counts.wins) * weight).sum(1) / (positive * negative),
            "f1": np.where(positive > 0, 2 * tp / (tp + fp + positive), np.nan),
            "accuracy": (true / positive + 1 - false / negative) / 2,
        }


def mean_over_concepts(sample: Array, n_files: int) -> Score:
    """Mean over the concepts that are defined on a resample; `sample [C, 1 + R]`, all files
    first.
    """
    defined = np.isfinite(sample)
    mean = np.where(defined, sample, 0).sum(0) / np.maximum(defined.sum(0), 1)
    low, high = np.quantile(mean[1:], (0.025, 0.975))
    return Score(float(mean[0]), float(low), float(high), n_files)
