"""The latents of the page: where a latent fires, what it promotes, how strongly it is active."""

from collections.abc import Sequence
from typing import Any

from saelab.report import html
from saelab.report.draw.runs import bars
from saelab.report.read import Results, RunRecord, items, mapping, number

CONTEXTS = 6  # shown per latent
PAGE_LATENTS = 200  # on a page, shared by its runs: keeps ten runs near 2 MB
RUN_LATENTS = 24  # of a run
CONTROLS = (
    '<button type="button" id="latent-previous">previous</button>'
    '<button type="button" id="latent-next">next</button>'
    '<label for="latent-search">Latent</label>'
    '<input type="number" id="latent-search" min="0" placeholder="number">'
    '<output class="note" id="latent-answer" for="latent-search"></output>'
)


def latents_section(results: Results) -> str:
    """A selector over the runs and, per run, its most interesting latents."""
    measured = [run for run in results.runs if run.latents]
    missing = "".join(
        html.absent(
            f"Latents of {html.esc(run.name)} ({html.esc(run.label)}): {html.MISSING}"
            f"{' (latents.json lists none)' if run.latents == [] else ''}."
        )
        for run in results.runs
        if not run.latents
    )
    if not measured:
        return missing
    per_run = max(4, min(RUN_LATENTS, PAGE_LATENTS // len(measured)))
    options = "".join(
        html.tag("option", f"{html.esc(run.label)} · {html.esc(run.name)}", value=i)
        for i, run in enumerate(measured)
    )
    selector = f'<label for="run-select">Run</label> {html.tag("select", options, id="run-select")}'
    panels = "".join(_run(i, run, per_run) for i, run in enumerate(measured))
    return html.tag("div", selector + CONTROLS, "controls") + panels + missing


def _run(index: int, run: RunRecord, limit: int) -> str:
    latents = run.latents or []
    chosen = {f"{index}-{i}": latent for i, latent in enumerate(latents[:limit])}
    chips = "".join(
        html.tag(
            "button",
            f"{html.tag('b', _name(latent))} {_preview(latent)}",
            "chip",
            type="button",
            data_latent=key,
            data_number=latent.get("index"),
        )
        for key, latent in chosen.items()
    )
    cards = "".join(_card(key, latent, run) for key, latent in chosen.items())
    remark = html.note(
        f"{len(chosen)} of {len(latents)} recorded latents of {html.esc(run.label)}, in the order "
        f"they were chosen. {html.esc(run.rule)} Logit effect: the decoder direction read "
        "out directly, past the layers above the hook: a first-order reading."
    )
    content = remark + html.tag("div", chips, "chips") + cards
    return html.tag("div", content, "run-latents", data_run=index)


def _card(key: str, latent: dict[str, Any], run: RunRecord) -> str:
    contexts = [mapping(context) for context in items(latent.get("contexts"))]
    strongest = max((max(_activations(context), default=0.0) for context in contexts), default=0.0)
    lines = "".join(_context(context, strongest) for context in contexts[:CONTEXTS])
    counts, edges = (
        [value for value in map(number, items(latent.get(name))) if value is not None]
        for name in ("histogram", "edges")
    )
    facts = [html.esc(run.label)]
    for label, name in (
        ("fires on a share of", "density"),
        ("mean when active", "mean_activation"),
        ("strongest", "max_activation"),
    ):
        value = number(latent.get(name))
        facts.append(f"{label} {html.MISSING if value is None else html.show(value)}")
    if latent.get("chosen_for"):
        facts.append(f"chosen for its {html.esc(latent['chosen_for'])}")
    panels = {
        "Makes likelier (logit effect)": _tokens(items(latent.get("promoted")), "up"),
        "Makes unlikelier (logit effect)": _tokens(items(latent.get("suppressed")), "down"),
        "Activations (log counts)": bars(edges, counts) if counts else html.MISSING,
    }
    title = html.tag("h4", f"Latent {_name(latent)}") + html.tag("span", " · ".join(facts), "note")
    columns = "".join(html.tag("div", html.tag("h5", head) + body) for head, body in panels.items())
    examples = html.tag("div", lines or html.absent(f"Contexts: {html.MISSING}."), "contexts")
    content = html.tag("header", title) + html.tag("div", columns, "panels")
    title = (
        "Top contexts (colour: activation as a share of the strongest shown; hover for its value)"
    )
    content += html.tag("h5", title) + examples
    return html.tag("article", content, "latent", id=f"latent-{key}")


def _activations(context: dict[str, Any]) -> list[float]:
    return [number(value) or 0.0 for value in items(context.get("activations"))]


def _context(context: dict[str, Any], strongest: float) -> str:
    """One context; neighbouring silent tokens share one text node, which keeps the page small."""
    tokens, activations = items(context.get("tokens")), _activations(context)
    activations += [0.0] * (len(tokens) - len(activations))
    text = ""
    for token, value in zip(tokens, activations, strict=False):
        if value > 0 and strongest > 0:
            share = min(value / strongest, 1.0)
            text += html.tag(
                "mark", _token(token), style=f"--a:{share:.2f}", title=html.show(value)
            )
        else:
            text += _token(token)
    where = [
        f"{name} {html.fact(context[key])}"
        for name, key in (("document", "doc"), ("window", "window"))
        if key in context
    ]
    source = html.tag("span", ", ".join(where), "where") if where else ""
    return html.tag("p", html.tag("span", text, "text") + source, "context")


def _tokens(pairs: Sequence[Any], kind: str) -> str:
    """Tokens with their logit effect, as bars relative to the largest."""
    effects = [
        (pair[0], number(pair[1]))
        for pair in pairs
        if isinstance(pair, list | tuple) and len(pair) == 2
    ]
    if not effects:
        return html.MISSING
    largest = max((abs(value) for _, value in effects if value is not None), default=0.0) or 1.0
    rows = ""
    for token, value in effects[:8]:
        width = f"width:{100 * abs(value or 0.0) / largest:.0f}%"
        text = html.tag("span", "undefined" if value is None else html.show(value), "effect")
        rows += html.tag("li", html.tag("code", _token(token)) + text + html.tag("i", style=width))
    return html.tag("ol", rows, f"tokens {kind}")


def _name(latent: dict[str, Any]) -> str:
    index = latent.get("index")
    return "unnumbered" if index is None else f"#{html.esc(index)}"


def _preview(latent: dict[str, Any]) -> str:
    """The token that the latent fires on most strongly, for its button."""
    best, token = 0.0, ""
    for context in map(mapping, items(latent.get("contexts"))):
        for text, value in zip(items(context.get("tokens")), _activations(context), strict=False):
            if value > best:
                best, token = value, str(text)
    return html.tag("code", _token(token[:18])) if token else ""


def _token(token: Any) -> str:
    """A token as html: newlines as a sign, control characters as pictures, other whitespace as it
    is.
    """
    return html.esc(
        html.visible(str(token).replace("\r\n", "\n")).replace("\n", "\N{RETURN SYMBOL}")
    )
