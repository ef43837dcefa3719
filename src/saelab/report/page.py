"""Output folder -> one self-contained html page that opens from disk, offline."""

from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path

from saelab.evals import EVALS
from saelab.evals.result import Metric
from saelab.report import html, tables, worlds
from saelab.report.draw import runs
from saelab.report.evaluations import evaluation_section, evaluation_titles
from saelab.report.latents import latents_section
from saelab.report.read import Results, RunRecord, mapping, number, read_results
from saelab.store import write_bytes
from saelab.train.health import EXPLAINED_VARIANCE, L0

Section = tuple[str, Callable[[Results], str]]  # title and content
CURVES = {
    "Loss (log)": "loss",
    "Explained variance": EXPLAINED_VARIANCE,
    "L0": L0,
    "Share of dead latents": "dead",
}
DIFFERENT = (
    "Losses of different variants have different terms: compare their shape, not their height."
)


def write_report(folder: Path) -> Path:
    """Read an output folder and write `<folder>/report.html` atomically; return its path.

    The page needs no network and no other file. What was not measured is said on the page, not left
    out. Raises `FileNotFoundError` when the folder holds neither `summary.json` nor runs.
    """
    path = Path(folder) / "report.html"
    page = render(read_results(Path(folder)))
    # a broken token may hold half a surrogate pair
    write_bytes(path, page.encode("utf-8", "replace"))
    return path


def render(results: Results) -> str:
    """The whole page as text; equal results, equal text."""
    sections = _sections(results)
    links = "".join(html.tag("a", title, href=f"#{key}") for key, (title, _) in sections.items())
    body = "".join(
        html.tag("section", html.tag("h2", title) + content(results), id=key)
        for key, (title, content) in sections.items()
    )
    css, script = (
        files("saelab.report").joinpath(name).read_text(encoding="utf-8")
        for name in ("style.css", "page.js")
    )
    title = html.esc(results.title)
    brand = f'<div><span class="brand">saelab</span> <h1>{title}</h1></div>'
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>saelab report: {title}</title><style>{css}</style></head>"
        f"<body>{html.tag('header', brand + html.tag('nav', links), 'top')}<main>"
        f"{worlds.alarms(results)}{tables.health_lines(results)}{body}"
        f"</main><script>{script}</script></body></html>\n"
    )


def _sections(results: Results) -> dict[str, Section]:
    """What stands on the page, by the key that links lead to.

    What a world's own evaluations say comes first there; on a language model the comparison does.
    """
    evaluations: dict[str, Section] = {
        name: (html.esc(title), partial(evaluation_section, name=name))
        for name, title in evaluation_titles(results).items()
    }
    verdicts: dict[str, Section] = {"verdicts": ("Verdicts", _verdicts)}
    training: dict[str, Section] = {"training": ("Training", _training)}
    compared: dict[str, Section] = {
        "contrasts": ("Contrasts", tables.contrast_table),
        "frontier": ("Frontier", _frontier),
        **training,
    }
    facts: dict[str, Section] = {"facts": ("Run facts", _facts)}
    if results.in_world:
        world = {"world": ("World", worlds.world_section)}
        return world | evaluations | (training if results.alone else verdicts | compared) | facts
    if results.alone:
        run: dict[str, Section] = {"run": ("Run", _lead)}
        sections = run | {"summary": ("Scores", _summary)} | training | evaluations | facts
    else:
        sections = verdicts | {"summary": ("Summary", _summary)} | compared | evaluations | facts
    if any(run.latents is not None for run in results.runs):
        sections["latents"] = ("Latents", latents_section)
    return sections


def _lead(results: Results) -> str:
    """What was trained, on what, and at which sparsity."""
    sizes = [run.l0 for run in results.runs if run.l0 is not None and not run.problems]
    ends = sorted({min(sizes), max(sizes)}) if sizes else []
    sparsity = " to ".join(map(html.show, ends)) or html.MISSING
    asked = {number(mapping(run.config.get("spec")).get("l0")) for run in results.runs} - {None}
    if len(asked) == 1:
        sparsity += f" (asked for: {html.fact(asked.pop())})"
    variants = ", ".join(
        tables.swatch(i) + html.tag("b", html.esc(name)) for i, name in enumerate(results.variants)
    )
    facts, count = results.facts, html.counted(len(results.runs), "run")
    where = (
        f"{html.fact(facts.get('model'))}, hook {html.tag('code', html.fact(facts.get('hook')))}"
    )
    if results.in_world:
        where = f"world {html.fact(facts.get('world'))}"
    rates = facts.get("learning_rates")  # older folders do not say
    tuned = f"; learning rates {html.fact(rates)}" if rates else ""
    if results.alone:
        return html.tag("p", f"{variants}, trained on {where}, at L0 {sparsity}{tuned}.", "lead")
    text = f"Compared: {variants}; {count} on {where}, at L0 {sparsity}{tuned}."
    lead = html.tag("p", text, "lead")
    unhealthy = sum(bool(run.problems) for run in results.runs)
    if unhealthy:
        left_out = "not in the means and the frontier, but in every table"
        lead += html.tag("p", f"{unhealthy} of {count} unhealthy: {left_out}.", "alarm")
    return lead


def _verdicts(results: Results) -> str:
    """What was compared, and a sentence a contrast."""
    lead = _lead(results)
    sentences = html.tags("li", (_sentence(results, contrast) for contrast in results.contrasts))
    if not sentences:
        return lead + html.tag("p", f"Contrasts: {html.MISSING}.")
    return lead + html.tag("ul", sentences, "verdicts")


def _sentence(results: Results, contrast: dict) -> str:
    verdict = tables.verdict_of(contrast)
    metric = html.esc(results.metric(str(contrast.get("metric"))).label)
    names = (html.tag("b", html.esc(name)) for name in tables.compared(contrast))
    says = tables.VERDICTS.get(verdict, tables.OTHER).sentence.format(*names, metric)
    if verdict not in tables.VERDICTS:
        says += f": {html.esc(verdict)}"
    value, low, high = (number(contrast.get(key)) for key in ("value", "low", "high"))
    if value is None:
        ending = f" ({html.esc(contrast['reason'])})" if contrast.get("reason") else ""
    elif low is None or high is None:
        ending = f" ({html.signed(value)}, no interval)"
    else:
        ending = f" ({html.signed(value)}, 95 % interval {html.signed(low)} to {html.signed(high)})"
    return f"{tables.verdict_badge(contrast)} {html.tag('span', f'{says}{ending}.')}"


def _summary(results: Results) -> str:
    remark = (
        "Mean over healthy seeds. In brackets the 95 % interval over documents: the mean of "
        "the bounds of each seed. It leaves out the spread between seeds, which the rows that "
        "open show."
    )
    if results.alone:
        remark = "In brackets the 95 % interval over documents."
    return (
        html.note(remark)
        + tables.summary_table(results)
        + html.folded("All metrics of all runs", tables.all_metrics(results))
        + tables.meanings(results, [L0, *tables.metric_names(results)])
    )


def _legend(results: Results) -> str:
    names = (tables.variant_name(results, variant) for variant in results.variants)
    return html.tag("p", html.tags("span", names), "legend")


def _frontier(results: Results) -> str:
    """What is kept against L0, a panel a score, a point a run; then what else is traded."""
    traded = [m for evaluation in EVALS.values() for m in evaluation.metrics if m.against]
    if results.in_world:
        names = worlds.frontier_metrics(results)
        remark = "A point is a run; rows that are compared stand at one L0."
    else:
        names = [metric.key for metric in traded if metric.against == L0]
        remark = (
            "Over L0, up and to the left is better: more kept with fewer active latents. Bars are "
            "95 % intervals."
        )
    panels, missing = [], []
    for name in names:
        label, points = results.metric(name).label, []
        for run in results.runs:
            entry, value = run.metrics.get(name, {}), run.value(name)
            if value is None or run.l0 is None or run.problems:
                why = "unhealthy" if run.problems else "undefined" if entry else "not measured"
                missing.append(f"{html.esc(run.label)} in {html.esc(label)} ({why})")
            else:
                place = results.variants.index(run.variant)
                bounds = (number(entry.get("low")), number(entry.get("high")))
                points.append(runs.Point(run.label, place, run.l0, value, *bounds))
        panels.append(runs.Trade("L0 (active latents per token)", label, points))
    for metric in traded:
        points = _traded(results, metric) if metric.against != L0 else []
        # two rows at least have both
        if len({point.variant for point in points}) > 1:
            x = results.metric(metric.against)
            panels.append(runs.Trade(x.label, metric.label, points, over_l0=False))
            up = "up" if metric.better == "higher" else "down"
            right = "to the right" if x.better == "higher" else "to the left"
            remark += html.esc(
                f" Over {x.label}, {up} and {right} is better, among rows of one L0. "
                f"{metric.label}: {metric.meaning}"
            )
    return (
        _legend(results)
        + runs.trades(panels, "Sparsity-fidelity frontier")
        + html.note(remark)
        + tables.not_drawn(missing)
    )


def _traded(results: Results, y: Metric) -> list[runs.Point]:
    """The runs that have a score and the one that it is traded for."""
    points = []
    for run in results.runs:
        kept, value = run.value(y.against), run.value(y.key)
        if kept is not None and value is not None and value > 0 and not run.problems:
            place = results.variants.index(run.variant)
            points.append(runs.Point(run.label, place, kept, value))
    return points


def _training(results: Results) -> str:
    panels = []
    for title, key in CURVES.items():
        lines = []
        for run in results.runs:
            steps = [step for step in run.curve if number(step.get("tokens")) is not None]
            x = [number(step.get("tokens")) or 0.0 for step in steps]
            y = [number(step.get(key)) for step in steps]
            if any(value is not None for value in y):
                place = results.variants.index(run.variant)
                seed = results.runs_of(run.variant).index(run)
                lines.append(runs.Line(run.label, place, seed, x, y))
        panels.append((title, lines))
    most = max(len(results.runs_of(variant)) for variant in results.variants)
    missing = [
        f"{html.esc(run.label)} (training curve not measured)"
        for run in results.runs
        if not run.curve
    ]
    return (
        ("" if results.alone else _legend(results))
        + runs.curves(panels, "Training curves")
        + html.note(tables.seeds_legend(most))
        + (html.note(DIFFERENT) if len(results.variants) > 1 else "")
        + tables.not_drawn(missing)
    )


def _facts(results: Results) -> str:
    heads = html.tags("th", ["Run", "Folder", "Health", "Steps", "Tokens", "Last loss"])
    wanted = worlds.WANTED if results.in_world else tables.WANTED
    if results.alone:  # one run has no facts of a comparison
        wanted = [name for name in wanted if name in results.facts]
    told = worlds.TOLD if results.in_world else ()
    others = {name: value for name, value in results.facts.items() if name not in told}
    content = tables.facts_table(others, wanted)
    content += html.tag("h3", "Runs") + html.table(
        heads, "".join(map(_run_fact, results.runs)), "small"
    )
    content += html.folded("Configuration of every run", tables.config_table(results))
    if results.notes:
        content += html.tag("h3", "Files missing or damaged")
        content += html.tag("ul", html.tags("li", map(html.esc, results.notes)))
    return content


def _run_fact(run: RunRecord) -> str:
    last = run.curve[-1] if run.curve else {}
    health = "; ".join(html.esc(text) for text in [*run.problems, *run.warnings])
    cells = [
        html.tag("code", f"runs/{html.esc(run.name)}"),
        f"{tables.health_badge(run)} {health}",
        *(
            html.MISSING if number(last.get(key)) is None else html.fact(last[key])
            for key in ("step", "tokens", "loss")
        ),
    ]
    return html.row(html.esc(run.label), html.tags("td", cells))
