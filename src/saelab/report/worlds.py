"""The section of a synthetic world: what it tests, whether it does, means over seeds with their
intervals.
"""

from typing import Any

from saelab.evals import BATCH, EVALS
from saelab.report import tables
from saelab.report.read import Results, RunRecord, items, mapping, number
from saelab.report.text import MISSING, esc, fact, score, show, undefined
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
    return "".join(
        f'<p class="alarm" role="alert"><b>The world does not test what it should</b>: '
        f"{esc(str(row.get('meaning') or 'no meaning was recorded').rstrip('.'))} "
        f"({_expected(results, row)}).</p>"
        for row in _sanity(results)
        if row.get("ok") is False
    )


def world_section(results: Results) -> str:
    """What the world tests, its sanity rows, and the table of means over seeds with their
    intervals.
    """
    told = results.facts
    name = (
        f"<b>{esc(told['world'])}</b>" if told.get("world") else f"a world whose name was {MISSING}"
    )
    names = _names(results)
    plain, batch = ([key for key in names if key.endswith(BATCH) is ends] for ends in (False, True))
    tables_of_all = (
        "<details><summary>All metrics, with the value of every "
        f"seed</summary>{_all_means(results, plain)}</details>"
    )
    if batch:
        tables_of_all += (
            "<details><summary>The same with codes under batch selection in place of the "
            "threshold</summary>"
            f"{_all_means(results, batch)}</details>"
        )
    meanings = "".join(
        f"<dt>{esc(known.label)}</dt><dd>{esc(known.meaning)}</dd>"
        for known in map(results.metric, plain)
        if known.meaning
    )
    return (
        f'<p class="lead">World {name}: {esc(told.get("tests") or "what it tests was not recorded")}</p>'
        f"{_sanity_list(results)}{_means_table(results, [*ALWAYS, *_headline(results)])}"
        '<p class="note">Mean over seeds with its 95 % interval (Student t). Framed: its interval lies wholly on the better '
        "side of every other row's. The contrasts below are paired by seed and see smaller "
        "differences.</p>"
        f"{tables_of_all}"
        f'<details><summary>What the numbers mean</summary><dl class="meanings">{meanings}</dl></details>'
    )


def frontier_metrics(results: Results) -> list[str]:
    """What the frontier shows against L0: how well x is kept, and the metric that the world is
    about.
    """
    return list(dict.fromkeys([EXPLAINED_VARIANCE, *_headline(results)]))[:2]


def facts(results: Results) -> str:
    """The table of facts, without what the world's own section says."""
    rest = {key: value for key, value in results.facts.items() if key not in TOLD}
    return tables.facts_table(rest, WANTED)


def _headline(results: Results) -> list[str]:
    return [key for key in map(str, items(results.facts.get("headline"))) if key not in ALWAYS]


def _sanity(results: Results) -> list[dict[str, Any]]:
    return [mapping(row) for row in items(results.facts.get("sanity"))]


def _sanity_list(results: Results) -> str:
    rows = []
    for row in _sanity(results):
        kind, word = SANITY.get(str(row.get("ok")), ("warn", "not measured"))
        meaning = str(row.get("meaning") or "no meaning was recorded").rstrip(".")
        rows.append(
            f'<li><span class="badge {kind}">{word}</span> <span>{_expected(results, row)}. Otherwise: {esc(meaning)}.</span></li>'
        )
    return (
        f'<h3>Does the world test what it should?</h3><ul class="sanity">{"".join(rows)}</ul>'
        if rows
        else ""
    )


def _expected(results: Results, row: dict[str, Any]) -> str:
    """`Causal MCC of batch_topk at most 0.05; measured 0.013`."""
    low, high, value = (number(row.get(key)) for key in ("low", "high", "value"))
    if low is None and high is None:
        bounds = "recorded without bounds"
    elif low is not None and high is not None:
        bounds = f"{fact(low)} to {fact(high)}"
    else:
        bounds = f"at least {fact(low)}" if low is not None else f"at most {fact(high)}"
    label = (
        f"{esc(results.metric(str(row.get('metric'))).label)} of "
        f"<b>{esc(row.get('variant') or 'an unnamed variant')}</b>"
    )
    return (
        f"{label} should be {bounds}, measured: "
        f"{MISSING if value is None else f'<b>{show(value)}</b>'}"
    )


def _means(results: Results) -> dict[str, dict[str, Any]]:
    """Variant -> metric -> {value, low, high, n}."""
    return {str(row.get("variant")): mapping(row.get("metrics")) for row in results.means}


def _names(results: Results) -> list[str]:
    """Every metric that some mean or run has: L0, the known ones in the page's order, then the
    others.
    """
    found = [
        *(key for metrics in _means(results).values() for key in metrics),
        *(key for r in results.runs for key in r.metrics),
    ]
    known = [metric.key for evaluation in EVALS.values() for metric in evaluation.metrics]
    order = {key: i for i, key in enumerate(dict.fromkeys((*ALWAYS, *known)))}
    return sorted(
        dict.fromkeys(found),
        key=lambda key: order.get(key, order.get(key.removesuffix(BATCH), len(order))),
    )


def _means_table(results: Results, shown: list[str]) -> str:
    means = _means(results)
    if not means:
        return f'<p class="absent">Means over seeds: {MISSING}. The value of every seed stands below.</p>'
    head = "".join(
        f'<th title="{esc(results.metric(key).meaning)}">{esc(results.metric(key).label)}{tables.arrow(results.metric(key))}</th>'
        for key in shown
    )
    best = {key: _best(means, key, results.metric(key).better) for key in shown}
    rows = []
    for index, variant in enumerate(results.variants):
        metrics, runs = means.get(variant, {}), results.of(variant)
        if not metrics and runs and all(run.problems for run in runs):
            cells = f'<td colspan="{len(shown)}">{undefined("no healthy run to average; the value of every seed is below")}</td>'
        else:
            cells = "".join(
                f"<td{' class=best' if best[key] == variant else ''}>{score(_entry(metrics, key))}</td>"
                for key in shown
            )
        rows.append(
            f'<tr><th scope="row">{tables.swatch(index)}{esc(variant)}{_seeds(runs)}</th>{cells}</tr>'
        )
    return (
        f'<div class="scroll"><table id="means-table"><thead><tr><th>Variant</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _entry(metrics: dict[str, Any], key: str) -> dict[str, Any] | None:
    """A mean as a score; the page says `undefined` by itself."""
    if key not in metrics:
        return None
    entry = mapping(metrics[key])
    return entry | {"reason": str(entry.get("reason") or "").removeprefix("undefined for ")}


def _seeds(runs: list[RunRecord]) -> str:
    bad = sum(1 for run in runs if run.problems)
    text = f"{len(runs)} seed{'s' * (len(runs) != 1)}" + (f", {bad} unhealthy" if bad else "")
    return f'<span class="note seeds-count">{text}</span>'


def _best(means: dict[str, dict[str, Any]], key: str, better: Better) -> str | None:
    """The variant whose interval lies wholly on the better side of every other's; None when there
    is none or no direction.
    """
    bounds = {}
    for variant, metrics in means.items():
        low, high = (number(mapping(metrics.get(key)).get(side)) for side in ("low", "high"))
        if low is not None and high is not None:
            bounds[variant] = (low, high) if better == "higher" else (-high, -low)
        elif number(mapping(metrics.get(key)).get("value")) is not None:
            return None  # a mean without an interval cannot be outdone
    if better == "neither" or len(bounds) < 2:
        return None
    first = max(bounds, key=lambda variant: bounds[variant][0])
    return (
        first
        if all(bounds[first][0] > high for variant, (_, high) in bounds.items() if variant != first)
        else None
    )


def _all_means(results: Results, names: list[str]) -> str:
    means = _means(results)
    head = "".join(f"<th>{esc(variant)}</th>" for variant in results.variants)
    rows = []
    for key in names:
        entries = [(variant, _entry(means.get(variant, {}), key)) for variant in results.variants]
        cells = "".join(
            f"<td>{score(mean)}{_seed_values(results.of(variant), key, mean)}</td>"
            for variant, mean in entries
        )
        known = results.metric(key)
        rows.append(
            f'<tr><th scope="row" title="{esc(known.meaning)}">{esc(known.label)}<code>{esc(key)}</code></th>{cells}</tr>'
        )
    return (
        '<p class="note">Under each mean the value of every seed.</p>'
        '<div class="scroll"><table class="small"><thead><tr>'
        f"<th>Metric</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _seed_values(runs: list[RunRecord], key: str, mean: dict[str, Any] | None) -> str:
    """The value of every seed; nothing where all are undefined for the reason that the mean already
    gives.
    """
    entries = [(run, run.metrics.get(key)) for run in runs]
    if mean is not None and all(
        entry is not None and _undefined_like(entry, mean) for _, entry in entries
    ):
        return ""
    parts = []
    for run, entry in entries:
        value = None if entry is None else number(entry.get("value"))
        text = (
            MISSING
            if entry is None
            else undefined(entry.get("reason"))
            if value is None
            else show(value)
        )
        mark = ' class="unhealthy" title="unhealthy"' if run.problems else ""
        parts.append(f"<span{mark}>{fact(run.seed)}: {text}</span>")
    return f'<span class="seed-values">{"".join(parts)}</span>'


def _undefined_like(entry: dict[str, Any], mean: dict[str, Any]) -> bool:
    both = number(entry.get("value")) is None and number(mean.get("value")) is None
    return both and str(mean.get("reason")).endswith(str(entry.get("reason")))
