"""The section of a synthetic world: what it tests, whether it does, means over seeds with their
intervals.
"""

from collections.abc import Sequence
from typing import Any

from saelab.evals import EVALS
from saelab.evals.common.world import BATCH
from saelab.report import html, tables
from saelab.report.read import Results, RunRecord, items, mapping, number
from saelab.train.health import EXPLAINED_VARIANCE, L0
from saelab.types import Better

# stand before the headline: no metric means anything without them
ALWAYS = (L0, EXPLAINED_VARIANCE)
# facts that this section shows; the others stand in the table of facts
TOLD = ("tests", "headline", "sanity")
WANTED = (
    "world",
    "settings",
    "learning_rates",
    "length",
    "tokens",
    "seeds",
    "seconds",
    "peak_rss_mb",
    "versions",
)
# of a row's `ok`; null: not measured
SANITY = {"True": ("good", "holds"), "False": ("bad", "fails")}


def alarms(results: Results) -> str:
    """A red line for each sanity row that failed."""
    lead = html.tag("b", "The world does not test what it should")
    return "".join(
        html.alarm(f"{lead}: {_meaning(check)} ({_expected(results, check)}).")
        for check in _sanity(results)
        if check.get("ok") is False
    )


def world_section(results: Results) -> str:
    """What the world tests, its sanity rows, and the table of means over seeds with their
    intervals.
    """
    facts, names = results.facts, _names(results)
    plain, batch = ([key for key in names if key.endswith(BATCH) is ends] for ends in (False, True))
    world = html.tag("b", html.esc(facts["world"])) if facts.get("world") else None
    lead = (
        f"World {world or f'a world whose name was {html.MISSING}'}: "
        f"{html.esc(facts.get('tests') or 'what it tests was not recorded')}"
    )
    remark = (
        "Mean over seeds with its 95 % interval (Student t). Framed: its interval lies wholly on "
        "the better side of every other row's. The contrasts below are paired by seed and see "
        "smaller differences."
    )
    every_metric = html.folded(
        "All metrics, with the value of every seed", _all_means(results, plain)
    )
    if batch:
        title = "The same with codes under batch selection in place of the threshold"
        every_metric += html.folded(title, _all_means(results, batch))
    return (
        html.tag("p", lead, "lead")
        + _sanity_list(results)
        + _means_table(results, [*ALWAYS, *_headline(results)])
        + html.note(remark)
        + every_metric
        + tables.meanings(results, plain)
    )


def frontier_metrics(results: Results) -> list[str]:
    """What the frontier shows against L0: how well x is kept, and the metric that the world is
    about.
    """
    return [EXPLAINED_VARIANCE, *_headline(results)][:2]


def _headline(results: Results) -> list[str]:
    return [key for key in map(str, items(results.facts.get("headline"))) if key not in ALWAYS]


def _sanity(results: Results) -> list[dict[str, Any]]:
    return [mapping(check) for check in items(results.facts.get("sanity"))]


def _sanity_list(results: Results) -> str:
    lines = []
    for check in _sanity(results):
        kind, word = SANITY.get(str(check.get("ok")), ("warn", "not measured"))
        sentence = f"{_expected(results, check)}. Otherwise: {_meaning(check)}."
        lines.append(f"{html.tag('span', word, f'badge {kind}')} {html.tag('span', sentence)}")
    heading = html.tag("h3", "Does the world test what it should?")
    return heading + html.tag("ul", html.tags("li", lines), "sanity") if lines else ""


def _meaning(check: dict[str, Any]) -> str:
    return html.esc(str(check.get("meaning") or "no meaning was recorded").rstrip("."))


def _expected(results: Results, check: dict[str, Any]) -> str:
    """`Causal MCC of batch_topk should be at most 0.05, measured: 0.013`."""
    low, high, value = (number(check.get(key)) for key in ("low", "high", "value"))
    if low is not None and high is not None:
        bounds = f"{html.fact(low)} to {html.fact(high)}"
    elif low is not None:
        bounds = f"at least {html.fact(low)}"
    else:
        bounds = "recorded without bounds" if high is None else f"at most {html.fact(high)}"
    metric = results.metric(str(check.get("metric")))
    variant = html.tag("b", html.esc(check.get("variant") or "an unnamed variant"))
    measured = html.MISSING if value is None else html.tag("b", html.show(value))
    return f"{html.esc(metric.label)} of {variant} should be {bounds}, measured: {measured}"


def _names(results: Results) -> list[str]:
    """Every metric that some mean or run has: L0, the known ones in the page's order, then the
    others.
    """
    measured = [*results.means.values(), *(run.metrics for run in results.runs)]
    known = [metric.key for evaluation in EVALS.values() for metric in evaluation.metrics]
    order = {key: i for i, key in enumerate(dict.fromkeys((*ALWAYS, *known)))}
    return sorted(
        dict.fromkeys(key for metrics in measured for key in metrics),
        key=lambda key: order.get(key, order.get(key.removesuffix(BATCH), len(order))),
    )


def _means_table(results: Results, names: Sequence[str]) -> str:
    if not results.means:
        return html.absent(
            f"Means over seeds: {html.MISSING}. The value of every seed stands below."
        )
    best = {key: _best(results.means, key, results.metric(key).better) for key in names}
    rows = ""
    for variant in results.variants:
        runs = results.runs_of(variant)
        unhealthy = sum(bool(run.problems) for run in runs)
        count = html.counted(len(runs), "seed") + (f", {unhealthy} unhealthy" if unhealthy else "")
        head = tables.variant_name(results, variant) + html.tag("span", count, "note seeds-count")
        if not results.means.get(variant) and unhealthy == len(runs):
            cells = tables.no_mean(len(names), "the value of every seed is below")
        else:
            cells = ""
            for key in names:
                kind = "best" if best[key] == variant else None
                cells += html.tag("td", html.score(_mean(results, variant, key)), kind)
        rows += html.row(head, cells)
    return html.table(tables.metric_heads(results, names), rows, id="means-table")


def _mean(results: Results, variant: str, key: str) -> dict[str, Any] | None:
    """A mean as a score; the page says `undefined` by itself."""
    metrics = results.means.get(variant, {})
    if key not in metrics:
        return None
    mean = mapping(metrics[key])
    return mean | {"reason": str(mean.get("reason") or "").removeprefix("undefined for ")}


def _best(means: dict[str, dict[str, Any]], key: str, better: Better) -> str | None:
    """The variant whose interval lies wholly on the better side of every other's; None when there
    is none or no direction.
    """
    bounds = {}
    for variant, metrics in means.items():
        mean = mapping(metrics.get(key))
        low, high = number(mean.get("low")), number(mean.get("high"))
        if low is not None and high is not None:
            bounds[variant] = (low, high) if better == "higher" else (-high, -low)
        elif number(mean.get("value")) is not None:
            return None  # a mean without an interval cannot be outdone
    if better == "neither" or len(bounds) < 2:
        return None
    first = max(bounds, key=lambda variant: bounds[variant][0])
    others = [high for variant, (_, high) in bounds.items() if variant != first]
    return first if bounds[first][0] > max(others) else None


def _all_means(results: Results, names: Sequence[str]) -> str:
    def cells_of(key: str) -> list[str]:
        means = {variant: _mean(results, variant, key) for variant in results.variants}
        return [
            html.score(mean) + _seed_values(results.runs_of(variant), key, mean)
            for variant, mean in means.items()
        ]

    heads = html.tags("th", ["Metric", *map(html.esc, results.variants)])
    rows = tables.metric_rows(results, names, cells_of)
    return html.note("Under each mean the value of every seed.") + html.table(heads, rows, "small")


def _seed_values(runs: Sequence[RunRecord], key: str, mean: dict[str, Any] | None) -> str:
    """The value of every seed; nothing where all are undefined for the reason that the mean already
    gives.
    """
    entries = [run.metrics.get(key) for run in runs]
    if mean is not None and all(entry is not None and _said(entry, mean) for entry in entries):
        return ""
    values = ""
    for run, entry in zip(runs, entries, strict=True):
        value = run.value(key)
        text = html.MISSING if entry is None else html.undefined(entry.get("reason"))
        text = text if value is None else html.show(value)
        mark = "unhealthy" if run.problems else None
        values += html.tag("span", f"{html.fact(run.seed)}: {text}", mark, title=mark)
    return html.tag("span", values, "seed-values")


def _said(entry: dict[str, Any], mean: dict[str, Any]) -> bool:
    """Whether a seed's value is undefined for the reason that its mean gives."""
    both = number(entry.get("value")) is None and number(mean.get("value")) is None
    return both and str(mean.get("reason")).endswith(str(entry.get("reason")))
