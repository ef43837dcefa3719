"""The latents of the page: where a latent fires, what it promotes, how strongly it is active."""

from collections.abc import Sequence
from typing import Any

from saelab.report.draw.runs import bars
from saelab.report.read import Results, RunRecord, items, mapping, number
from saelab.report.text import MISSING, esc, fact, show, visible

CONTEXTS = 6  # shown per latent
PAGE_LATENTS = 200  # on a page, shared by its runs: keeps ten runs near 2 MB
RUN_LATENTS = 24  # of a run


def latents_section(results: Results) -> str:
    """A selector over the runs and, per run, its most interesting latents."""
    measured = [run for run in results.runs if run.latents]
    absent = [run for run in results.runs if not run.latents]
    per_run = max(4, min(RUN_LATENTS, PAGE_LATENTS // max(len(measured), 1)))
    note = "".join(
        f'<p class="absent">Latents of {esc(run.name)} ({esc(run.label)}): {MISSING}'
        f"{' (latents.json lists none)' if run.latents == [] else ''}.</p>"
        for run in absent
    )
    if not measured:
        return note
    options = "".join(
        f'<option value="{i}">{esc(run.label)} · {esc(run.name)}</option>'
        for i, run in enumerate(measured)
    )
    controls = (
        f'<div class="controls"><label for="run-select">Run</label> <select id="run-select">{options}</select>'
        '<button type="button" id="latent-previous">previous</button><button type="button" id="latent-next">next</button>'
        '<span class="note">Colour: activation as a share of the strongest one shown; hover a token for its value.</span></div>'
    )
    return controls + "".join(_run(i, run, per_run) for i, run in enumerate(measured)) + note


def _run(index: int, run: RunRecord, limit: int) -> str:
    latents = run.latents or []
    shown = latents[:limit]
    chips = "".join(
        f'<button type="button" class="chip" data-latent="{index}-{i}"><b>{_name(latent)}</b> {_preview(latent)}</button>'
        for i, latent in enumerate(shown)
    )
    cards = "".join(_card(f"{index}-{i}", latent, run) for i, latent in enumerate(shown))
    count = (
        f"{len(shown)} of {len(latents)} recorded latents of {esc(run.label)}, in the order they "
        "were chosen. "
    )
    count += (
        "Logit effect: the decoder direction read out directly, past the layers above the hook: a "
        "first-order reading."
    )
    return f'<div class="run-latents" data-run="{index}"><p class="note">{count}</p><div class="chips">{chips}</div>{cards}</div>'


def _card(key: str, latent: dict[str, Any], run: RunRecord) -> str:
    contexts = [mapping(context) for context in items(latent.get("contexts"))]
    strongest = max(
        (number(a) or 0.0 for context in contexts for a in items(context.get("activations"))),
        default=0.0,
    )
    lines = (
        "".join(_context(context, strongest) for context in contexts[:CONTEXTS])
        or f'<p class="absent">Contexts: {MISSING}.</p>'
    )
    counts, edges = (
        [value for value in map(number, items(latent.get(key))) if value is not None]
        for key in ("histogram", "edges")
    )
    facts = " · ".join(
        f"{label} {MISSING if value is None else show(value)}"
        for label, value in (
            ("fires on a share of", number(latent.get("density"))),
            ("mean when active", number(latent.get("mean_activation"))),
            ("strongest", number(latent.get("max_activation"))),
        )
    )
    if latent.get("chosen_for"):
        facts += f" · chosen for its {esc(latent['chosen_for'])}"
    return (
        f'<article class="latent" id="latent-{key}"><header><h4>Latent {_name(latent)}</h4>'
        f'<span class="note">{esc(run.label)} · {facts}</span></header><div class="panels">'
        "<div><h5>Makes likelier (logit "
        f"effect)</h5>{_tokens(items(latent.get('promoted')), 'up')}</div>"
        "<div><h5>Makes unlikelier (logit "
        f"effect)</h5>{_tokens(items(latent.get('suppressed')), 'down')}</div>"
        "<div><h5>Activations (log "
        f"counts)</h5>{bars(edges, counts) if counts else MISSING}</div></div>"
        f'<h5>Top contexts</h5><div class="contexts">{lines}</div></article>'
    )


def _context(context: dict[str, Any], strongest: float) -> str:
    """One context; neighbouring silent tokens share one text node, which keeps the page small."""
    tokens = items(context.get("tokens"))
    activations = [number(value) or 0.0 for value in items(context.get("activations"))]
    activations += [0.0] * (len(tokens) - len(activations))
    parts = []
    for token, value in zip(tokens, activations, strict=False):
        if value > 0 and strongest > 0:
            share = min(value / strongest, 1.0)
            parts.append(
                f'<mark style="--a:{share:.2f}" title="{show(value)}">{_token(token)}</mark>'
            )
        else:
            parts.append(_token(token))
    where = [
        f"{name} {fact(context[key])}"
        for name, key in (("document", "doc"), ("window", "window"))
        if key in context
    ]
    source = f'<span class="where">{", ".join(where)}</span>' if where else ""
    return f'<p class="context"><span class="text">{"".join(parts)}</span>{source}</p>'


def _tokens(pairs: Sequence[Any], kind: str) -> str:
    """Tokens with their logit effect, as bars relative to the largest."""
    known = [
        (pair[0], number(pair[1]))
        for pair in pairs
        if isinstance(pair, list | tuple) and len(pair) == 2
    ]
    if not known:
        return MISSING
    largest = max((abs(value) for _, value in known if value is not None), default=0.0) or 1.0
    rows = "".join(
        f'<li><code>{_token(token)}</code><span class="effect">{"undefined" if value is None else show(value)}</span>'
        f'<i style="width:{100 * abs(value or 0.0) / largest:.0f}%"></i></li>'
        for token, value in known[:8]
    )
    return f'<ol class="tokens {kind}">{rows}</ol>'


def _name(latent: dict[str, Any]) -> str:
    index = latent.get("index")
    return "unnumbered" if index is None else f"#{esc(index)}"


def _preview(latent: dict[str, Any]) -> str:
    """The token that the latent fires on most strongly, for its button."""
    best, token = 0.0, ""
    for context in map(mapping, items(latent.get("contexts"))):
        for text, value in zip(
            items(context.get("tokens")), items(context.get("activations")), strict=False
        ):
            if (number(value) or 0.0) > best:
                best, token = number(value) or 0.0, str(text)
    return f"<code>{_token(token[:18])}</code>" if token else ""


def _token(token: Any) -> str:
    """A token as html: newlines as a sign, control characters as pictures, other whitespace as it
    is.
    """
    return esc(visible(str(token).replace("\r\n", "\n")).replace("\n", "\N{RETURN SYMBOL}"))
