"""The section of an evaluation: its pictures and tables, made from its values alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from saelab.evals import EVALS
from saelab.evals.result import Table
from saelab.figures import Curves, Figure, Heat, Scatter, Steps, Tree, figure_from_json, from_plain
from saelab.report import tables
from saelab.report.draw import Panel, draw, group_colour
from saelab.report.read import Results, RunRecord, items, mapping
from saelab.report.text import MISSING, esc, fact, show

OLD = "old"  # reason of a result without pictures, of an earlier version
LONG = 12  # rows from which on a table is folded


@dataclass(frozen=True)
class Pictured:
    """What one run recorded for the section. Damaged figures and tables are left out."""

    run: RunRecord
    figures: dict[str, Figure]
    tables: dict[str, Table]
    reason: str  # why something that others have is not there
    damage: tuple[str, ...] = ()  # what was left out, also where no other run has it


def evaluation_titles(results: Results) -> dict[str, str]:
    """Name -> title of the evaluations that have a section: some run has pictures or tables of
    them, or comes from a version that wrote none.
    """
    return {
        name: evaluation.title or name
        for name, evaluation in EVALS.items()
        if any(_is_shown(run.evals.get(name, {})) for run in results.runs)
    }


def _is_shown(result: dict[str, Any]) -> bool:
    return bool(result) and bool(_is_old(result) or result.get("figures") or result.get("tables"))


def _is_old(result: dict[str, Any]) -> bool:
    return "figures" not in result and "tables" not in result


def evaluation_section(results: Results, name: str) -> str:
    """Every figure and table by its key, each with what to look for; what cannot be drawn is said,
    with the reason.
    """
    title = EVALS[name].title or name
    rows = {variant: _row(results.of(variant), name) for variant in results.variants}
    bare = [variant for variant, row in rows.items() if not row]
    parts = []
    if bare:
        names = ", ".join(map(esc, bare))
        parts.append(f'<p class="absent">{esc(title)} of {names}: {MISSING}.</p>')
    old = [each.run.label for row in rows.values() for each in row if each.reason == OLD]
    if old:
        parts.append(
            f'<p class="absent">The results of {", ".join(map(esc, old))} were written by an older '
            "version, without pictures and tables; <code>saelab eval RUN</code> makes them anew."
            "</p>"
        )
    rows = {variant: [each for each in row if each.reason != OLD] for variant, row in rows.items()}
    damaged = [each for row in rows.values() for each in row if each.damage]
    parts += [
        f'<p class="absent">Left out of {esc(each.run.label)}: {esc("; ".join(each.damage))}.</p>'
        for each in damaged
    ]
    groups = _groups(
        figure for row in rows.values() for each in row for figure in each.figures.values()
    )
    if groups:
        legend = "".join(
            f'<span><span class="swatch" style="background:{group_colour(i)}"></span>{esc(group)}</span>'
            for i, group in enumerate(groups)
        )
        parts.append(f'<p class="legend">Features: {legend}</p>')
    recorded = [each for row in rows.values() for each in row]
    for key in dict.fromkeys(key for each in recorded for key in each.figures):
        parts.append(_figure(results, rows, key, groups, name))
    for key in dict.fromkeys(key for each in recorded for key in each.tables):
        parts.append(_table(results, rows, key))
    return "".join(parts)


def _row(runs: Sequence[RunRecord], name: str) -> list[Pictured]:
    """The runs of a row that were evaluated: the healthy ones, or all if none is."""
    measured = [run for run in runs if run.evals.get(name)]
    chosen = [run for run in measured if not run.problems] or measured
    return [_pictured(run, run.evals[name]) for run in chosen]


def _pictured(run: RunRecord, result: dict[str, Any]) -> Pictured:
    if _is_old(result):
        return Pictured(run, {}, {}, OLD)
    damage = [
        f"its {key} are damaged"
        for key, kind in (("figures", list), ("tables", dict))
        if not isinstance(result.get(key, kind()), kind)
    ]
    figures: dict[str, Figure] = {}
    for value in items(result.get("figures")):
        try:
            figure = figure_from_json(value)
            figures[figure.key] = figure
        except ValueError as error:
            damage.append(f"a figure is damaged: {error}")
    found: dict[str, Table] = {}
    for key, value in mapping(result.get("tables")).items():
        try:
            found[key] = from_plain(Table, value)
        except ValueError as error:
            damage.append(f"a table is damaged: {error}")
    reason = "; ".join((*_undefined(result), *damage)) or "nothing was recorded to draw"
    return Pictured(run, figures, found, reason, tuple(damage))


def _undefined(result: dict[str, Any]) -> list[str]:
    """Why scores of a result are undefined: what explains that there is nothing to draw."""
    scores = [mapping(score) for score in mapping(result.get("scores")).values()]
    return sorted(
        {
            str(score["reason"])
            for score in scores
            if score.get("reason") and score.get("value") is None
        }
    )


def _groups(figures: Iterable[Figure]) -> list[str]:
    """Names of groups over all figures, in order of appearance: one has one colour."""
    named = [figure.groups for figure in figures if isinstance(figure, Heat | Scatter)]
    return list(dict.fromkeys(name for names in named for name in names))


def _figure(
    results: Results,
    rows: dict[str, list[Pictured]],
    key: str,
    groups: Sequence[str],
    name: str,
) -> str:
    panels: list[Panel[Figure]] = []
    absent = []
    kind: type[Figure] | None = None
    for index, variant in enumerate(results.variants):
        drawn = [each for each in rows[variant] if key in each.figures]
        drawn = [each for each in drawn if kind in (None, type(each.figures[key]))]
        if drawn:
            kind = type(drawn[0].figures[key])
            figures = [each.figures[key] for each in drawn if type(each.figures[key]) is kind]
            panels.append(Panel(index, variant, drawn[0].run.title, figures))
        elif rows[variant]:
            absent.append(f"{esc(variant)} ({esc(rows[variant][0].reason)})")
    first = panels[0].first
    svg = draw(panels, groups, esc(f"{name}: {first.title}"))
    ends = (0, 1) if isinstance(first, Tree) else None
    if isinstance(first, Heat) and not first.printed:
        ends = (first.low, first.high)
    scale = ""
    if ends is not None:
        scale = f'<span class="cosine-scale">{fact(ends[0])} <i></i> {fact(ends[1])}</span>'
    return (
        f"<h3>{esc(first.title)}</h3><figure>{svg}</figure>"
        f'<p class="note">{scale}{esc(first.note)} {_which_seeds(panels)}</p>'
        f"{tables.not_drawn(absent)}"
    )


def _which_seeds(panels: Sequence[Panel[Figure]]) -> str:
    """Which runs of a row the picture shows."""
    first = panels[0].first
    if isinstance(first, Curves):
        return "Line: mean over seeds; its shade: their range."
    if isinstance(first, Steps) and len(first.counts) == 1:
        return tables.seeds_legend(max(len(panel.figures) for panel in panels))
    if isinstance(first, Scatter) and first.groups:
        return "A dot is from one of the healthy seeds."
    return "The first healthy seed of each variant."


def _table(results: Results, rows: dict[str, list[Pictured]], key: str) -> str:
    """The table of the first run of every row, below each other."""
    body, head = [], None
    for index, variant in enumerate(results.variants):
        table = next((each.tables[key] for each in rows[variant] if key in each.tables), None)
        if table is None or (head is not None and table.columns != head.columns):
            continue
        head = head or table
        for row in table.rows:
            cells = "".join(f"<td>{_cell(value)}</td>" for value in row)
            body.append(
                f'<tr><th scope="row">{tables.swatch(index)}{esc(variant)}</th>{cells}</tr>'
            )
    if head is None:
        return ""
    columns = "".join(f"<th>{esc(column)}</th>" for column in ("Variant", *head.columns))
    drawn = tables.wide(columns, "".join(body))
    if len(body) > LONG:
        drawn = f"<details><summary>{len(body)} rows</summary>{drawn}</details>"
    note = f"{esc(head.note)} " if head.note else ""
    return (
        f'<h3>{esc(head.title)}</h3>{drawn}<p class="note">{note}Of the first healthy seed of each '
        "row.</p>"
    )


def _cell(value: float | int | str | None) -> str:
    if value is None:
        return '<span class="note">none</span>'
    return (
        esc(value)
        if isinstance(value, str)
        else show(value)
        if isinstance(value, float)
        else fact(value)
    )
