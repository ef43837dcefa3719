"""What can be trained: a base and the parts that join it, or a row, a name for such a thing."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace

import torch

from saelab.numbers import Kind, Setting, check_numbers, nearest_name, settings_in
from saelab.runs import Spec
from saelab.terms.base import Variant
from saelab.types import Hook
from saelab.variants.tables import BASES, PARTS, ROWS, VARIANTS, Numbers, Row

__all__ = ["BASES", "PARTS", "ROWS", "VARIANTS", "build", "check_spec", "listing", "parse_spec"]


def described(name: str) -> Mapping[str, Setting]:
    """Look up the settings of a base, a part or a row. Raises `ValueError` for an unknown name."""
    if name in PARTS:
        return PARTS[name].settings
    _check_variant(name)
    return settings_in(BASES[name]) if name in BASES else _of_row(ROWS[name])


def settings_of(variant: str) -> dict[str, float]:
    """Look up the defaults of a base's or row's settings. Raises `ValueError` if unknown."""
    _check_variant(variant)
    return {name: setting.default for name, setting in described(variant).items()}


def resolved(spec: Spec) -> Spec:
    """Write a spec that is named after a row in terms of its base and parts. Raises `ValueError`
    where two of a row's switches exclude each other.
    """
    if spec.variant in BASES:
        return spec
    row = ROWS[spec.variant]
    settings, parts = dict(row.settings), {name: dict(row.parts[name]) for name in row.parts}
    for name, value in spec.settings.items():
        if name in row.short:
            part, setting = row.short[name]
            parts[part][setting] = value
        elif name not in row.nulls:
            settings[name] = value
    nulls = [null for name, null in row.nulls.items() if spec.settings.get(name)]
    if len(nulls) > 1:
        raise ValueError(
            f"{', '.join(row.nulls)} each replace the {PARTS[nulls[0]].term}; switch on one of "
            "them at most"
        )
    for null in nulls:
        numbers = parts.pop(next(name for name in parts if PARTS[name].term == PARTS[null].term))
        parts[null] = {name: numbers[name] for name in numbers if name in PARTS[null].settings}
    for name, numbers in spec.parts.items():
        parts[name] = parts.get(name, {}) | dict(numbers)
    return replace(spec, variant=row.base, settings=settings, parts=parts)


def check_spec(spec: Spec, d_in: int | None = None) -> None:
    """Refuse a spec that cannot be built: unknown names, numbers out of range, sizes that make no
    sense. Raises `ValueError`.
    """
    _check_variant(spec.variant)
    check_numbers(spec.variant, spec.settings, described(spec.variant))
    for name, numbers in spec.parts.items():
        if name not in PARTS:
            raise ValueError(
                f"no part is called {name!r}{nearest_name(name, PARTS)}; parts: {', '.join(PARTS)}"
            )
        check_numbers(f"part {name}", numbers, PARTS[name].settings, prefix=f"{name}:")
    _check_terms(resolved(spec).parts)
    check_sizes(spec)
    if d_in is not None and d_in < 1:
        raise ValueError(f"activations of width {d_in}; the width must be at least 1")


def check_sizes(spec: Spec) -> None:
    """Refuse a label, a number of latents or an L0 that make no sense, whatever the variant is.
    Raises `ValueError`.
    """
    if not re.fullmatch(r"[\w.-]*", spec.label):
        raise ValueError(f"label {spec.label!r} names folders; use letters, digits, _ . and - only")
    Kind(1).check("n_latents", spec.n_latents)
    if not 0 < spec.l0 < spec.n_latents:
        raise ValueError(
            f"l0 is {spec.l0:g}; it must be above 0 and below the number of latents, "
            f"{spec.n_latents:,}"
        )


def build(spec: Spec, d_in: int, seed: int, hook: Hook | None = None) -> Variant:
    """Build the variant of `spec` for activations of width `d_in`; equal seeds give equal initial
    weights.

    Raises `ValueError` as `check_spec` does.
    """
    check_spec(spec, d_in)
    spec = resolved(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        variant = BASES[spec.variant](d_in, spec.n_latents, l0=spec.l0, **spec.settings)
    for name, part in PARTS.items():
        if name in spec.parts:
            variant = part.join(variant, **spec.parts[name], **part.fixed)
    variant.sae.hook = hook
    return variant


# Text ---------------------------------------------------------------------------------------------


def parse_spec(text: str) -> Spec:
    """Read a spec of default size from `base[:setting=number ...][+part[:setting=number ...] ...]`;
    a row may stand for the base.

    Raises `ValueError` for an unknown name, for what is no number and for numbers out of range.
    """
    first, *rest = (_numbers(piece, text) for piece in re.split(r"\+(?=\D)", text))
    parts = dict(rest)
    if len(parts) < len(rest):
        raise ValueError(f"{text!r} has a part twice; give each part once, with all its settings")
    spec = Spec(first[0], settings=first[1], parts=parts)
    check_spec(spec)
    return spec


def written(spec: Spec) -> str:
    """Write a spec of default size as the text that `parse_spec` reads."""
    pieces = [(spec.variant, spec.settings), *spec.parts.items()]
    return "+".join(
        ":".join([name, *(f"{key}={value:g}" for key, value in numbers.items())])
        for name, numbers in pieces
    )


def listing() -> str:
    """List every base, part and row with a line on what it is, for help."""
    bases = {name: _first_sentence(base) for name, base in BASES.items()}
    parts = {name: part.meaning for name, part in PARTS.items()}
    rows = {name: f"{row.meaning} ({written(resolved(Spec(name)))})" for name, row in ROWS.items()}
    groups = {
        "bases": bases,
        "parts, each joins any base: batch_topk:refine=.15+metric:weight=4": parts,
        "rows, names of such compositions": rows,
    }
    return "\n\n".join(
        "\n".join([f"{title}:", *(f"  {name:18} {said}" for name, said in lines.items())])
        for title, lines in groups.items()
    )


def settings_text(name: str) -> str:
    """Say the settings of a base, a part or a row, a line each: default, meaning and range. Raises
    `ValueError` for an unknown name.
    """
    return "\n".join(
        f"  {key}={setting.default:g}  {setting.meaning}; {setting.kind.range}"
        for key, setting in described(name).items()
    )


def _numbers(piece: str, text: str) -> tuple[str, dict[str, float]]:
    """Name and numbers of `name:setting=number:...`, a piece of the whole `text`."""
    name, *given = piece.split(":")
    numbers: dict[str, float] = {}
    for item in given:
        key, _, number = item.partition("=")
        try:
            numbers[key.strip()] = float(number)
        except ValueError as error:
            raise ValueError(
                f"{text!r}: {item!r} is not SETTING=NUMBER; write for instance topk:aux=0.1"
            ) from error
    return name.strip(), numbers


def _first_sentence(base: object) -> str:
    paragraph = (inspect.getdoc(base) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).split(" (")[0].rstrip(".")


def _check_variant(name: str) -> None:
    if name in PARTS:
        raise ValueError(f"{name!r} is a part; write what it joins, for instance topk+{name}")
    if name not in VARIANTS:
        raise ValueError(
            f"unknown variant {name!r}{nearest_name(name, VARIANTS)}; known: {', '.join(VARIANTS)}"
        )


def _check_terms(parts: Mapping[str, Numbers]) -> None:
    """Two parts that add the same term to the loss exclude each other, unless one is off."""
    terms: dict[str, str] = {}
    for name, numbers in parts.items():
        if 0 in (numbers.get("weight"), numbers.get("share")):
            continue
        other = terms.setdefault(PARTS[name].term, name)
        if other != name:
            raise ValueError(
                f"the parts {other} and {name} both are the term {PARTS[name].term!r} of the "
                "loss; take one of them"
            )


def _of_row(row: Row) -> dict[str, Setting]:
    """The base's settings, and the row's own names of its parts' settings, with its defaults."""
    settings = {
        name: replace(setting, default=row.settings.get(name, setting.default))
        for name, setting in settings_in(BASES[row.base]).items()
    }
    for name, (part, key) in row.short.items():
        setting = PARTS[part].settings[key]
        settings[name] = replace(setting, default=row.parts[part].get(key, setting.default))
    for name, part in row.nulls.items():
        settings[name] = Setting(Kind(0, 1, whole=True), 0, PARTS[part].meaning)
    return settings
