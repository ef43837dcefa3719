"""Output folder -> one self-contained html page that opens from disk, offline."""

from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from saelab.evals import EVALS
from saelab.evals.result import Metric
from saelab.report import tables, worlds
from saelab.report.draw import runs
from saelab.report.evaluations import evaluation_section, evaluation_titles
from saelab.report.latents import latents_section
from saelab.report.read import Results, RunRecord, mapping, number, read_results
from saelab.report.text import MISSING, esc, fact, show, signed
from saelab.store import write_bytes
from saelab.train.health import EXPLAINED_VARIANCE, L0

Section = Callable[[Results], str]


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
    sections = _world_sections(results) if results.in_world else _sections(results)
    nav = "".join(f'<a href="#{key}">{title}</a>' for key, (title, _) in sections.items())
    body = "".join(
        f'<section id="{key}"><h2>{title}</h2>{make(results)}</section>'
        for key, (title, make) in sections.items()
    )
    css, script = (
        files("saelab.report").joinpath(name).read_text(encoding="utf-8")
        for name in ("style.css", "page.js")
    )
    title = esc(results.title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>saelab report: {title}</title><style>{css}</style></head><body>"
        f'<header class="top"><div><span class="brand">saelab</span> <h1>{title}</h1></div><nav>{nav}</nav></header>'
        f"<main>{worlds.alarms(results)}{tables.health_lines(results)}{body}</main><script>{script}</script></body></html>\n"
    )


def _sections(results: Results) -> dict[str, tuple[str, Section]]:
    """Key -> title and content, of SAEs of a language model."""
    sections: dict[str, tuple[str, Section]] = {
        "verdicts": ("Verdicts", _verdicts),
        "summary": ("Summary", _summary),
        "contrasts": ("Contrasts", tables.contrast_table),
        "frontier": ("Frontier", _frontier),
        "training": ("Training", _training),
        **_evaluations(results),
        "facts": ("Run facts", _facts),
    }
    if any(run.latents is not None for run in results.runs):
        sections["latents"] = ("Latents", latents_section)
    return sections


def _world_sections(results: Results) -> dict[str, tuple[str, Section]]:
    """The same of SAEs of a world."""
    return {
        "world": ("World", worlds.world_section),
        **_evaluations(results),
        "verdicts": ("Verdicts", _verdicts),
        "contrasts": ("Contrasts", tables.contrast_table),
        "frontier": ("Frontier", _frontier),
        "training": ("Training", _training),
        "facts": ("Run facts", _facts),
    }


def _evaluations(results: Results) -> dict[str, tuple[str, Section]]:
    return {
        name: (esc(title), partial(evaluation_section, name=name))
        for name, title in evaluation_titles(results).items()
    }


def _verdicts(results: Results) -> str:
    facts = results.facts
    sizes = [run.l0 for run in results.runs if run.l0 is not None and not run.problems]
    low, high = min(sizes, default=None), max(sizes, default=None)
    sparsity = (
        MISSING
        if low is None or high is None
        else show(low)
        if low == high
        else f"{show(low)} to {show(high)}"
    )
    asked = {number(mapping(run.config.get("spec")).get("l0")) for run in results.runs} - {None}
    if len(asked) == 1:
        sparsity += f" (asked for: {fact(asked.pop())})"
    variants = ", ".join(
        f"{tables.swatch(i)}<b>{esc(name)}</b>" for i, name in enumerate(results.variants)
    )
    unhealthy = sum(1 for run in results.runs if run.problems)
    count = f"{len(results.runs)} run{'s' * (len(results.runs) != 1)}"
    where = f"on world {fact(facts.get('world'))}" if results.in_world else _model(facts)
    lead = f'<p class="lead">Compared: {variants}; {count} {where}, at L0 {sparsity}.</p>'
    if unhealthy:
        lead += f'<p class="alarm">{unhealthy} of {count} unhealthy: not in the means and the frontier, but in every table.</p>'
    sentences = "".join(f"<li>{_sentence(results, row)}</li>" for row in results.contrasts)
    return lead + (
        f'<ul class="verdicts">{sentences}</ul>' if sentences else f"<p>Contrasts: {MISSING}.</p>"
    )


def _model(facts: dict[str, Any]) -> str:
    return f"on {fact(facts.get('model'))}, hook <code>{fact(facts.get('hook'))}</code>"


def _sentence(results: Results, row: dict[str, Any]) -> str:
    treatment, baseline = (
        esc(row.get("treatment") or "unnamed"),
        esc(row.get("baseline") or "unnamed"),
    )
    name = esc(results.metric(str(row.get("metric"))).label)
    verdict = tables.verdict_of(row)
    says = {
        "better": f"<b>{treatment}</b> is better than <b>{baseline}</b> in {name}",
        "worse": f"<b>{treatment}</b> is worse than <b>{baseline}</b> in {name}",
        "no difference shown": f"No difference shown between <b>{treatment}</b> and <b>{baseline}</b> in {name}",
        "not comparable": f"<b>{treatment}</b> and <b>{baseline}</b> cannot be compared in {name}",
    }.get(verdict, f"<b>{treatment}</b> against <b>{baseline}</b> in {name}: {esc(verdict)}")
    value, low, high = (number(row.get(key)) for key in ("value", "low", "high"))
    if value is None:
        ending = f" ({esc(row['reason'])})" if row.get("reason") else ""
    elif low is None or high is None:
        ending = f" ({signed(value)}, no interval)"
    else:
        ending = f" ({signed(value)}, 95 % interval {signed(low)} to {signed(high)})"
    return f"{tables.verdict_badge(row)} <span>{says}{ending}.</span>"


def _summary(results: Results) -> str:
    known = map(results.metric, [L0, *tables.metric_names(results)])
    meanings = "".join(
        f"<dt>{esc(m.label)}</dt><dd>{esc(m.meaning)}</dd>" for m in known if m.meaning
    )
    return (
        '<p class="note">Mean over healthy seeds. In brackets the 95 % interval over documents: the mean of the bounds of each '
        "seed. It leaves out the spread between seeds, which the rows that open show.</p>"
        f"{tables.summary_table(results)}"
        "<details><summary>All metrics of all "
        f"runs</summary>{tables.all_metrics(results)}</details>"
        f'<details><summary>What the numbers mean</summary><dl class="meanings">{meanings}</dl></details>'
    )


def _legend(results: Results) -> str:
    swatches = "".join(
        f"<span>{tables.swatch(i)}{esc(name)}</span>" for i, name in enumerate(results.variants)
    )
    return f'<p class="legend">{swatches}</p>'


def _frontier(results: Results) -> str:
    """What is kept against L0, a panel a score, a point a run; then what else is traded for what."""
    if results.in_world:
        names = worlds.frontier_metrics(results)
        note = "A point is a run; rows that are compared stand at one L0."
    else:
        names = [metric.key for metric in _traded() if metric.against == L0]
        note = (
            "Up and to the left is better: more kept with fewer active latents. Bars are 95 % "
            "intervals."
        )
    panels, absent = [], []
    for name in names:
        label, points = results.metric(name).label, []
        for run in results.runs:
            entry = run.metrics.get(name, {})
            value = number(entry.get("value"))
            if value is None or run.l0 is None or run.problems:
                why = "unhealthy" if run.problems else "undefined" if entry else "not measured"
                absent.append(f"{esc(run.label)} in {esc(label)} ({why})")
            else:
                index = results.variants.index(run.variant)
                bounds = (number(entry.get("low")), number(entry.get("high")))
                points.append(runs.Point(index, run.l0, value, *bounds))
        panels.append((label, points))
    svg = runs.frontier(panels, "Sparsity-fidelity frontier")
    trades = "".join(_trade(results, m) for m in _traded() if m.against != L0)
    figure = f'<figure>{svg}</figure><p class="note">{note}</p>'
    return _legend(results) + figure + tables.not_drawn(absent) + trades


def _traded() -> list[Metric]:
    """The metrics that are shown over another one."""
    return [metric for each in EVALS.values() for metric in each.metrics if metric.against]


def _trade(results: Results, y: Metric) -> str:
    """One score against the one it is traded for, once two rows have both."""
    x, points = results.metric(y.against), []
    for run in results.runs:
        kept, value = (number(run.metrics.get(m.key, {}).get("value")) for m in (x, y))
        if kept is not None and value is not None and value > 0 and not run.problems:
            points.append(runs.Point(results.variants.index(run.variant), kept, value))
    if len({point.variant for point in points}) < 2:
        return ""
    svg = runs.trade(points, x.label, y.label, f"{y.label} against {x.label}")
    sides = [
        words[metric.better == "higher"]
        for metric, words in ((y, ("Down", "Up")), (x, ("to the left", "to the right")))
    ]
    note = f"{' and '.join(sides)} is better, among rows of one L0. {y.label}: {y.meaning}"
    return f'<figure>{svg}</figure><p class="note">{esc(note)}</p>'


def _training(results: Results) -> str:
    panels, most = [], max(len(results.of(variant)) for variant in results.variants)
    for title, key in (
        ("Loss (log)", "loss"),
        ("Explained variance", EXPLAINED_VARIANCE),
        ("L0", L0),
        ("Share of dead latents", "dead"),
    ):
        lines = []
        for run in results.runs:
            rows = [row for row in run.curve if number(row.get("tokens")) is not None]
            x = [number(row.get("tokens")) or 0.0 for row in rows]
            y = [number(row.get(key)) for row in rows]
            if any(value is not None for value in y):
                index = results.variants.index(run.variant)
                lines.append(runs.Line(index, results.of(run.variant).index(run), x, y))
        panels.append((title, lines))
    svg = runs.curves(panels, "Training curves")
    absent = [
        f"{esc(run.label)} (training curve not measured)" for run in results.runs if not run.curve
    ]
    note = '<p class="note">Losses of different variants have different terms: compare their shape, not their height.</p>'
    return (
        _legend(results)
        + f"<figure>{svg}</figure>"
        + f'<p class="note">{tables.seeds_legend(most)}</p>'
        + note
        + tables.not_drawn(absent)
    )


def _facts(results: Results) -> str:
    notes = "".join(f"<li>{esc(note)}</li>" for note in results.notes)
    missing = f"<h3>Files missing or damaged</h3><ul>{notes}</ul>" if notes else ""
    rows = "".join(_run_fact(run) for run in results.runs)
    facts = worlds.facts(results) if results.in_world else tables.facts_table(results.facts)
    return (
        f"{facts}<h3>Runs</h3>"
        '<div class="scroll"><table class="small"><thead><tr><th>Run</th><th>Folder</th><th>Health</th>'
        "<th>Steps</th><th>Tokens</th><th>Last "
        f"loss</th></tr></thead><tbody>{rows}</tbody></table></div>"
        "<details><summary>Configuration of every "
        f"run</summary>{tables.config_table(results)}</details>{missing}"
    )


def _run_fact(run: RunRecord) -> str:
    last = run.curve[-1] if run.curve else {}
    cells = "".join(
        f"<td>{MISSING if number(last.get(key)) is None else fact(last[key])}</td>"
        for key in ("step", "tokens", "loss")
    )
    health = "; ".join(esc(text) for text in [*run.problems, *run.warnings])
    return (
        f'<tr><th scope="row">{esc(run.label)}</th><td><code>runs/{esc(run.name)}</code></td>'
        f"<td>{tables.health_badge(run)} {health}</td>{cells}</tr>"
    )
