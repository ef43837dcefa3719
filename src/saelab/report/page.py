"""Output folder -> one self-contained html page that opens from disk, offline."""

import math
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from saelab.report import plots, tables, worlds
from saelab.report.latents import latents_section
from saelab.report.metrics import METRICS, metric
from saelab.report.nces import measured_somewhere, nces_section
from saelab.report.read import Results, RunRecord, mapping, number, read_results
from saelab.report.text import MISSING, esc, fact, show, signed
from saelab.report.world_features import features_section
from saelab.store import write_bytes

SECTIONS = {
    "verdicts": "Verdicts",
    "summary": "Summary",
    "contrasts": "Contrasts",
    "frontier": "Frontier",
    "training": "Training",
    "density": "Density",
    "effects": "Effects of latents",
    "facts": "Run facts",
    "latents": "Latents",
}
WORLD_SECTIONS = {
    "world": "World",
    "features": "Learned and true features",
    "effects": "Effects of latents",
    "verdicts": "Verdicts",
    "contrasts": "Contrasts",
    "frontier": "Frontier",
    "training": "Training",
    "facts": "Run facts",
}


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
    bodies: dict[str, Callable[[Results], str]] = {
        "verdicts": _verdicts,
        "summary": _summary,
        "contrasts": tables.contrast_table,
        "frontier": _frontier,
        "training": _training,
        "density": _density,
        "facts": _facts,
        "latents": latents_section,
        "world": worlds.world_section,
        "features": features_section,
        "effects": nces_section,
    }
    titles = dict(WORLD_SECTIONS if results.in_world else SECTIONS)
    if not measured_somewhere(results):
        del titles["effects"]
    nav = "".join(f'<a href="#{key}">{title}</a>' for key, title in titles.items())
    sections = "".join(
        f'<section id="{key}"><h2>{title}</h2>{bodies[key](results)}</section>'
        for key, title in titles.items()
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
        f"<main>{worlds.alarms(results)}{tables.health_lines(results)}{sections}</main><script>{script}</script></body></html>\n"
    )


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
    sentences = "".join(f"<li>{_sentence(row)}</li>" for row in results.contrasts)
    return lead + (
        f'<ul class="verdicts">{sentences}</ul>' if sentences else f"<p>Contrasts: {MISSING}.</p>"
    )


def _model(facts: dict[str, Any]) -> str:
    return f"on {fact(facts.get('model'))}, hook <code>{fact(facts.get('hook'))}</code>"


def _sentence(row: dict[str, Any]) -> str:
    treatment, baseline = (
        esc(row.get("treatment") or "unnamed"),
        esc(row.get("baseline") or "unnamed"),
    )
    name = esc(metric(str(row.get("metric"))).label)
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
    meanings = "".join(
        f"<dt>{esc(m.label)}</dt><dd>{esc(m.meaning)}</dd>"
        for key, m in METRICS.items()
        if key not in ("cosine", "dead_share")
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


def _seeds_legend(results: Results) -> str:
    most = max(len(results.of(variant)) for variant in results.variants)
    styles = ("solid", "dashed", "dotted", "dash-dotted")
    text = ", ".join(
        f"{styles[i]} for the {('first', 'second', 'third', 'fourth')[i]}"
        for i in range(min(most, 4))
    )
    return f'<p class="note">Lines: {text} seed of a variant.</p>' if most > 1 else ""


def _frontier(results: Results) -> str:
    panels, absent = [], []
    for name in (
        worlds.frontier_metrics(results)
        if results.in_world
        else ("explained_variance", "ce_loss_score")
    ):
        points = []
        for run in results.runs:
            entry = run.metrics.get(name, {})
            value = number(entry.get("value"))
            if value is None or run.l0 is None or run.problems:
                why = "unhealthy" if run.problems else "undefined" if entry else "not measured"
                absent.append(f"{esc(run.label)} in {esc(metric(name).label)} ({why})")
            else:
                index = results.variants.index(run.variant)
                points.append(
                    plots.Point(
                        index, run.l0, value, number(entry.get("low")), number(entry.get("high"))
                    )
                )
        panels.append((metric(name).label, points))
    svg = plots.frontier(panels, "Sparsity-fidelity frontier")
    note = '<p class="note">Up and to the left is better: more kept with fewer active latents. Bars are 95 % intervals.</p>'
    if results.in_world:
        note = '<p class="note">A point is a run; rows that are compared stand at one L0.</p>'
    return (
        _legend(results)
        + f"<figure>{svg}</figure>{note}"
        + tables.not_drawn(absent)
        + _trade(results)
    )


def _trade(results: Results) -> str:
    """What a dictionary keeps of the activations against what it does to the model's predictions."""
    x, y, points = metric("explained_variance"), metric("kl_div_with_sae"), []
    for run in results.runs:
        kept, kl = (
            number(run.metrics.get(name, {}).get("value"))
            for name in ("explained_variance", "kl_div_with_sae")
        )
        if (
            kept is not None
            and kl is not None
            and kl > 0
            and run.l0 is not None
            and not run.problems
        ):
            points.append(plots.Point(results.variants.index(run.variant), kept, kl))
    if len({point.variant for point in points}) < 2:
        return ""
    svg = plots.trade(
        points,
        x.label,
        f"{y.label}, {y.meaning}",
        "Divergence of the model's predictions against explained variance",
    )
    note = "Down and to the right is better, among rows of one L0."
    return f'<figure>{svg}</figure><p class="note">{note}</p>'


def _training(results: Results) -> str:
    panels = []
    for title, key in (
        ("Loss (log)", "loss"),
        ("Explained variance", "explained_variance"),
        ("L0", "l0"),
        ("Share of dead latents", "dead"),
    ):
        lines = []
        for run in results.runs:
            rows = [row for row in run.curve if number(row.get("tokens")) is not None]
            x = [number(row.get("tokens")) or 0.0 for row in rows]
            y = [number(row.get(key)) for row in rows]
            if any(value is not None for value in y):
                index = results.variants.index(run.variant)
                lines.append(plots.Line(index, results.of(run.variant).index(run), x, y))
        panels.append((title, lines))
    svg = plots.curves(panels, "Training curves")
    absent = [
        f"{esc(run.label)} (training curve not measured)" for run in results.runs if not run.curve
    ]
    note = '<p class="note">Losses of different variants have different terms: compare their shape, not their height.</p>'
    return (
        _legend(results)
        + f"<figure>{svg}</figure>"
        + _seeds_legend(results)
        + note
        + tables.not_drawn(absent)
    )


def _density(results: Results) -> str:
    panels, absent = [], []
    for index, variant in enumerate(results.variants):
        alive, dead = [], []
        for run in results.of(variant):
            known = run.densities
            if known:
                live = [math.log10(value) for value in known if value > 0]
                alive.append(live)
                dead.append(1 - len(live) / len(known))
            else:
                absent.append(f"{esc(run.label)} (densities not measured)")
        shares = ", ".join(f"{100 * share:.1f} %" for share in dead)
        panels.append(
            plots.Panel(f"{variant} (dead {shares})" if dead else variant, index, alive, dead)
        )
    svg = plots.densities(panels, "Firing densities")
    note = '<p class="note">The grey bar is the share of latents that never fired on the evaluation text.</p>'
    return f"<figure>{svg}</figure>" + _seeds_legend(results) + note + tables.not_drawn(absent)


def _facts(results: Results) -> str:
    notes = "".join(f"<li>{esc(note)}</li>" for note in results.notes)
    missing = f"<h3>Files missing or damaged</h3><ul>{notes}</ul>" if notes else ""
    runs = "".join(_run_fact(run) for run in results.runs)
    facts = worlds.facts(results) if results.in_world else tables.facts_table(results.facts)
    return (
        f"{facts}<h3>Runs</h3>"
        '<div class="scroll"><table class="small"><thead><tr><th>Run</th><th>Folder</th><th>Health</th>'
        "<th>Steps</th><th>Tokens</th><th>Last "
        f"loss</th></tr></thead><tbody>{runs}</tbody></table></div>"
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
