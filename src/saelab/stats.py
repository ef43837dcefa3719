"""Intervals and tests: bootstrap over documents, paired differences over seeds, Holm, minimum
difference.

Every interval is at 95 %. An interval that cannot be had (one document, one seed) is None with the
reason, never a guess.
"""

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from saelab.types import Score

LEVEL = 0.95
RESAMPLED_AT_ONCE = 1 << 24  # drawn indices per chunk: 128 MB


class Resampling:
    """Sums per cluster, resampled once by whole clusters for any number of statistics.

    `sums [C, S]` holds S sums for each of C clusters (documents). A resample draws C clusters with
    replacement and adds their sums: multinomial weights @ sums. Percentile interval (Efron and
    Tibshirani 1993, section 13.3).
    """

    def __init__(self, sums: Tensor, *, n_boot: int = 1000, seed: int = 0):
        """Raises `ValueError` when `sums` is not `[C, S]` with C >= 1, or `n_boot` < 1."""
        if sums.ndim != 2 or sums.shape[0] < 1:
            raise ValueError(
                f"sums have shape {tuple(sums.shape)}; give one row of sums per cluster, [C, S] "
                "with C >= 1"
            )
        if n_boot < 1:
            raise ValueError(f"n_boot is {n_boot}; give at least 1 resample")
        sums = sums.detach().double().cpu()
        self.n = sums.shape[0]
        self.total = sums.sum(0, keepdim=True)  # [1, S]
        generator = torch.Generator().manual_seed(seed)
        step = max(1, RESAMPLED_AT_ONCE // self.n)
        drawn = [
            _weights(self.n, min(step, n_boot - at), generator) @ sums
            for at in range(0, n_boot, step)
        ]
        self.samples = torch.cat(drawn)  # [n_boot, S]

    def beside(self, total: Tensor, samples: Tensor) -> "Resampling":
        """The same with further columns `[1, K]` and `[n_boot, K]`, resampled in another way."""
        both = copy.copy(self)
        both.total = torch.cat([self.total, total], 1)
        both.samples = torch.cat([self.samples, samples], 1)
        return both

    def score(self, fn: Callable[[Tensor], Tensor], *, undefined: str = "") -> Score:
        """The statistic `fn` with its interval; `fn` maps sums `[R, S]` to values `[R]`, non-finite
        where undefined.

        `undefined` says why the value is None when `fn` is not finite on the whole sample. The
        interval is None when there are fewer than two clusters, or when more than one resample in
        twenty leaves `fn` undefined.
        """
        value = float(fn(self.total)[0])
        if not math.isfinite(value):
            reason = undefined or "the statistic is not a finite number here"
            return Score(None, n=self.n, reason=reason)
        if self.n < 2:
            return Score(value, n=self.n, reason="no interval: it takes at least 2 documents")
        values = fn(self.samples)
        values = values[values.isfinite()]
        if len(values) < LEVEL * len(self.samples):
            reason = "no interval: undefined in over 5 % of the resamples"
            return Score(value, n=self.n, reason=reason)
        tails = torch.tensor([(1 - LEVEL) / 2, 1 - (1 - LEVEL) / 2], dtype=values.dtype)
        low, high = torch.quantile(values, tails).tolist()
        return Score(value, low, high, self.n)


def bootstrap_ratio(
    numerator: Tensor,
    denominator: Tensor,
    cluster: Tensor,
    *,
    n_boot: int = 1000,
    seed: int = 0,
) -> Score:
    """sum(numerator) / sum(denominator) over items `[N]`, resampling whole clusters (`cluster [N]`:
    a document number).

    A denominator of 0 makes the value None with a reason; fewer than 2 clusters make the interval
    None with a reason. Raises `ValueError` when the three differ in length or are empty.
    """
    if not len(numerator) == len(denominator) == len(cluster) > 0:
        lengths = f"{len(numerator)}, {len(denominator)} and {len(cluster)}"
        raise ValueError(
            f"numerator, denominator and cluster have {lengths} items; give the same number, at "
            "least 1"
        )
    _, index = cluster.unique(return_inverse=True)
    items = torch.stack([numerator.double(), denominator.double()], 1).cpu()  # [N, 2]
    sums = torch.zeros(int(index.max()) + 1, 2, dtype=torch.double)
    resampling = Resampling(sums.index_add_(0, index.cpu(), items), n_boot=n_boot, seed=seed)
    return resampling.score(lambda s: s[:, 0] / s[:, 1], undefined="the denominator is 0")


def mean_score(values: Sequence[float]) -> Score:
    """Mean over seeds with a Student t interval, mean +- t(0.975, n - 1) * s / sqrt(n), from two
    seeds on.
    """
    _check_finite(values, "values")
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Score(mean, n=n, reason="no interval: it takes at least 2 seeds")
    half = _t_quantile(1 - (1 - LEVEL) / 2, n - 1) * _deviation(values) / math.sqrt(n)
    return Score(mean, mean - half, mean + half, n)


def paired_difference(treatment: Sequence[float], baseline: Sequence[float]) -> Score:
    """Mean of treatment - baseline over paired seeds with a Student t interval; one pair has no
    interval.

    Raises `ValueError` when the two differ in length, are empty or hold non-finite numbers.
    """
    if len(treatment) != len(baseline):
        raise ValueError(
            f"{len(treatment)} treatment values and {len(baseline)} baseline values; pairs need "
            "one of each per seed"
        )
    _check_finite(treatment, "treatment")
    _check_finite(baseline, "baseline")
    return mean_score([t - b for t, b in zip(treatment, baseline, strict=True)])


def paired_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of mean difference 0 by Student's t test on paired differences.

    It is below .05 exactly where the interval of `paired_difference` excludes 0. Differences that
    are all equal have p 0, or 1 where they are 0. Raises `ValueError` with fewer than 2.
    """
    _check_finite(differences, "differences")
    n = len(differences)
    if n < 2:
        raise ValueError(f"{n} difference; a t test takes at least 2")
    mean, deviation = math.fsum(differences) / n, _deviation(differences)
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    from scipy.special import stdtr  # here, so that `import saelab` stays light

    return float(2 * stdtr(n - 1, -abs(mean) / deviation * math.sqrt(n)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given (Holm 1979), for the family-wise error."""
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values are {list(p_values)}; each must lie in [0, 1]")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def minimum_detectable_difference(differences: Sequence[float], *, power: float = 0.8) -> float:
    """The smallest true difference that n such pairs show at 95 % with `power`: (t(0.975) +
    t(power)) * s / sqrt(n).

    Same unit as the differences. Raises `ValueError` with fewer than 2 differences or a power
    outside (0.5, 1).
    """
    _check_finite(differences, "differences")
    n = len(differences)
    if n < 2 or not 0.5 < power < 1:
        raise ValueError(
            f"{n} differences and power {power}; give at least 2 differences and a power in (0.5, "
            "1)"
        )
    quantiles = _t_quantile(1 - (1 - LEVEL) / 2, n - 1) + _t_quantile(power, n - 1)
    return quantiles * _deviation(differences) / math.sqrt(n)


def _weights(n: int, n_boot: int, generator: torch.Generator) -> Tensor:
    """How often each of n clusters is drawn in each resample, `[n_boot, n]`."""
    drawn = torch.randint(n, (n_boot, n), generator=generator)
    return torch.zeros(n_boot, n, dtype=torch.double).scatter_add_(
        1, drawn, torch.ones(1, 1).double().expand(n_boot, n)
    )


def _deviation(values: Sequence[float]) -> float:
    """Sample standard deviation, n - 1 in the denominator."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def _t_quantile(q: float, dof: int) -> float:
    from scipy.special import stdtrit  # here, so that `import saelab` stays light

    return float(stdtrit(dof, q))


def _check_finite(values: Sequence[float], name: str) -> None:
    if len(values) == 0 or not all(math.isfinite(v) for v in values):
        raise ValueError(f"{name} are {list(values)}; give at least one number, all of them finite")
