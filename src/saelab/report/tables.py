"""The tables of the page: summary with intervals, contrasts, all metrics, run facts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from saelab.evals import headlines
from saelab.evals.result import Metric
from saelab.report import html
from saelab.report.draw.style import colour, css
from saelab.report.read import Results, RunRecord, items, mapping, number
from saelab.train.health import L0


@dataclass(frozen=True)
class Verdict:
    """How the page shows a verdict: with a colour and a sign, and as a sentence."""

    kind: str  # of its badge
    sign: str
    sentence: str  # of treatment, baseline and metric


VERDICTS = {
    "better": Verdict("better", "\N{BLACK UP-POINTING TRIANGLE}", "{} is better than {} in {}"),
    "worse": Verdict("worse", "\N{BLACK DOWN-POINTING TRIANGLE}", "{} is worse than {} in {}"),
    "no difference shown": Verdict("same", "=", "No difference shown between {} and {} in {}"),
    "not comparable": Verdict(
        "incomparable", "\N{MULTIPLICATION SIGN}", "{} and {} cannot be compared in {}"
    ),
}
OTHER = Verdict("incomparable", "?", "{} against {} in {}")
LINES = (
    "solid for the first",
    "dashed for the second",
    "dotted for the third",
    "dash-dotted for the fourth",
)
ARROWS = {
    "higher": ("\N{UPWARDS ARROW}", "higher is better"),
    "lower": ("\N{DOWNWARDS ARROW}", "lower is better"),
}


def metric_names(results: Results) -> list[str]:
    """Every metric that some run has, those of short tables first; L0 stands in a column of its
    own.
    """
    measured = dict.fromkeys(name for run in results.runs for name in run.metrics if name != L0)
    first = [metric.key for metrics in headlines(measured).values() for metric in metrics]
    return list(dict.fromkeys([*first, *measured]))


def swatch(index: int) -> str:
    """A variant's colour beside its name."""
    return html.tag("span", "", "swatch", style=f"background:{css(colour(index))}")


def variant_name(results: Results, variant: str) -> str:
    """A variant with its colour, if it has runs on the page."""
    known = variant in results.variants
    return f"{swatch(results.variants.index(variant)) if known else ''}{html.esc(variant)}"


def metric_label(metric: Metric) -> str:
    """A metric with an arrow that says which way is better, if one way is."""
    sign = ARROWS.get(metric.better)
    arrow = f" {html.tag('span', sign[0], 'arrow', title=sign[1])}" if sign else ""
    return f"{html.esc(metric.label)}{arrow}"


def meanings(results: Results, names: Iterable[str]) -> str:
    """What each metric means, folded."""
    known = map(results.metric, names)
    lines = (
        html.tag("dt", html.esc(m.label)) + html.tag("dd", html.esc(m.meaning))
        for m in known
        if m.meaning
    )
    return html.folded("What the numbers mean", html.tag("dl", "".join(lines), "meanings"))


def metric_heads(results: Results, names: Iterable[str]) -> str:
    """The first row of a table with a column a metric."""
    metrics = map(results.metric, names)
    heads = (html.tag("th", metric_label(m), title=m.meaning) for m in metrics)
    return html.tag("th", "Variant") + "".join(heads)


def no_mean(columns: int, seeds: str) -> str:
    """The cell across a row without a healthy run; `seeds`: where their own values are."""
    return html.tag("td", html.undefined(f"no healthy run to average; {seeds}"), colspan=columns)


def metric_rows(
    results: Results, names: Iterable[str], cells_of: Callable[[str], Iterable[str]]
) -> str:
    """A row a metric, with its key below its label."""
    rows = ""
    for name in names:
        metric = results.metric(name)
        head = html.esc(metric.label) + html.tag("code", html.esc(name))
        rows += html.row(head, html.tags("td", cells_of(name)), title=metric.meaning)
    return rows


def summary_table(results: Results) -> str:
    """A row a variant (mean over its seeds), opening to a row a seed."""
    names = metric_names(results)
    names = [name for name in names if results.metric(name).headline] or names[:6]
    bodies = ""
    for index, variant in enumerate(results.variants):
        runs = results.runs_of(variant)
        hopeless = all(run.problems for run in runs)
        if hopeless:  # no mean to show: the seeds' own values stand open below
            cells = no_mean(len(names) + 1, "each seed is listed below")
        else:
            cells = html.tags("td", [_mean_l0(runs), *(_mean(runs, name) for name in names)])
        head = variant_name(results, variant)
        if len(runs) == 1 and not hopeless:  # a row of its seed would say the same again
            seed = html.tag("span", f"seed {html.fact(runs[0].seed)}", "note seeds-count")
            bodies += html.tag("tbody", html.row(head + seed, cells))
            continue
        toggle = (
            f'<button type="button" class="toggle" aria-expanded="{str(hopeless).lower()}" '
            f'data-seeds="{index}">{html.counted(len(runs), "seed")}</button>'
        )
        bodies += html.tag("tbody", html.row(head + toggle, cells))
        seeds = "".join(_seed_row(run, names) for run in runs)
        bodies += html.tag(
            "tbody", seeds, "seeds open" if hopeless else "seeds", id=f"seeds-{index}"
        )
    return html.table(metric_heads(results, [L0, *names]), bodies, id="summary-table")


def _seed_row(run: RunRecord, names: Sequence[str]) -> str:
    cells = html.tags("td", (html.score(run.metrics.get(name)) for name in [L0, *names]))
    kind = "unhealthy" if run.problems else "healthy"
    return html.row(f"seed {html.fact(run.seed)} {health_badge(run)}", cells, kind)


def health_badge(run: RunRecord) -> str:
    """Healthy, unhealthy or unchecked, in words."""
    if run.problems:
        return html.tag("span", "unhealthy", "badge bad")
    if run.healthy is None:
        return html.tag("span", "health not measured", "badge warn")
    if run.warnings:
        return html.tag("span", "warning", "badge warn")
    return html.tag("span", "healthy", "badge good")


def _mean(runs: Sequence[RunRecord], name: str) -> str:
    """Mean over the healthy runs in which the metric is defined, saying how many were left out."""
    measured = [run.metrics[name] for run in runs if not run.problems and name in run.metrics]
    defined = [entry for entry in measured if number(entry.get("value")) is not None]
    if not defined:
        return html.score(measured[0] if measured else None)
    value, low, high = (
        _average([entry.get(key) for entry in defined]) for key in ("value", "low", "high")
    )
    left_out = ""
    if len(defined) < len(runs):
        left_out = html.tag("span", f"{len(defined)} of {html.counted(len(runs), 'seed')}", "note")
    return f"{html.shown(value)} {html.interval(low, high)}{left_out}"


def _mean_l0(runs: Sequence[RunRecord]) -> str:
    return html.shown(_average([run.l0 for run in runs if not run.problems]))


def _average(values: Sequence[Any]) -> float | None:
    numbers = [number(value) for value in values]
    defined = [value for value in numbers if value is not None]
    return sum(defined) / len(defined) if defined and len(defined) == len(numbers) else None


def all_metrics(results: Results) -> str:
    """Every metric of every run, a column a run: the page leaves out nothing that was measured."""
    runs = results.runs
    rows = metric_rows(
        results,
        [L0, *metric_names(results)],
        lambda name: (html.score(run.metrics.get(name)) for run in runs),
    )
    compatible = [_compatible(run) for run in runs]
    for name in dict.fromkeys(name for scores in compatible for name in scores):
        cells = html.tags("td", (html.score(scores.get(name)) for scores in compatible))
        rows += html.row(f"SAEBench-compatible{html.tag('code', html.esc(name))}", cells)
    return html.table(
        html.tags("th", ["Metric", *(html.esc(run.label) for run in runs)]), rows, "small"
    )


def _compatible(run: RunRecord) -> dict[str, dict[str, Any]]:
    """The scores in SAEBench's own formulas."""
    scores = [mapping(result.get("compatible")) for result in run.evals.values()]
    return {name: mapping(score) for some in scores for name, score in some.items()}


def contrast_table(results: Results) -> str:
    """Treatment against baseline, metric by metric: paired difference, interval, verdict."""
    if not results.contrasts:
        return html.absent(f"Contrasts: {html.MISSING}. Nothing was compared in this folder.")
    rows = ""
    for contrast in results.contrasts:
        cells = [
            verdict_badge(contrast),
            _difference(contrast),
            metric_label(results.metric(str(contrast.get("metric")))),
            *(variant_name(results, name) for name in compared(contrast)),
            html.shown(contrast.get("detectable")),
        ]
        rows += html.tag("tr", html.tags("td", cells))
    difference = "Treatment \N{MINUS SIGN} baseline, 95 % interval"
    heads = ["Verdict", difference, "Metric", "Treatment", "Baseline", "Detectable"]
    return html.table(html.tags("th", heads), rows, id="contrast-table") + html.note(
        "Difference of runs with the same seed, which saw the same tokens; the interval is over "
        f"seeds, of each contrast alone. {_how_judged(results)} Detectable: the smallest true "
        "difference that as many seeds with this spread show in 4 of 5 cases; no difference shown "
        "does not mean that there is none below it."
    )


def _how_judged(results: Results) -> str:
    """What a verdict means; folders from before verdicts were corrected have no p-values."""
    if any("p" in contrast for contrast in results.contrasts):
        return (
            "Better or worse: a paired t test says so at 5 % after Holm's correction for the "
            "number of contrasts on this page."
        )
    return (
        "These verdicts are of an older version of saelab and not corrected for the number of "
        "contrasts: better or worse means that this contrast's own interval leaves out 0. Give the "
        "command that made this folder again to have it judged anew; nothing is trained again."
    )


def compared(contrast: dict[str, Any]) -> list[str]:
    """The names of treatment and baseline."""
    return [str(contrast.get(key) or "unnamed") for key in ("treatment", "baseline")]


def _difference(contrast: dict[str, Any]) -> str:
    """The paired difference with its interval, or why there is none."""
    value, reason = number(contrast.get("value")), contrast.get("reason")
    if value is None:
        return html.undefined(reason or "the two cannot be compared")
    remark = html.tag("span", html.esc(reason), "note") if reason else ""
    bounds = html.interval(contrast.get("low"), contrast.get("high"))
    return f"{html.tag('span', html.signed(value), 'value')} {bounds}{remark}"


def verdict_of(contrast: dict[str, Any]) -> str:
    """The verdict in the page's spelling; `not measured` if there is none."""
    return str(contrast.get("verdict") or "not measured").replace("_", " ")


def verdict_badge(contrast: dict[str, Any]) -> str:
    """The verdict with colour and sign (never by colour alone)."""
    name = verdict_of(contrast)
    verdict = VERDICTS.get(name, OTHER)
    sign = html.tag("span", verdict.sign, aria_hidden="true")
    return html.tag("span", f"{sign} {html.esc(name)}", f"verdict {verdict.kind}")


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


def facts_table(facts: dict[str, Any], wanted: Sequence[str]) -> str:
    """Recorded facts of the whole comparison; those a reader looks for first are there even if
    nobody recorded them.
    """
    rows = "".join(
        html.row(html.esc(name.replace("_", " ")), html.tag("td", html.fact(facts.get(name))))
        for name in dict.fromkeys([*wanted, *facts])
    )
    return html.tag("table", rows, "facts", id="facts-table")


def config_table(results: Results) -> str:
    """Every field of every run's configuration, a column a run."""
    configs = [_flatten(run.config) for run in results.runs]
    names = list(dict.fromkeys(name for config in configs for name in config))
    if not names:
        return html.absent(f"Configuration of the runs: {html.MISSING}.")
    rows = "".join(
        html.row(
            html.tag("code", html.esc(name)),
            html.tags("td", (_setting(config, name) for config in configs)),
        )
        for name in names
    )
    heads = ["Field", *(html.esc(run.label) for run in results.runs)]
    return html.table(html.tags("th", heads), rows, "small")


def _setting(config: dict[str, Any], name: str) -> str:
    if name not in config:
        return html.tag("span", "not set", "note")
    return html.tag("span", "off", "note") if config[name] is None else html.fact(config[name])


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields under dotted names; an empty mapping has none."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        inner = isinstance(value, dict)
        flat |= _flatten(mapping(value), f"{prefix}{name}.") if inner else {prefix + name: value}
    return flat


def health_lines(results: Results) -> str:
    """A red line a problem and an amber line a warning, each naming its run."""
    red = [(run, text) for run in results.runs for text in run.problems]
    amber = [(run, text) for run in results.runs for text in run.warnings]
    # a summary repeats the runs' own warnings
    said = {f"{run.name}: {text}" for run, text in amber}
    others = [text for text in map(str, items(results.facts.get("warnings"))) if text not in said]
    lines = [html.alarm(_of_run("Unhealthy run", *line)) for line in red]
    lines += [html.tag("p", _of_run("Warning, run", *line), "caution") for line in amber]
    lines += [html.tag("p", html.esc(text), "caution") for text in others]
    return "".join(lines)


def _of_run(what: str, run: RunRecord, text: str) -> str:
    return (
        f"{html.tag('b', f'{what} {html.esc(run.name)}')} ({html.esc(run.label)}): {html.esc(text)}"
    )


def not_drawn(lines: Sequence[str]) -> str:
    """What a picture lacks, and why; `lines` are html already."""
    return html.absent(f"Not drawn: {'; '.join(lines)}.") if lines else ""


def seeds_legend(most: int) -> str:
    """Which line is which seed's, where a row has up to `most` of them."""
    return f"Lines: {', '.join(LINES[:most])} seed of a variant." if most > 1 else ""
