"""What the pictures of single latents' effects show, from what the NCES evaluation recorded of
every latent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from saelab.evals.nces.effects import rank_correlation
from saelab.report.nces_plots import BINS, Agreement, Cloud, Curve, Histogram, Point
from saelab.report.read import RunRecord, items, mapping, number

EVAL, IN_WORLD = "nces", "nces_world"
EXACT = "zero"  # the type that the estimate stands for
ESTIMATE = "Fisher"  # how pictures name the estimate beside the types
DOTS = 1000  # estimated latents drawn of an SAE: what keeps a picture small
IN_BAND = 25  # latents that a step of the band of controls needs
STEPS = 12  # of that band, at most
TAKEN = 60  # points of a curve of causal mass


@dataclass(frozen=True)
class Latent:
    """What was recorded of one latent. None: not recorded, or undefined."""

    number: int | None
    weight: float  # live latents that it stands for
    frequency: float | None
    mean_code: float | None  # where active
    effect: float | None  # nats
    control: float | None  # nats
    # of a feature that the world's model never reads; on a language model nobody knows
    inert: bool = False

    @property
    def mass(self) -> float | None:
        """Mean code over all tokens."""
        return (
            None
            if self.frequency is None or self.mean_code is None
            else self.frequency * self.mean_code
        )

    @property
    def on_text(self) -> float | None:
        """Effect per token of the text: what causal mass is the sum of."""
        return (
            None if self.frequency is None or self.effect is None else self.frequency * self.effect
        )

    @property
    def nces(self) -> float | None:
        """(E - C) / (E + C)."""
        if self.effect is None or self.control is None or self.effect + self.control <= 0:
            return None
        return (self.effect - self.control) / (self.effect + self.control)


# What was recorded --------------------------------------------------------------------------------


def live_latents(run: RunRecord) -> list[Latent]:
    """Every live latent of a run with its estimated effect; a column that is missing or of another
    length is None.
    """
    columns = mapping(_recorded(run).get("estimates"))
    n = len(items(columns.get("latent")))
    names = ("latent", "frequency", "mean_code", "effect", "control")
    found = {name: [number(v) for v in items(columns.get(name))] for name in names}
    rows = {name: values if len(values) == n else [None] * n for name, values in found.items()}
    each = zip(*(rows[name] for name in names), strict=True)
    return [Latent(None if j is None else int(j), 1.0, *values) for j, *values in each]


def measured_latents(run: RunRecord, kind: str) -> list[Latent]:
    """The latents of a run on which one type of intervention was measured."""
    rows = [row for row in _rows(run) if kind in row]
    return [
        Latent(
            row.get("latent"),
            1.0 if (weight := number(row.get("weight"))) is None else weight,
            *(number(row.get(name)) for name in ("frequency", "mean_code")),
            *(number(mapping(row[kind]).get(name)) for name in ("effect", "control")),
            inert=row.get("causal") is False,
        )
        for row in rows
    ]


def kinds(run: RunRecord) -> list[str]:
    """The types of intervention that a run recorded, in order."""
    return list(
        dict.fromkeys(
            key for row in _rows(run) for key, value in row.items() if "effect" in mapping(value)
        )
    )


def _recorded(run: RunRecord) -> dict[str, Any]:
    """What a run recorded of effects, on a language model or in a world."""
    result = run.evals.get(EVAL) or run.evals.get(IN_WORLD, {})
    return mapping(result.get("details")) or result


def _rows(run: RunRecord) -> list[dict[str, Any]]:
    return [mapping(row) for row in items(_recorded(run).get("latents"))]


# The pictures' numbers ----------------------------------------------------------------------------


def cloud(run: RunRecord, variant: int) -> Cloud | None:
    """Effects and controls against activation mass; None without a live latent that has them."""
    live, measured = _triples(live_latents(run)), measured_latents(run, EXACT)
    if not live:
        return None
    drawn = thinned([(mass, effect) for mass, effect, _ in live], DOTS)
    exact, inert = (
        _triples([latent for latent in measured if latent.inert is kind]) for kind in (False, True)
    )
    known = f"{len(exact)} causal, {len(inert)} inert" if inert else f"{len(exact)} measured"
    counts = f"{len(drawn)} of {len(live)} estimated; {known}"
    controls = band([(mass, control) for mass, _, control in live])
    return Cloud(run.title, counts, variant, drawn, exact, inert, controls)


def _triples(latents: Sequence[Latent]) -> list[tuple[float, float, float]]:
    """(mass, E, C) of the latents that have them, by mass; what has no mass cannot stand on a log
    axis.
    """
    found = [(latent.mass, latent.effect, latent.control) for latent in latents]
    return sorted(
        (m, e, c)
        for m, e, c in found
        if m is not None and m > 0 and e is not None and c is not None
    )


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` points, taken evenly, the first and last among them."""
    n = min(len(points), most)
    return [points[round(i * (len(points) - 1) / max(n - 1, 1))] for i in range(n)]


def band(points: Sequence[Point]) -> list[tuple[float, float, float]]:
    """(mass, 5 %, 95 %) of values sorted by mass, in up to 12 groups of equally many, reaching from
    end to end.
    """
    if len(points) < IN_BAND:
        return []
    groups = torch.tensor(points, dtype=torch.double).tensor_split(
        min(STEPS, len(points) // IN_BAND)
    )
    rows = []
    for group in groups:
        low, high = group[:, 1].quantile(torch.tensor([0.05, 0.95], dtype=torch.double)).tolist()
        rows.append((float(group[:, 0].median()), low, high))
    return [(points[0][0], *rows[0][1:]), *rows, (points[-1][0], *rows[-1][1:])]


def histogram(run: RunRecord, variant: int) -> Histogram | None:
    """NCES of live latents, each counting once; None without a latent that has one."""
    live, exact = live_latents(run), measured_latents(run, EXACT)
    mean = _mean_by_activity(live)
    if mean is None:
        return None
    bins = [_binned([latent for latent in exact if latent.inert is kind]) for kind in (False, True)]
    total = sum(map(sum, bins))
    measured, inert = ([share / total for share in each] if any(each) else [] for each in bins)
    estimated = _binned(live)
    estimated = [share / sum(estimated) for share in estimated]
    return Histogram(run.title, variant, estimated, measured, inert, mean, _mean_by_activity(exact))


def _binned(latents: Sequence[Latent]) -> list[float]:
    """Weight of the latents in each bin of NCES."""
    bins = [0.0] * BINS
    for latent in latents:
        if latent.nces is not None:
            bins[min(int((latent.nces + 1) / 2 * BINS), BINS - 1)] += latent.weight
    return bins


def _mean_by_activity(latents: Sequence[Latent]) -> float | None:
    known = [(latent.nces, latent.weight * (latent.frequency or 0.0)) for latent in latents]
    total = sum(weight for value, weight in known if value is not None)
    return (
        sum(value * weight for value, weight in known if value is not None) / total
        if total
        else None
    )


def agreement(run: RunRecord) -> Agreement | None:
    """Rank correlations between the types, and with the estimate, over the measured latents; None
    with fewer than two.
    """
    estimated = {latent.number: latent for latent in live_latents(run)}
    columns = {
        kind: {latent.number: latent for latent in measured_latents(run, kind)}
        for kind in kinds(run)
    }
    if estimated and columns:
        columns[ESTIMATE] = estimated
    if len(columns) < 2:
        return None
    measured = list(
        dict.fromkeys(j for kind, column in columns.items() if kind != ESTIMATE for j in column)
    )

    def matrix(value: Callable[[Latent], float | None]) -> list[list[float | None]]:
        each = [
            [value(column[j]) if j in column else None for j in measured]
            for column in columns.values()
        ]
        ranked = [
            torch.tensor([torch.nan if v is None else v for v in row], dtype=torch.double)
            for row in each
        ]
        return [[rank_correlation(a, b) for b in ranked] for a in ranked]

    return Agreement(
        run.title,
        list(columns),
        matrix(lambda latent: latent.effect),
        matrix(lambda latent: latent.nces),
    )


def mass_order(run: RunRecord, key: Callable[[Latent], float | None]) -> list[float] | None:
    """Share of the estimated causal mass in the first 1, 2, ... live latents by falling `key`; None
    where it is undefined.
    """
    known = [(key(latent), latent.on_text) for latent in live_latents(run)]
    rows = sorted(
        ((k, v) for k, v in known if k is not None and v is not None), key=lambda row: -row[0]
    )
    total = sum(value for _, value in rows)
    return (
        None
        if total <= 0
        else [
            min(share / total, 1.0)
            for share in torch.tensor([v for _, v in rows]).double().cumsum(0).tolist()
        ]
    )


def reached(shares: Sequence[float], part: float) -> int:
    """How many latents it takes to have a `part` of the causal mass."""
    return next((i for i, share in enumerate(shares, 1) if share >= part - 1e-9), len(shares))


def curve(runs: Sequence[Sequence[float]], variant: int) -> Curve:
    """Mean and range over seeds at numbers of latents spaced evenly on a log axis; a seed with
    fewer has all its mass.
    """
    most = max(len(shares) for shares in runs)
    taken = sorted({round(most ** (i / (TAKEN - 1))) for i in range(TAKEN)})
    at = [[shares[min(s, len(shares)) - 1] for shares in runs] for s in taken]
    return Curve(
        variant, taken, [sum(v) / len(v) for v in at], [min(v) for v in at], [max(v) for v in at]
    )
