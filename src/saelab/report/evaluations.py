"""The section of an evaluation: its pictures and tables, made from its values alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saelab.evals import EVALS
from saelab.evals.result import Table
from saelab.figures import Curves, Figure, Heat, Scatter, Steps, Tree, figure_from_json, from_plain
from saelab.report import html, tables
from saelab.report.draw import Panel, draw, group_colour
from saelab.report.draw.style import css
from saelab.report.read import Results, RunRecord, items, mapping

LONG = 12  # rows from which on a table is folded


@dataclass(frozen=True)
class Recorded:
    """What one run recorded for the section. Damaged figures and tables are left out."""

    run: RunRecord
    reasons: Sequence[str]  # why scores are undefined, so that there is nothing to draw
    figures: dict[str, Figure] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)  # what was left out

    @property
    def reason(self) -> str:
        """Why something that others have is not there."""
        return "; ".join((*self.reasons, *self.damage)) or "nothing was recorded to draw"


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
    """Whether an earlier version wrote it, without pictures and tables."""
    return "figures" not in result and "tables" not in result


def evaluation_section(results: Results, name: str) -> str:
    """Every figure and table by its key, each with what to look for; what cannot be drawn is said,
    with the reason.
    """
    title = EVALS[name].title or name
    measured = {variant: _measured(results, variant, name) for variant in results.variants}
    bare = [variant for variant, runs in measured.items() if not runs]
    old = [run.label for runs in measured.values() for run in runs if _is_old(run.evals[name])]
    rows = {
        variant: [_recorded(run, run.evals[name]) for run in runs if not _is_old(run.evals[name])]
        for variant, runs in measured.items()
    }
    recorded = [record for records in rows.values() for record in records]
    lines = []
    if bare:
        lines.append(f"{html.esc(title)} of {', '.join(map(html.esc, bare))}: {html.MISSING}.")
    if old:
        lines.append(
            f"The results of {', '.join(map(html.esc, old))} were written by an older version, "
            "without pictures and tables; <code>saelab eval RUN</code> makes them anew."
        )
    lines += [
        f"Left out of {html.esc(record.run.label)}: {html.esc('; '.join(record.damage))}."
        for record in recorded
        if record.damage
    ]
    # in order of appearance: a name has one colour
    groups = list(dict.fromkeys(name for figure in _grouped(recorded) for name in figure.groups))
    content = "".join(map(html.absent, lines)) + _legend(recorded, groups)
    for key in dict.fromkeys(key for record in recorded for key in record.figures):
        content += _figure(rows, key, groups, name)
    for key in dict.fromkeys(key for record in recorded for key in record.tables):
        content += _table(results, rows, key)
    return content


def _measured(results: Results, variant: str, name: str) -> list[RunRecord]:
    """The runs of a row that were evaluated: the healthy ones, or all if none is."""
    runs = [run for run in results.runs_of(variant) if run.evals.get(name)]
    return [run for run in runs if not run.problems] or runs


def _recorded(run: RunRecord, result: dict[str, Any]) -> Recorded:
    scores = [mapping(score) for score in mapping(result.get("scores")).values()]
    undefined = [score.get("reason") for score in scores if score.get("value") is None]
    record = Recorded(run, sorted({str(reason) for reason in undefined if reason}))
    for key, kind in (("figures", list), ("tables", dict)):
        if not isinstance(result.get(key, kind()), kind):
            record.damage.append(f"its {key} are damaged")
    for value in items(result.get("figures")):
        try:
            figure = figure_from_json(value)
            record.figures[figure.key] = figure
        except ValueError as error:
            record.damage.append(f"a figure is damaged: {error}")
    for key, value in mapping(result.get("tables")).items():
        try:
            record.tables[key] = from_plain(Table, value)
        except ValueError as error:
            record.damage.append(f"a table is damaged: {error}")
    return record


def _grouped(recorded: Sequence[Recorded]) -> list[Heat | Scatter]:
    """The figures that have groups."""
    figures = [figure for record in recorded for figure in record.figures.values()]
    return [figure for figure in figures if isinstance(figure, Heat | Scatter) and figure.groups]


def _legend(recorded: Sequence[Recorded], groups: Sequence[str]) -> str:
    swatches = "".join(
        html.tag(
            "span",
            html.tag("span", "", "swatch", style=f"background:{css(group_colour(i))}")
            + html.esc(group),
        )
        for i, group in enumerate(groups)
    )
    kinds = (figure.grouped for figure in _grouped(recorded) if isinstance(figure, Scatter))
    text = f"{html.esc(next(kinds, Scatter.grouped))}: {swatches}"
    return html.tag("p", text, "legend") if groups else ""


def _figure(
    rows: Mapping[str, Sequence[Recorded]], key: str, groups: Sequence[str], name: str
) -> str:
    """The figures of one key, of the kind that the first of them has."""
    figures = [r.figures[key] for records in rows.values() for r in records if key in r.figures]
    kind, panels, missing = type(figures[0]), [], []
    for place, (variant, records) in enumerate(rows.items()):
        drawn = [record for record in records if isinstance(record.figures.get(key), kind)]
        if drawn:
            seeds = [record.figures[key] for record in drawn]
            panels.append(Panel(place, variant, drawn[0].run.title, seeds))
        elif records:
            missing.append(f"{html.esc(variant)} ({html.esc(records[0].reason)})")
    first = panels[0].first
    picture = draw(panels, groups, html.esc(f"{name}: {first.title}"))
    caption = f"{_scale(first)}{html.esc(first.note)} {_which_seeds(panels)}"
    return (
        html.tag("h3", html.esc(first.title))
        + picture
        + html.note(caption)
        + tables.not_drawn(missing)
    )


def _scale(figure: Figure) -> str:
    """The numbers at the ends of a scale of shades."""
    if isinstance(figure, Tree):
        low, high = 0, 1
    elif isinstance(figure, Heat) and not figure.printed:
        low, high = figure.low, figure.high
    else:
        return ""
    return html.tag("span", f"{html.fact(low)} <i></i> {html.fact(high)}", "cosine-scale")


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


def _table(results: Results, rows: Mapping[str, Sequence[Recorded]], key: str) -> str:
    """The table of the first run of every row, below each other."""
    firsts = {
        variant: next(record.tables[key] for record in records if key in record.tables)
        for variant, records in rows.items()
        if any(key in record.tables for record in records)
    }
    head = next(iter(firsts.values()))
    body = [
        html.row(tables.variant_name(results, variant), html.tags("td", map(_cell, values)))
        for variant, recorded in firsts.items()
        if recorded.columns == head.columns
        for values in recorded.rows
    ]
    drawn = html.table(
        html.tags("th", map(html.esc, ("Variant", *head.columns))), "".join(body), "small"
    )
    if len(body) > LONG:
        drawn = html.folded(f"{len(body)} rows", drawn)
    remark = f"{html.esc(head.note)} " if head.note else ""
    return (
        html.tag("h3", html.esc(head.title))
        + drawn
        + html.note(f"{remark}Of the first healthy seed of each row.")
    )


def _cell(value: float | int | str | None) -> str:
    if value is None:
        return html.tag("span", "none", "note")
    if isinstance(value, str):
        return html.esc(value)
    return html.show(value) if isinstance(value, float) else html.fact(value)
