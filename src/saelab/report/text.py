"""Numbers, names and hostile strings as html text."""

import html
from typing import Any

from saelab.report.read import number

MISSING = '<span class="missing">not measured</span>'


def esc(value: Any) -> str:
    """`value` as text, safe in html content and in quoted attributes."""
    return html.escape(visible(str(value)), quote=True)


def visible(text: str) -> str:
    """Control characters other than newline and tab as their Unicode pictures, so that none is lost
    or acts.
    """
    return "".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else c for c in text)


def show(value: float) -> str:
    """A finite number at a precision that fits its size, with a true minus sign."""
    size = abs(value)
    if value == int(value) and (size >= 1000 or value == 0):
        text = f"{value:,.0f}"
    elif size >= 1000:
        text = f"{value:,.1f}"
    elif size >= 10:
        text = f"{value:.2f}"
    elif size >= 1:
        text = f"{value:.3f}"
    else:
        text = (
            f"{value:.4f}"
            if size >= 0.001
            else f"{value:.5f}"
            if size >= 0.00005
            else f"{value:.2e}"
        )
    return text.replace("-", "\N{MINUS SIGN}")


def signed(value: float) -> str:
    """A difference: `show` with the sign always there."""
    return ("+" if value > 0 else "") + show(value)


def interval(low: Any, high: Any) -> str:
    """`[low, high]`, or words when a bound is missing."""
    a, b = number(low), number(high)
    return (
        '<span class="ci">no interval</span>'
        if a is None or b is None
        else f'<span class="ci">[{show(a)}, {show(b)}]</span>'
    )


def undefined(reason: Any) -> str:
    """`undefined: reason`, the only way a value without a number is shown."""
    return f'<span class="undefined">undefined: {esc(reason or "no reason was recorded")}</span>'


def score(entry: dict[str, Any] | None) -> str:
    """A score with its interval; undefined with its reason; or `not measured`."""
    if entry is None:
        return MISSING
    value = number(entry.get("value"))
    if value is None:
        return undefined(entry.get("reason"))
    return (
        f'<span class="value">{show(value)}</span> {interval(entry.get("low"), entry.get("high"))}'
    )


def fact(value: Any) -> str:
    """A configuration value or recorded fact as text."""
    if value is None or value == "":
        return '<span class="missing">not recorded</span>'
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        known = number(value)
        return (
            undefined("not a finite number")
            if known is None
            else f"{known:,.0f}"
            if known == int(known)
            else f"{known:,.6g}"
        )
    if isinstance(value, list):
        return ", ".join(fact(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{esc(key)} {fact(item)}" for key, item in value.items()) or "none"
    return esc(value)
