"""Numbers, names and hostile strings as html text, and the html elements that they stand in."""

from collections.abc import Iterable
from html import escape
from typing import Any

from saelab.report.read import number


def esc(value: Any) -> str:
    """`value` as text, safe in html content and in quoted attributes."""
    return escape(visible(str(value)), quote=True)


def visible(text: str) -> str:
    """Control characters other than newline and tab as their Unicode pictures, so that none is lost
    or acts.
    """
    return "".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else c for c in text)


def tag(name: str, content: str = "", kind: str | None = None, **attributes: Any) -> str:
    """An html element around `content`, which is html already; attributes are escaped here.

    `kind` is its class, `data_run` is written data-run, and an attribute that is None is left out.
    """
    given = {"class": kind, **attributes}
    text = "".join(
        f' {key.replace("_", "-")}="{esc(value)}"'
        for key, value in given.items()
        if value is not None
    )
    return f"<{name}{text}>{content}</{name}>"


def tags(name: str, contents: Iterable[str]) -> str:
    """Elements of one name side by side, such as the cells of a row."""
    return "".join(tag(name, content) for content in contents)


def row(head: str, cells: str, kind: str | None = None, title: str | None = None) -> str:
    """A row of a table: what it is about, then its cells."""
    return tag("tr", tag("th", head, scope="row", title=title) + cells, kind)


def table(heads: str, rows: str, kind: str | None = None, **attributes: Any) -> str:
    """A table that scrolls where the screen is narrow; `heads`: the cells of its first row."""
    head = tag("thead", tag("tr", heads))
    return tag("div", tag("table", head + rows, kind, **attributes), "scroll")


def folded(summary: str, content: str) -> str:
    """What a reader opens with a click."""
    return tag("details", tag("summary", summary) + content)


def note(content: str) -> str:
    """A remark below what it is about."""
    return tag("p", content, "note")


def alarm(content: str) -> str:
    """A red line, which a screen reader says at once."""
    return tag("p", content, "alarm", role="alert")


def absent(content: str) -> str:
    """A line that says what is not there, and why."""
    return tag("p", content, "absent")


MISSING = tag("span", "not measured", "missing")


def counted(n: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{n} {noun}{'s' * (n != 1)}"


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
    elif size >= 0.001:
        text = f"{value:.4f}"
    else:
        text = f"{value:.5f}" if size >= 0.00005 else f"{value:.2e}"
    return text.replace("-", "\N{MINUS SIGN}")


def shown(value: Any) -> str:
    """A number in its own weight, or `not measured`."""
    known = number(value)
    return MISSING if known is None else tag("span", show(known), "value")


def signed(value: float) -> str:
    """A difference: `show` with the sign always there."""
    return ("+" if value > 0 else "") + show(value)


def interval(low: Any, high: Any) -> str:
    """`[low, high]`, or words when a bound is missing."""
    a, b = number(low), number(high)
    text = "no interval" if a is None or b is None else f"[{show(a)}, {show(b)}]"
    return tag("span", text, "ci")


def undefined(reason: Any) -> str:
    """`undefined: reason`, the only way a value without a number is shown."""
    return tag("span", f"undefined: {esc(reason or 'no reason was recorded')}", "undefined")


def score(entry: dict[str, Any] | None) -> str:
    """A score with its interval; undefined with its reason; or `not measured`."""
    if entry is None:
        return MISSING
    if number(entry.get("value")) is None:
        return undefined(entry.get("reason"))
    return f"{shown(entry['value'])} {interval(entry.get('low'), entry.get('high'))}"


def fact(value: Any) -> str:
    """A configuration value or recorded fact as text."""
    if value is None or value == "":
        return tag("span", "not recorded", "missing")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        known = number(value)
        if known is None:
            return undefined("not a finite number")
        return f"{known:,.0f}" if known == int(known) else f"{known:,.6g}"
    if isinstance(value, list):
        return ", ".join(fact(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{esc(key)} {fact(item)}" for key, item in value.items()) or "none"
    return esc(value)
