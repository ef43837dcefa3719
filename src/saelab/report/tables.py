"""The tables of the page: summary with intervals, contrasts, all metrics, run facts."""

from collections.abc import Sequence
from typing import Any

from saelab.evals import headlines
from saelab.evals.result import Metric
from saelab.report.draw.style import colour
from saelab.report.read import Results, RunRecord, items, mapping, number
from saelab.report.text import MISSING, esc, fact, interval, score, show, signed, undefined
from saelab.train.health import L0

VERDICTS = {
    "better": ("better", "\N{BLACK UP-POINTING TRIANGLE}"),
    "worse": ("worse", "\N{BLACK DOWN-POINTING TRIANGLE}"),
    "no difference shown": ("same", "="),
    "not comparable": ("incomparable", "\N{MULTIPLICATION SIGN}"),
}


def metric_names(results: Results) -> list[str]:
    """Every metric that some run has, those of short tables first; L0 stands in a column of its
    own.
    """
    found = dict.fromkeys(name for run in results.runs for name in run.metrics if name != L0)
    first = [metric.key for metric in headlines(found) if metric.key in found]
    return list(dict.fromkeys([*first, *found]))


def summary_table(results: Results) -> str:
    """A row a variant (mean over its seeds), opening to a row a seed."""
    metric, names = results.metric, metric_names(results)
    shown = [name for name in names if metric(name).headline] or names[:6]
    head = "".join(
        f'<th title="{esc(metric(name).meaning)}">{esc(metric(name).label)}{arrow(metric(name))}</th>'
        for name in shown
    )
    body = []
    for index, variant in enumerate(results.variants):
        runs = results.of(variant)
        hopeless = all(run.problems for run in runs)
        if hopeless:  # no mean to show: the seeds' own values stand open below
            cells = f'<td colspan="{len(shown) + 1}">{undefined("no healthy run to average; each seed is listed below")}</td>'
        else:
            cells = "".join(
                f"<td>{cell}</td>"
                for cell in [_mean_l0(runs), *(_mean(runs, name) for name in shown)]
            )
        body.append(
            f'<tbody><tr class="mean"><th scope="row">{swatch(index)}{esc(variant)}'
            f'<button type="button" class="toggle" aria-expanded="{str(hopeless).lower()}" data-seeds="{index}">'
            f"{_count(len(runs), 'seed')}</button></th>"
            f"{cells}</tr></tbody>"
        )
        kind = "seeds open" if hopeless else "seeds"
        body.append(
            f'<tbody class="{kind}" id="seeds-{index}">{"".join(_seed_row(run, shown) for run in runs)}</tbody>'
        )
    return (
        '<div class="scroll"><table id="summary-table"><thead><tr><th>Variant</th>'
        f'<th title="{esc(metric(L0).meaning)}">L0</th>'
        f"{head}</tr></thead>{''.join(body)}</table></div>"
    )


def _seed_row(run: RunRecord, shown: Sequence[str]) -> str:
    cells = "".join(f"<td>{score(run.metrics.get(name))}</td>" for name in [L0, *shown])
    kind = "unhealthy" if run.problems else "healthy"
    return f'<tr class="{kind}"><th scope="row">seed {fact(run.seed)} {health_badge(run)}</th>{cells}</tr>'


def health_badge(run: RunRecord) -> str:
    """Healthy, unhealthy or unchecked, in words."""
    if run.problems:
        return '<span class="badge bad">unhealthy</span>'
    if run.healthy is None:
        return '<span class="badge warn">health not measured</span>'
    return (
        '<span class="badge warn">warning</span>'
        if run.warnings
        else '<span class="badge good">healthy</span>'
    )


def _mean(runs: Sequence[RunRecord], name: str) -> str:
    """Mean over the healthy runs in which the metric is defined, saying how many were left out."""
    entries = [run.metrics.get(name) for run in runs if not run.problems]
    good = [
        entry for entry in entries if entry is not None and number(entry.get("value")) is not None
    ]
    if not good:
        known = [entry for entry in entries if entry is not None]
        return undefined(known[0].get("reason")) if known else MISSING
    bounds = [_average([entry.get(side) for entry in good]) for side in ("low", "high")]
    left_out = (
        ""
        if len(good) == len(runs)
        else f'<span class="note">{len(good)} of {_count(len(runs), "seed")}</span>'
    )
    value = _average([entry.get("value") for entry in good])
    return f'<span class="value">{MISSING if value is None else show(value)}</span> {interval(*bounds)}{left_out}'


def _mean_l0(runs: Sequence[RunRecord]) -> str:
    value = _average([run.l0 for run in runs if not run.problems])
    return MISSING if value is None else f'<span class="value">{show(value)}</span>'


def _average(values: Sequence[Any]) -> float | None:
    known = [number(value) for value in values]
    return (
        None
        if None in known or not known
        else sum(value for value in known if value is not None) / len(known)
    )


def all_metrics(results: Results) -> str:
    """Every metric of every run, a column a run: nothing that was measured is left out of the page."""
    metric = results.metric
    head = "".join(f"<th>{esc(run.label)}</th>" for run in results.runs)
    rows = [
        f'<tr><th scope="row" title="{esc(metric(name).meaning)}">{esc(metric(name).label)}<code>{esc(name)}</code></th>'
        + "".join(f"<td>{score(run.metrics.get(name))}</td>" for run in results.runs)
        + "</tr>"
        for name in [L0, *metric_names(results)]
    ]
    for name in dict.fromkeys(name for run in results.runs for name in compatible(run)):
        cells = "".join(f"<td>{_plain(compatible(run), name)}</td>" for run in results.runs)
        rows.append(
            f'<tr><th scope="row">SAEBench-compatible<code>{esc(name)}</code></th>{cells}</tr>'
        )
    return wide(f"<th>Metric</th>{head}", "".join(rows))


def wide(head: str, rows: str) -> str:
    """A table that scrolls, of html cells."""
    return f'<div class="scroll"><table class="small"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def compatible(run: RunRecord) -> dict[str, Any]:
    """The values in SAEBench's own formulas, flat; the schema may nest them in categories."""
    flat: dict[str, Any] = {}
    for result in run.evals.values():
        for name, value in mapping(result.get("compatible")).items():
            nested = isinstance(value, dict) and "value" not in value
            flat.update(mapping(value) if nested else {name: value})
    return flat


def _plain(values: dict[str, Any], name: str) -> str:
    if name not in values:
        return MISSING
    value = values[name]
    if isinstance(value, dict):
        return score(value)
    known = number(value)
    return undefined("not a finite number") if known is None else show(known)


def contrast_table(results: Results) -> str:
    """Treatment against baseline, metric by metric: paired difference, interval, verdict."""
    if not results.contrasts:
        return f'<p class="absent">Contrasts: {MISSING}. Nothing was compared in this folder.</p>'
    order = {variant: index for index, variant in enumerate(results.variants)}
    rows = []
    for row in results.contrasts:
        names = [str(row.get(key) or "unnamed") for key in ("treatment", "baseline")]
        pair = [
            f"<td>{swatch(order[name]) if name in order else ''}{esc(name)}</td>" for name in names
        ]
        metric = results.metric(str(row.get("metric")))
        rows.append(
            f"<tr>{''.join(pair)}<td>{esc(metric.label)}{arrow(metric)}</td>"
            f"<td>{difference(row)}</td><td>{_detectable(row)}</td><td>{verdict_badge(row)}</td></tr>"
        )
    return (
        '<div class="scroll"><table id="contrast-table"><thead><tr><th>Treatment</th><th>Baseline</th><th>Metric</th>'
        "<th>Treatment \N{MINUS SIGN} baseline, 95 % interval</th><th>Detectable</th><th>Verdict</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="note">Difference of runs with the same seed, which saw the same tokens; the interval is over seeds, '
        "of each contrast alone. Better or worse: a paired t test says so at 5 % after Holm's correction for the number of "
        "contrasts on this page. Detectable: the smallest true difference that as many seeds with this spread show in 4 of 5 "
        "cases; no difference shown does not mean that there is none below it.</p>"
    )


def _detectable(row: dict[str, Any]) -> str:
    """The smallest difference that the seeds could have shown."""
    value = number(row.get("detectable"))
    return MISSING if value is None else f'<span class="value">{show(value)}</span>'


def difference(row: dict[str, Any]) -> str:
    """The paired difference with its interval, or why there is none."""
    value = number(row.get("value"))
    if value is None:
        return undefined(row.get("reason") or "the two cannot be compared")
    reason = f'<span class="note">{esc(row["reason"])}</span>' if row.get("reason") else ""
    return f'<span class="value">{signed(value)}</span> {interval(row.get("low"), row.get("high"))}{reason}'


def verdict_of(row: dict[str, Any]) -> str:
    """The verdict in the page's spelling; `not measured` if there is none."""
    return str(row.get("verdict") or "not measured").replace("_", " ")


def verdict_badge(row: dict[str, Any]) -> str:
    """The verdict with colour and sign (never by colour alone)."""
    kind, sign = VERDICTS.get(verdict_of(row), ("incomparable", "?"))
    return f'<span class="verdict {kind}"><span aria-hidden="true">{sign}</span> {esc(verdict_of(row))}</span>'


WANTED = (
    "model",
    "hook",
    "corpus",
    "corpus_hash",
    "tokens",
    "seeds",
    "versions",
    "throughput_tokens_per_s",
    "dropped_tokens_share",
)


def facts_table(facts: dict[str, Any], wanted: Sequence[str] = WANTED) -> str:
    """Recorded facts of the whole comparison; those a reader looks for first are there even if
    nobody recorded them.
    """
    names = [*wanted, *(name for name in facts if name not in wanted)]
    rows = "".join(
        f'<tr><th scope="row">{esc(name.replace("_", " "))}</th><td>{fact(facts.get(name))}</td></tr>'
        for name in names
    )
    return f'<table id="facts-table" class="facts"><tbody>{rows}</tbody></table>'


def config_table(results: Results) -> str:
    """Every field of every run's configuration, a column a run."""
    flat = [flatten(run.config) for run in results.runs]
    names = list(dict.fromkeys(name for config in flat for name in config))
    if not names:
        return f'<p class="absent">Configuration of the runs: {MISSING}.</p>'
    head = "".join(f"<th>{esc(run.label)}</th>" for run in results.runs)
    rows = "".join(
        f'<tr><th scope="row"><code>{esc(name)}</code></th>'
        + "".join(f"<td>{_setting(config, name)}</td>" for config in flat)
        + "</tr>"
        for name in names
    )
    return wide(f"<th>Field</th>{head}", rows)


def _setting(config: dict[str, Any], name: str) -> str:
    if name not in config:
        return '<span class="note">not set</span>'
    return '<span class="note">off</span>' if config[name] is None else fact(config[name])


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields under dotted names; an empty mapping has none."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat.update(
            flatten(mapping(value), f"{prefix}{name}.")
            if isinstance(value, dict)
            else {prefix + name: value}
        )
    return flat


def health_lines(results: Results) -> str:
    """A red line a problem and an amber line a warning, each naming its run."""
    red = [(run, text) for run in results.runs for text in run.problems]
    amber = [(run, text) for run in results.runs for text in run.warnings]
    lines = [
        f'<p class="alarm" role="alert"><b>Unhealthy run {esc(run.name)}</b> ({esc(run.label)}): {esc(text)}</p>'
        for run, text in red
    ]
    lines += [
        f'<p class="caution"><b>Warning, run {esc(run.name)}</b> ({esc(run.label)}): {esc(text)}</p>'
        for run, text in amber
    ]
    # a summary repeats the runs' own warnings
    said = {f"{run.name}: {text}" for run, text in amber}
    lines += [
        f'<p class="caution">{esc(text)}</p>'
        for text in items(results.facts.get("warnings"))
        if text not in said
    ]
    return "".join(lines)


def swatch(index: int) -> str:
    """A variant's colour beside its name."""
    return f'<span class="swatch" style="background:{colour(index)}"></span>'


def arrow(known: Metric) -> str:
    """Which way is better, as a sign; nothing for a metric without a direction."""
    words = {
        "higher": ("\N{UPWARDS ARROW}", "higher is better"),
        "lower": ("\N{DOWNWARDS ARROW}", "lower is better"),
    }
    sign = words.get(known.better)
    return f' <span class="arrow" title="{sign[1]}">{sign[0]}</span>' if sign else ""


def not_drawn(absent: Sequence[str]) -> str:
    """What a picture lacks, and why; `absent` is html already."""
    return f'<p class="absent">Not drawn: {"; ".join(absent)}.</p>' if absent else ""


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def seeds_legend(most: int) -> str:
    """Which line is which seed's, where a row has up to `most` of them."""
    styles = ("solid", "dashed", "dotted", "dash-dotted")
    text = ", ".join(
        f"{styles[i]} for the {('first', 'second', 'third', 'fourth')[i]}"
        for i in range(min(most, 4))
    )
    return f"Lines: {text} seed of a variant." if most > 1 else ""
