"""A row of a table as one writes it: `causal`, `causal:price=1`, `batch_topk+metric:weight=4`,
`price_only=causal:weight=0:price=1`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from saelab.variants import check_spec, parse_spec, written


@dataclass(frozen=True)
class Row:
    """A base or a row of `variants` with the numbers that differ from its defaults and the parts
    that join it, and what this row of the table is called.
    """

    name: str
    variant: str
    settings: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def parse_row(text: str) -> Row:
    """The row that `[name=]spec` describes, a spec as `variants.parse_spec` reads it; without a
    name it is called after its settings and parts.

    Raises `ValueError` as that does, and for a name that cannot name a folder.
    """
    head, *rest = re.split(r"(?=[:+])", text, maxsplit=1)
    name, equals, variant = head.rpartition("=")
    described = "".join((variant, *rest)).strip()
    spec = parse_spec(described)
    made = re.sub(r"[^\w.-]", "_", re.sub("[:+]", "-", written(spec)))
    row = Row(name.strip() if equals else made, spec.variant, spec.settings, spec.parts)
    if not row.name:
        raise ValueError(
            f"row {text!r} has an empty name; write name=variant, or the variant alone"
        )
    check_spec(replace(spec, label=row.name))
    return row
