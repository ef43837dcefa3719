"""How long codes last, how much of them is the position, and what neighbouring tokens share.

Each number beside the same on permuted tokens where order is what it is about. All but T-SAE's
smoothness are free of the codes' scale. Legend: P places | L latents | n pairs of tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelab.evals.common.auroc import Array
from saelab.evals.temporal.codes import gain_terms
from saelab.evals.temporal.text import TEST, Codes, Text
from saelab.figures import Axis, Band, Curves, Points, Scatter
from saelab.stats import Resampling, bootstrap_ratio
from saelab.types import Score

LAGS = (1, 2, 4, 8, 16, 32, 64)
SILENT = "the block never fires on the scored documents"
NEVER = "no latent fires on two neighbouring tokens or on one of them"


def lags_of(text: Text) -> list[int]:
    """The lags at which every fold has pairs of tokens."""
    return [lag for lag in LAGS if text.has(lag)]


def autocorrelation(
    codes: Codes, folds: Sequence[int], order: Tensor | None = None
) -> dict[int, Array]:
    """Correlation of each latent's code with itself some tokens later `[L]`, by lag; of documents
    in these folds, and with tokens in another order where one is given.
    """
    rows = codes.rows if order is None else codes.rows[order.numpy()]
    mean, variance = codes.spread(*folds)
    found = {}
    for lag in lags_of(codes.text):
        now, later = (rows[places.numpy()] for places in codes.text.pairs(lag, *folds))
        n = now.shape[0]
        product = now.multiply(later).sum(0) / n
        outer = mean * (now.sum(0) + later.sum(0)) / n
        found[lag] = (product - outer + mean**2) / variance
    return found


def block_autocorrelation(codes: Codes) -> Score:
    """Mean over the block's latents and lags on the scored documents, minus that of permuted
    tokens.
    """
    text, columns = codes.text, []
    mean, variance = codes.spread(TEST)
    z = torch.from_numpy((codes.rows.toarray() - mean) / np.sqrt(variance))
    for lag in lags_of(text):
        now, later = text.pairs(lag, TEST)
        real = (z[now] * z[later]).mean(1)
        null = (z[text.order[now]] * z[text.order[later]]).mean(1)
        columns.append(text.sums(torch.stack([real - null, torch.ones_like(real)], 1), now))
    return mean_of_ratios(text, columns, SILENT)


def gains(codes: Codes, directions: Tensor) -> tuple[dict[str, Score], Curves]:
    """The factor by which what the block reconstructs of a token (its rows `directions [l, D]`)
    best predicts the activation some tokens on and back, on the scored documents, in order and
    permuted.
    """
    text = codes.text
    rows = torch.from_numpy(codes.rows.toarray()).float()
    guess = rows @ directions.detach().float().cpu()  # [P, D]
    # less its mean on these documents too: what both halves differ by is nothing that persists
    y = (text.y - text.y[text.fold == TEST].mean(0)).flatten(0, 1)
    scores, lines = {}, {}
    for key, order in (("", torch.arange(len(y))), ("_permuted", text.order)):
        columns = []
        for lag in lags_of(text):
            places, following = text.pairs(lag, TEST)
            now, later = order[places], order[following]
            match, power = gain_terms(guess[now], guess[later], y[now], y[later])
            columns.append(text.sums(torch.stack([match, power], 1), places))
        scores[f"learned_gain{key}"] = mean_of_ratios(text, columns, SILENT)
        gain = [float(sums[:, 0].sum() / sums[:, 1].sum()) for sums in columns]
        lines["permuted" if key else "in order"] = (lags_of(text), _finite(gain))
    return scores, Curves(
        "gains",
        "Gain of the block's reconstruction over the lag",
        "The factor by which what the block reconstructs of one token best predicts the activation "
        "some tokens on and back, on held-out documents. On permuted tokens it must be near 0.",
        Axis("tokens later", log=True),
        Axis("gain"),
        lines,
    )


def mean_of_ratios(text: Text, columns: Sequence[Tensor], undefined: str) -> Score:
    """Mean of some ratios of two sums, each given by document `[docs, 2]`."""
    sums = torch.cat(list(columns), 1)
    return Resampling(sums[text.doc[text.fold == TEST].unique()]).score(
        lambda s: (s[:, ::2] / s[:, 1::2]).mean(1), undefined=undefined
    )


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values]


def position_share(codes: Codes) -> Array:
    """Share `[L]` of the variance of each latent's codes that their means at positions make up,
    less what chance gives to so few tokens.
    """
    from scipy.sparse import csr_array

    text = codes.text
    n_windows, context = text.keep.shape
    count = text.keep.sum(0).double().numpy()
    at = np.tile(np.arange(context), n_windows)
    shape = (context, len(at))
    where = csr_array((np.ones(len(at)), (at, np.arange(len(at)))), shape=shape)
    total = (where @ codes.rows).toarray()  # [T, L]
    mean = total / np.maximum(count, 1)[:, None]
    share = (count[:, None] * (mean - codes.mean) ** 2).sum(0) / codes.n_kept / codes.variance
    used = int((count > 0).sum())
    spare = max(codes.n_kept - used, 1)
    return 1 - (1 - share) * (codes.n_kept - 1) / spare


def invariance(share: Array, latents: Array) -> Score:
    """1 - share, mean over some latents."""
    if not len(latents):
        return Score(None, reason="none of these latents fires on over one token in a thousand")
    return Score(
        float(1 - share[latents].mean()),
        n=len(latents),
        reason="no interval: a mean over latents",
    )


def run_length(codes: Codes) -> Array:
    """Mean number of tokens `[L]` that a latent stays active once it is."""
    fires = codes.active.sum(0)
    now, later = (codes.active[places.numpy()] for places in codes.text.pairs(1, 0, 1, TEST))
    return fires / np.maximum(fires - now.multiply(later).sum(0), 1)


def _jaccard(text: Text, first: Any, second: Any, places: Tensor) -> Tensor:
    """Latents active in both and in either, of csr rows `[n, L]` of ones; sums by document."""
    both = first.multiply(second).sum(1)
    either = first.sum(1) + second.sum(1) - both
    return text.sums(torch.from_numpy(np.stack([both, either], 1)), places)


def stability(codes: Codes) -> Score:
    """Jaccard index of the active latents of neighbouring tokens of the scored documents."""
    now, later = codes.text.pairs(1, TEST)
    sums = _jaccard(codes.text, codes.active[now.numpy()], codes.active[later.numpy()], now)
    return mean_of_ratios(codes.text, [sums], NEVER)


def active_latents(codes: Codes) -> Score:
    """Mean number of active latents of a token of the scored documents."""
    places = (codes.text.fold == TEST).flatten().nonzero().squeeze(1)
    count = torch.from_numpy(codes.active.sum(1))[places]
    sums = codes.text.sums(torch.stack([count, torch.ones_like(count)], 1), places)
    return mean_of_ratios(codes.text, [sums], NEVER)


def agreement(codes: Codes, shifted: Mapping[int, Any]) -> tuple[Score, list[float | None]]:
    """Jaccard index of the active latents of the same tokens with fewer tokens before them: mean
    over the differences, and each. `shifted`: csr rows `[n, L]` of the last positions.
    """
    if not shifted:
        return Score(None, reason="windows of 1 token cannot be shortened; give a context"), []
    places = codes.text.last_places()
    rows = codes.active[places.numpy()]
    columns = [_jaccard(codes.text, rows, (other != 0) * 1.0, places) for other in shifted.values()]
    each = [float(sums[:, 0].sum() / sums[:, 1].sum()) for sums in columns]
    return mean_of_ratios(codes.text, columns, NEVER), _finite(each)


def t_sae_smoothness(codes: Codes) -> Score:
    """Mean over windows and the latents active there of the largest |change of code| / |change of
    activation| between neighbouring tokens (T-SAE, 2511.05541). Smaller codes lower it.
    """
    from scipy.sparse import diags_array

    text = codes.text
    now, later = text.pairs(1, 0, 1, TEST)
    x = text.x.flatten(0, 1)
    change = (x[later] - x[now]).norm(dim=1).double()
    scale = diags_array(torch.where(change > 0, 1 / change, 0).numpy())
    steps = (scale @ abs(codes.rows[later.numpy()] - codes.rows[now.numpy()])).tocsr()
    window = now // text.keep.shape[1]
    rows = [(window == w).nonzero().squeeze(1) for w in window.unique().tolist()]
    largest = [steps[row.numpy()].max(0).toarray().ravel() for row in rows]
    total = torch.tensor([float(values.sum()) for values in largest])
    active = torch.tensor([float((values > 0).sum()) for values in largest])
    doc = torch.stack([text.doc.flatten()[now[row[0]]] for row in rows])
    return bootstrap_ratio(total, active, doc)


def picture(real: dict[int, Array], null: dict[int, Array], block: Array, live: Array) -> Scatter:
    """Mean autocorrelation of the block and of the other live latents over the lag, and the range
    of permuted tokens.
    """
    lags = list(real)
    rest = np.setdiff1d(live, block)

    def points(label: str, latents: Array, mark: Any) -> Iterator[Points]:
        if len(latents):
            means = [float(values[latents].mean()) for values in real.values()]
            yield Points(label, lags, means, mark)

    low, high = (
        [float(np.quantile(values[live], q)) if len(live) else 0.0 for values in null.values()]
        for q in (0.025, 0.975)
    )
    return Scatter(
        "autocorrelation",
        "Autocorrelation over the lag",
        "Mean over latents of the correlation of a code with itself some tokens later, on held-out "
        "documents. The band holds 95 % of the latents when tokens are permuted.",
        Axis("tokens later", log=True),
        Axis("autocorrelation", low=-0.1, high=1),
        (*points("slow block", block, "dot"), *points("other latents", rest, "faint")),
        Band("tokens permuted", lags, low, high),
    )
