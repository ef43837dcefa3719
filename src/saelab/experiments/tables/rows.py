"""A row of a table as one writes it: `causal`, `causal:price=1`,
`price_only=causal:weight=0:price=1`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from saelab.runs import Spec
from saelab.variants import check_spec, settings_of


@dataclass(frozen=True)
class Row:
    """A variant with the numbers that differ from its defaults, and what the row is called."""

    name: str
    variant: str
    settings: Mapping[str, float] = field(default_factory=dict)


def parse_row(text: str) -> Row:
    """The row that `[name=]variant[:setting=number ...]` describes; without a name it is called
    after its settings.

    Raises `ValueError` for an unknown variant or setting, for what is no number, and for a name
    that cannot name a folder.
    """
    head, *numbers = text.split(":")
    name, equals, variant = head.rpartition("=")
    settings: dict[str, float] = {}
    for part in numbers:
        key, _, number = part.partition("=")
        try:
            settings[key.strip()] = float(number)
        except ValueError as error:
            raise ValueError(
                f"row {text!r}: {part!r} is not SETTING=NUMBER; write for instance causal:price=1"
            ) from error
    variant = variant.strip()
    settings_of(variant)
    made = "-".join([variant, *(f"{key}_{value:g}" for key, value in settings.items())])
    row = Row(re.sub(r"[^\w.-]", "_", made) if not equals else name.strip(), variant, settings)
    if not row.name:
        raise ValueError(
            f"row {text!r} has an empty name; write name=variant, or the variant alone"
        )
    check_spec(Spec(variant, n_latents=2, l0=1, settings=settings, label=row.name))
    return row
