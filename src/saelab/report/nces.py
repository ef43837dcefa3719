"""Effects of single latents: the pictures of the NCES evaluation."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from saelab.report import nces_numbers, nces_plots, tables
from saelab.report.nces_numbers import EVAL, Latent
from saelab.report.read import Results, RunRecord, mapping, number
from saelab.report.text import MISSING, esc, fact, show

# scores that are undefined where there is no latent to draw
TOLD = ("nces_fisher", "nces_auroc_fisher")
PARTS = (0.5, 0.9)  # of the causal mass, in the table
ORDERS: dict[str, Callable[[Latent], float | None]] = {
    "Taken by estimated effect": lambda latent: latent.on_text,
    "Taken by activation mass": lambda latent: latent.mass,
}
Panel = TypeVar("Panel")


def measured_somewhere(results: Results) -> bool:
    """Whether some run has effects of single latents, or should have: then the page has a section
    on them.
    """
    return any(EVAL in run.evals for run in results.runs)


def nces_section(results: Results) -> str:
    """The four pictures, each with a sentence on what would be bad to see; what cannot be drawn is
    said, with the reason.
    """
    bare = [esc(variant) for variant in results.variants if not _measured(results, variant)]
    missing = (
        f'<p class="absent">Effects of the latents of {", ".join(bare)}: {MISSING}.</p>'
        if bare
        else ""
    )
    parts = (_cloud_part, _histogram_part, _agreement_part, _mass_part)
    return missing + "".join(part(results) for part in parts)


def _panels(
    results: Results, make: Callable[[RunRecord, int], Panel | None], reason: str
) -> tuple[list[Panel], str]:
    """A panel a variant, of its first healthy seed that has one; the others by name, with the
    reason.
    """
    panels, absent = [], []
    for index, variant in enumerate(results.variants):
        made = (
            make(run, index)
            for run in sorted(_measured(results, variant), key=lambda run: bool(run.problems))
        )
        panel = next((panel for panel in made if panel is not None), None)
        if panel is not None:
            panels.append(panel)
        elif _measured(results, variant):
            absent.append(f"{esc(variant)} ({_why(_measured(results, variant), reason)})")
    return panels, tables.not_drawn(absent)


def _measured(results: Results, variant: str) -> list[RunRecord]:
    """The runs of a variant that have a result; the variants that have none are named once, above
    the pictures.
    """
    return [run for run in results.of(variant) if run.evals.get(EVAL)]


def _why(runs: Sequence[RunRecord], reason: str) -> str:
    """The reason, unless nothing was live, or the evaluation itself says why it measured no latent."""
    scores = [
        {name: mapping(score) for name, score in mapping(run.evals[EVAL].get("scores")).items()}
        for run in runs
    ]
    told = [each[name] for each in scores for name in TOLD if name in each]
    said = {
        str(score["reason"]) for score in told if score.get("reason") and score.get("value") is None
    }
    return esc("; ".join(sorted(said))) or reason


def _part(title: str, svg: str, note: str, absent: str) -> str:
    picture = f'<figure>{svg}</figure><p class="note">{note}</p>' if svg else ""
    return f"<h3>{title}</h3>{picture}{absent}"


def _cloud_part(results: Results) -> str:
    title = "Effect against activation mass"
    panels, absent = _panels(
        results, nces_numbers.cloud, "no latent was recorded with frequency, mean code and effect"
    )
    note = (
        "Activation mass: mean code over all tokens, silent ones included, in the activations' "
        "units; E: mean where active. "
        "Faint dots: estimate of live latents, drawn evenly by mass where there are many. Full "
        "dots: latents measured by zero "
        "ablation; rings: random directions of the same length in their place. Grey: where 90 % "
        "of the estimated controls lie "
        "at that mass. Dots on the lower edge have no effect. The first healthy seed of each "
        "variant. Bad to see: full dots in "
        "the grey at large mass; these latents spend activation on what the model does not read "
        "more than any other direction."
    )
    if results.in_world:
        note += (
            " Crosses: latents of features that the model never reads; they should be low, and "
            "the full dots above the grey."
        )
    return _part(title, nces_plots.clouds(panels, title) if panels else "", note, absent)


def _histogram_part(results: Results) -> str:
    title = "NCES of the latents"
    panels, absent = _panels(
        results, nces_numbers.histogram, "no latent was recorded with frequency, effect and control"
    )
    note = (
        "Filled: estimate of all live latents. Line: latents measured by zero ablation, each "
        "counted as often as it stands for "
        "live ones. Latents count once, however active; the upright lines are means weighted by "
        "activity (dashed: estimate). "
        "Bad to see: a heap at or below 0, latents no more causal than a random direction, or "
        "line and filling far apart."
    )
    if results.in_world:
        note += (
            " Dotted: latents of features that the model never reads; they should stand apart, on "
            "the left."
        )
    return _part(title, nces_plots.histograms(panels, title) if panels else "", note, absent)


def _agreement_part(results: Results) -> str:
    title = "Agreement of the types of intervention"
    panels, absent = _panels(
        results, lambda run, _: nces_numbers.agreement(run), "fewer than two types were measured"
    )
    note = (
        "Rank correlation over the measured latents: of effect E above the diagonal, of NCES "
        "below; n/a: fewer than 5 latents, "
        "or all alike. Bad to see: values near 0 or orange; a verdict on a latent then hangs on "
        "how it was intervened on."
    )
    return _part(title, nces_plots.agreements(panels, title) if panels else "", note, absent)


def _mass_part(results: Results) -> str:
    title = "Causal mass against number of latents"
    runs = [_usable(_measured(results, variant)) for variant in results.variants]
    each = [[_curves(usable, key) for usable in runs] for key in ORDERS.values()]
    rows, absent = [], []
    for i, variant in enumerate(results.variants):
        if each[0][i] and each[1][i]:
            rows.append(_mass_row(i, variant, runs[i], [curves[i] for curves in each]))
        elif runs[i]:
            absent.append(
                f"{esc(variant)} "
                f"({_why(runs[i], 'no latent with an effect was recorded with frequency and mean code')})"
            )
    note = (
        "Causal mass: sum over live latents of activity times estimated effect. Line: mean over "
        "seeds; its shade: their range. "
        "Taking latents by their estimate is the best order by construction. Bad to see: a line "
        "far lower on the right: the "
        "most active latents are not those that matter; or one that rises late: effect is spread "
        "thinly over all latents."
    )
    if not rows:
        return _part(title, "", "", tables.not_drawn(absent))
    panels = [
        (name, [nces_numbers.curve(shares, i) for i, shares in enumerate(variants) if shares])
        for name, variants in zip(ORDERS, each, strict=True)
    ]
    return _part(
        title,
        nces_plots.mass_curves(panels, title),
        note,
        _mass_table(rows) + tables.not_drawn(absent),
    )


def _usable(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The healthy seeds, or all if none is."""
    return [run for run in runs if not run.problems] or list(runs)


def _curves(runs: Sequence[RunRecord], key: Callable[[Latent], float | None]) -> list[list[float]]:
    return [shares for run in runs if (shares := nces_numbers.mass_order(run, key)) is not None]


def _mass_row(
    index: int, variant: str, runs: Sequence[RunRecord], orders: Sequence[Sequence[Sequence[float]]]
) -> str:
    """Causal mass and how many latents carry parts of it: means over seeds."""
    masses = [
        _mean([run.metrics.get(name, {}).get("value") for run in runs])
        for name in ("causal_mass", "causal_mass_fisher")
    ]
    counts = [
        _mean([nces_numbers.reached(shares, part) for shares in seeds])
        for part in PARTS
        for seeds in orders
    ]
    texts = [MISSING if v is None else show(v) for v in masses] + [
        fact(None if v is None else round(v)) for v in counts
    ]
    cells = "".join(f"<td>{text}</td>" for text in texts)
    return f'<tr><th scope="row">{tables.swatch(index)}{esc(variant)}</th>{cells}</tr>'


def _mean(values: Sequence[object]) -> float | None:
    known = [v for v in map(number, values) if v is not None]
    return sum(known) / len(known) if known else None


def _mass_table(rows: Sequence[str]) -> str:
    parts = "".join(
        f"<th>{100 * part:.0f} % by {order}</th>"
        for part in PARTS
        for order in ("effect", "activation")
    )
    head = (
        f"<th>Variant</th><th>Causal mass, measured (nats per token)</th><th>estimated</th>{parts}"
    )
    return (
        f'<div class="scroll"><table id="mass-table" class="small"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        '</table></div><p class="note">How many latents carry a part of the estimated causal mass, by the order of the left '
        "and of the right picture; means over seeds.</p>"
    )
