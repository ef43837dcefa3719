"""The pictures of single latents' effects: against activation mass, as a histogram, between types
of intervention, and summed up.

Legend: E effect of a latent | C effect of its control | L live latents | m measured ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saelab.evals.common.interventions import rank_correlation
from saelab.evals.nces.effects import Contexts, Measured, Sums, nces
from saelab.evals.result import Table
from saelab.figures import Axis, Band, Curves, Figure, Heat, Points, Scatter, Steps

ABLATION = "zero"  # the type whose effects are summed, and that the estimate stands for
ESTIMATE = "Fisher"  # how pictures name the estimate beside the types
DOTS = 1000  # estimated latents drawn of a dictionary: what keeps a picture small
IN_BAND = 25  # latents that a step of the band of controls needs
STEPS = 12  # of that band, at most
TAKEN = 60  # points of a curve of causal mass
BINS = 20  # of NCES, over [-1, 1]
CARRIED = (0.5, 0.9)  # of the causal mass, in the table

CLOUD_NOTE = (
    "Activation mass: mean code over all tokens, silent ones included, in the activations' units; "
    "E: mean where active. Faint dots: estimate of live latents, drawn evenly by mass where there "
    "are many. Full dots: latents measured by zero ablation; rings: random directions of the same "
    "length in their place. Grey: where 90 % of the estimated controls lie at that mass. Dots on "
    "the lower edge have no effect. Bad to see: full dots in the grey at large mass; these latents "
    "spend activation on what the model does not read more than any other direction."
)
CLOUD_INERT = (
    " Crosses: latents of features that the model never reads; they should be low, and the full "
    "dots above the grey."
)
HISTOGRAM_NOTE = (
    "Filled: estimate of all live latents. Line: latents measured by zero ablation, each counted "
    "as often as it stands for live ones. Latents count once, however active; the upright lines "
    "are means weighted by activity (dashed: estimate). Bad to see: a heap at or below 0, latents "
    "no more causal than a random direction, or line and filling far apart."
)
HISTOGRAM_INERT = (
    " Dotted: latents of features that the model never reads; they should stand apart, on the left."
)
AGREEMENT_NOTE = (
    "Rank correlation over the measured latents: of effect E above the diagonal, of NCES below; "
    "n/a: fewer than 5 latents, or all alike. Bad to see: values near 0 or orange; a verdict on a "
    "latent then hangs on how it was intervened on."
)
MASS_NOTE = (
    "Causal mass: sum over live latents of activity times estimated effect. Taking latents by "
    "their estimate is the best order by construction. Bad to see: a line far lower by activation "
    "mass: the most active latents are not those that matter; or one that rises late: effect is "
    "spread thinly over all latents."
)


@dataclass(frozen=True)
class Sample:
    """Some latents of a dictionary with their effects, all `[n]`."""

    weight: Tensor  # live latents that each stands for
    frequency: Tensor
    mean_code: Tensor  # where active
    effect: Tensor  # E, nats
    control: Tensor  # C, nats

    @property
    def mass(self) -> Tensor:
        """Mean code over all tokens."""
        return self.frequency * self.mean_code

    @property
    def nces(self) -> Tensor:
        """(E - C) / (E + C), NaN where that is undefined."""
        return nces(self.effect, self.control)

    @property
    def mean(self) -> float | None:
        """Mean NCES by activity."""
        value, weight = self.nces, self.weight * self.frequency
        defined = value.isfinite()
        total = float(weight[defined].sum())
        return float((value * weight)[defined].sum()) / total if total else None

    def at(self, mask: Tensor) -> "Sample":
        """Those where `mask [n]` holds."""
        columns = (self.weight, self.frequency, self.mean_code, self.effect, self.control)
        return Sample(*(column[mask] for column in columns))


def figures_of(measured: Measured, *, inert: Tensor | None = None) -> tuple[Figure, ...]:
    """The pictures of one dictionary; none without a live latent.

    `inert [m]`: which of the measured latents belong to features that the model never reads, where
    that is known.
    """
    live, sample = live_sample(measured), None
    if not len(live.effect):
        return ()
    if ABLATION in measured.by_type:
        codes, latent = measured.latents.codes, measured.latent
        sums = measured.by_type[ABLATION].overall
        sample = Sample(
            measured.weight,
            codes.frequency[latent],
            codes.mean_active[latent],
            sums.effect,
            sums.against,
        )
    figures = (
        _cloud(live, sample, inert),
        _histogram(live, sample, inert),
        _agreement(measured.estimate, measured.by_type, measured.latent),
        _mass(live),
    )
    return tuple(figure for figure in figures if figure is not None)


def live_sample(measured: Measured) -> Sample:
    """All live latents with their estimated effects, each standing for itself."""
    live, codes, guess = measured.latents.live, measured.latents.codes, measured.estimate
    return Sample(
        torch.ones(len(live)),
        codes.frequency[live],
        codes.mean_active[live],
        guess.effect[live],
        guess.against[live],
    )


def _split(measured: Sample | None, inert: Tensor | None) -> list[tuple[str, Sample]]:
    """The measured latents that the model may read, and those that it never does."""
    if measured is None:
        return []
    if inert is None:
        return [("measured", measured)]
    return [("causal", measured.at(~inert)), ("inert", measured.at(inert))]


def _cloud(live: Sample, measured: Sample | None, inert: Tensor | None) -> Figure | None:
    """Effects and controls against activation mass."""
    estimated = _triples(live)
    if not estimated:
        return None
    drawn = thinned([(mass, effect) for mass, effect, _ in estimated], DOTS)
    points = [Points("estimated", [x for x, _ in drawn], [y for _, y in drawn], "faint")]
    counted = []
    for name, sample in _split(measured, inert):
        rows = _triples(sample)
        mass, effect = [mass for mass, _, _ in rows], [effect for _, effect, _ in rows]
        points.append(Points(name, mass, effect, "cross" if name == "inert" else "dot"))
        control = [control for _, _, control in rows]
        points.append(Points(f"control of {name}", mass, control, "ring"))
        counted.append(f"{len(rows)} {name}")
    return Scatter(
        "nces_cloud",
        "Effect against activation mass",
        CLOUD_NOTE + (CLOUD_INERT if inert is not None else ""),
        Axis("activation mass (mean code)", log=True),
        Axis("effect E (nats)", log=True),
        tuple(points),
        band([(mass, control) for mass, _, control in estimated]),
        counts="; ".join(
            text
            for text in (f"{len(drawn)} of {len(estimated)} estimated", ", ".join(counted))
            if text
        ),
    )


def _triples(sample: Sample) -> list[tuple[float, float, float]]:
    """(mass, E, C) of the latents that have them, by mass; what has no mass cannot stand on a log
    axis.
    """
    rows = torch.stack([sample.mass, sample.effect, sample.control], 1)
    rows = rows[rows.isfinite().all(1) & (rows[:, 0] > 0)]
    return sorted((m, e, c) for m, e, c in rows.tolist())


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` points, taken evenly, the first and last among them."""
    n = min(len(points), most)
    return [points[round(i * (len(points) - 1) / max(n - 1, 1))] for i in range(n)]


def band(points: Sequence[tuple[float, float]]) -> Band | None:
    """5 % and 95 % of the values of (mass, value), sorted by mass, in up to 12 groups of equally
    many, reaching from end to end; None with too few.
    """
    if len(points) < IN_BAND:
        return None
    groups = torch.tensor(points, dtype=torch.double).tensor_split(
        min(STEPS, len(points) // IN_BAND)
    )
    ends = torch.tensor([0.05, 0.95], dtype=torch.double)
    bounds = [group[:, 1].quantile(ends).tolist() for group in groups]
    bounds = [bounds[0], *bounds, bounds[-1]]
    middle = [float(group[:, 0].median()) for group in groups]
    return Band(
        "90 % of the controls",
        [points[0][0], *middle, points[-1][0]],
        [low for low, _ in bounds],
        [high for _, high in bounds],
    )


def _histogram(live: Sample, measured: Sample | None, inert: Tensor | None) -> Figure | None:
    """NCES of live latents, each counting once."""
    mean = live.mean
    if mean is None:
        return None
    estimated = _binned(live)
    bins = {name: _binned(sample) for name, sample in _split(measured, inert)}
    total = sum(map(sum, bins.values()))
    counts = {"estimated": [weight / sum(estimated) for weight in estimated]}
    counts |= {name: [weight / total for weight in w] for name, w in bins.items() if any(w)}
    marks = {"mean, measured": None if measured is None else measured.mean, "mean, estimated": mean}
    return Steps(
        "nces_histogram",
        "NCES of the latents",
        HISTOGRAM_NOTE + (HISTOGRAM_INERT if inert is not None else ""),
        Axis("NCES", low=-1, high=1),
        Axis("share of live latents"),
        [-1 + 2 * i / BINS for i in range(BINS + 1)],
        counts,
        marks,
    )


def _binned(sample: Sample) -> list[float]:
    """Weight of the latents in each bin of NCES."""
    defined = sample.nces.isfinite()
    place = ((sample.nces[defined].double() + 1) / 2 * BINS).long().clamp(max=BINS - 1)
    return place.bincount(sample.weight[defined].double(), minlength=BINS).tolist()


def _agreement(estimate: Sums, by_type: Mapping[str, Contexts], chosen: Tensor) -> Figure | None:
    """Rank correlations between the types, and with the estimate, over the measured latents."""
    if not by_type:
        return None
    effects = [*(contexts.overall.effect for contexts in by_type.values()), estimate.effect[chosen]]
    verdicts = [*(contexts.overall.nces for contexts in by_type.values()), estimate.nces[chosen]]
    names = [*by_type, ESTIMATE]

    def cell(i: int, j: int) -> float | None:
        if i == j:
            return None
        values = effects if i < j else verdicts
        return rank_correlation(values[i], values[j])

    numbers = range(len(names))
    return Heat(
        "nces_agreement",
        "Agreement of the types of intervention",
        AGREEMENT_NOTE,
        names,
        names,
        [[cell(i, j) for j in numbers] for i in numbers],
        -1,
        1,
        printed=True,
    )


# Causal mass --------------------------------------------------------------------------------------


def orders(live: Sample) -> dict[str, list[float]]:
    """Share of the estimated causal mass in the first 1, 2, ... live latents, taken in two orders;
    empty where there is no mass.
    """
    causal_mass = live.frequency * live.effect
    shares = {}
    for name, key in (("estimated effect", causal_mass), ("activation mass", live.mass)):
        defined = causal_mass.isfinite() & key.isfinite()
        order = key[defined].argsort(descending=True, stable=True)
        taken = causal_mass[defined][order].double().cumsum(0)
        if len(taken) and taken[-1] > 0:
            shares[name] = (taken / taken[-1]).clamp(max=1).tolist()
    return shares


def reached(shares: Sequence[float], wanted: float) -> int:
    """How many latents it takes to have the `wanted` share of the causal mass."""
    return next((i for i, share in enumerate(shares, 1) if share >= wanted - 1e-9), len(shares))


def _mass(live: Sample) -> Figure | None:
    """Share of causal mass against latents taken, at numbers spaced evenly on a log axis."""
    lines = {}
    for name, shares in orders(live).items():
        most = len(shares)
        taken = sorted({round(most ** (i / (TAKEN - 1))) for i in range(TAKEN)})
        lines[f"Taken by {name}"] = (taken, [shares[n - 1] for n in taken])
    if not lines:
        return None
    return Curves(
        "causal_mass",
        "Causal mass against number of latents",
        MASS_NOTE,
        Axis("latents taken", log=True, low=1),
        Axis("share of causal mass", low=0, high=1.02),
        lines,
    )


def mass_table(measured: Measured) -> dict[str, Table]:
    """How many latents carry a part of the estimated causal mass."""
    shares = orders(live_sample(measured))
    rows = [
        (f"by {name}", *(reached(taken, wanted) for wanted in CARRIED))
        for name, taken in shares.items()
    ]
    columns = ("latents taken", *(f"{wanted:.0%} of the mass" for wanted in CARRIED))
    table = Table("How many latents carry the estimated causal mass", columns, rows)
    return {"causal_mass": table} if rows else {}
