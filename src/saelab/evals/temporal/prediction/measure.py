"""How well a few latents of one token predict the activation some tokens later, beside the whole
activation.

Which latents: those of the slow block (where it has more than are asked for, chosen one after the
other), and those chosen from the whole dictionary in three ways, on documents that are not scored.
The whole dictionary is no row: a regression on all of it overfits and falls below 64 latents.
Legend: L latents | C candidates | C documents scored in sums.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saelab.evals.common.auroc import Array
from saelab.evals.result import Table
from saelab.evals.temporal.metrics import LAGS, SIZES, WAYS
from saelab.evals.temporal.prediction.ridge import (
    Folds,
    Read,
    Ridge,
    best,
    errors,
    greedily,
    moments,
    ridge,
    weights,
)
from saelab.evals.temporal.text import Codes, Text
from saelab.figures import Axis, Curves, Figure
from saelab.stats import Resampling
from saelab.types import Score

CANDIDATES = 512
LITTLE = 0.01  # R^2 of the whole activation, below which nothing is slow
NOTHING = (
    "nothing slow here: the whole activation predicts less than 1 % of what comes so much later; "
    "read a later layer"
)
STILL = "the activations of the scored documents do not vary"
BLOCK = "block"


@dataclass(frozen=True, eq=False)
class Ceilings:
    """What the whole activation predicts, as sums over documents `[C, 2]` for every lag."""

    of_token: Mapping[int, Tensor]
    smoothed: Mapping[int, Tensor]


@dataclass(frozen=True, eq=False)
class Chosen:
    """Latents of one dictionary that may predict."""

    block: Array | None  # of the slow block, where there is one
    persistent: Array  # [L] autocorrelation on the documents that are fitted on


def ceilings_of(text: Text) -> Ceilings:
    """Regressions on the whole activation, at every lag that the text has."""
    lags = [lag for lag in LAGS if text.has(lag)]
    whole = torch.arange(text.y.shape[2])

    def sums(read: Read) -> dict[int, Tensor]:
        folds = moments(text, read, lags)
        fitted = {(lag, ""): ridge(both, whole) for lag, both in folds.items()}
        return {lag: value for (lag, _), value in errors(text, read, fitted).items()}

    read = lambda windows: text.y[windows]  # noqa: E731
    return Ceilings(sums(read), sums(lambda windows: text.smoothed(read(windows), windows)))


def predictions(
    codes: Codes, chosen: Chosen, ceilings: Ceilings
) -> tuple[dict[str, Score], Table, Figure]:
    """The scores of every lag, all of them in a table, and R^2 over the number of latents."""
    text = codes.text
    candidates = _candidates(codes, chosen, list(ceilings.of_token))
    few = codes.of(candidates)
    read = few.grid
    smooth = lambda windows: text.smoothed(read(windows), windows)  # noqa: E731
    place = {int(latent): i for i, latent in enumerate(candidates)}
    block = chosen.block
    if block is not None:
        block = np.array([place[latent] for latent in block.tolist() if latent in place])
    inside = Chosen(block, chosen.persistent[candidates])
    sums = _sums(text, read, inside, list(ceilings.of_token))
    smoothed = _sums(text, smooth, inside, list(ceilings.of_token))
    scores: dict[str, Score] = {}
    for lag in LAGS:
        scores |= _scores(lag, sums, smoothed, ceilings)
    ways = ([BLOCK] if chosen.block is not None else []) + list(WAYS)
    return scores, _table(ways, sums, smoothed, ceilings), _figure(sums)


Sums = Mapping[tuple[int, str, int], Tensor]  # lag, way, number of latents -> [C, 2]


def _candidates(codes: Codes, chosen: Chosen, lags: list[int]) -> Array:
    """Up to 512 latents `[C]`: of the slow block, of the most persistent, and those that predict
    best alone.
    """
    n_latents = codes.rows.shape[1]
    if n_latents <= CANDIDATES or not lags:
        return np.arange(n_latents)[:CANDIDATES]
    alone = np.zeros(n_latents)
    for lag in lags:
        now, later = codes.text.pairs(lag, 0, 1)
        y = codes.text.y.flatten(0, 1)[later].double().numpy()
        z = codes.rows[now.numpy()]
        covariance = z.T @ (y - y.mean(0)) / len(y)
        alone += (covariance**2).sum(1) / codes.variance
    everything = np.arange(n_latents)
    block = everything[:0] if chosen.block is None else chosen.block
    first = best(block, alone, CANDIDATES // 2)
    persistent = best(everything, chosen.persistent, SIZES[-1])
    order = np.concatenate([first, persistent, best(everything, alone, n_latents)])
    return np.array(list(dict.fromkeys(order.tolist()))[:CANDIDATES])


def _sums(text: Text, read: Read, chosen: Chosen, lags: list[int]) -> Sums:
    folds = moments(text, read, lags)
    fitted: dict[tuple[int, str], Ridge] = {}
    for lag, both in folds.items():
        for way, order in _orders(both, chosen).items():
            for n in SIZES:
                fitted[lag, f"{way} {n}"] = ridge(both, torch.from_numpy(order[:n]))
    found = errors(text, read, fitted)
    return {
        (lag, way, n): found[lag, f"{way} {n}"]
        for lag in folds
        for way in (BLOCK, *WAYS)
        for n in SIZES
        if (lag, f"{way} {n}") in found
    }


def _orders(folds: Folds, chosen: Chosen) -> dict[str, Array]:
    """Candidates in the order in which each way takes them."""
    everything, n = np.arange(len(chosen.persistent)), SIZES[-1]
    orders = {
        "autocorrelation": best(everything, chosen.persistent, n),
        "ridge": best(everything, weights(folds), n),
        "greedy": greedily(folds, everything, n),
    }
    if chosen.block is not None:
        orders[BLOCK] = greedily(folds, chosen.block, n)
    return orders


def _r2(sums: Tensor) -> float:
    error, power = sums.sum(0).tolist()
    return 1 - error / power if power else float("nan")


def _own(sums: Sums, lag: int, n: int) -> Tensor:
    """Of the slow block, else of the way that predicts best."""
    if (lag, BLOCK, n) in sums:
        return sums[lag, BLOCK, n]
    return max((sums[lag, way, n] for way in WAYS), key=_r2)


def _score(sums: Tensor) -> Score:
    return Resampling(sums).score(lambda s: 1 - s[:, 0] / s[:, 1], undefined=STILL)


def _scores(lag: int, sums: Sums, smoothed: Sums, ceilings: Ceilings) -> dict[str, Score]:
    """The scores of one lag."""
    keys = [f"prediction_{lag}", *(f"prediction_{lag}_{way}" for way in (*WAYS, "smoothed"))]
    if lag not in ceilings.of_token:
        lack = Score(
            None,
            reason=f"too few windows hold two tokens of one document {lag} apart; give a context "
            f"well above {lag}",
        )
        return dict.fromkeys([*keys, f"ceiling_{lag}", f"ceiling_share_{lag}"], lack)
    n, ceiling = SIZES[-1], ceilings.of_token[lag]
    own = _own(sums, lag, n)
    columns = [own, *(sums[lag, way, n] for way in WAYS), _own(smoothed, lag, n)]
    share = Resampling(torch.cat([own, ceiling], 1)).score(
        lambda s: (1 - s[:, 0] / s[:, 1]) / (1 - s[:, 2] / s[:, 3])
    )
    return {
        **dict(zip(keys, map(_score, columns), strict=True)),
        f"ceiling_{lag}": _score(ceiling),
        f"ceiling_share_{lag}": share if _r2(ceiling) >= LITTLE else Score(None, reason=NOTHING),
    }


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _table(ways: list[str], sums: Sums, smoothed: Sums, ceilings: Ceilings) -> Table:
    rows = [
        (
            lag,
            n,
            *(_plain(_r2(sums[lag, way, n])) for way in ways),
            _plain(_r2(ceilings.of_token[lag])),
            *(_plain(_r2(smoothed[lag, way, n])) for way in ways),
            _plain(_r2(ceilings.smoothed[lag])),
        )
        for lag in ceilings.of_token
        for n in SIZES
    ]
    return Table(
        "Prediction of the activation some tokens later: R^2 on held-out documents",
        (
            "tokens later",
            "latents",
            *ways,
            "whole activation",
            *(f"{way}, smoothed" for way in ways),
            "whole activation, smoothed",
        ),
        rows,
        "Latents are chosen on other documents. A claim for the block must beat the best of the "
        "other ways at the token itself; what smoothing gives is free for every dictionary.",
    )


def _figure(sums: Sums) -> Curves:
    lags = list(dict.fromkeys(lag for lag, _, _ in sums))
    return Curves(
        "prediction",
        "Prediction over the number of latents",
        "Held-out R^2 of the activation some tokens later, less its mean at the position, from the "
        "codes of one token: of the slow block, or of the best choice where there is none.",
        Axis("latents", log=True),
        Axis("R^2"),
        {
            f"{lag} tokens later": (SIZES, [_plain(_r2(_own(sums, lag, n))) for n in SIZES])
            for lag in lags
        },
    )
