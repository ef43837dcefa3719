"""The result of an evaluation on a synthetic world: scores of one SAE, and what the report
draws.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from saelab.store import plain
from saelab.types import Better, Score


@dataclass(frozen=True)
class WorldResult:
    """What a world evaluation returns. `details`: plain values for pictures, not needed by any
    table.
    """

    eval: str
    scores: Mapping[str, Score]
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values; undefined is null with its reason."""
        scores = {name: plain(asdict(score)) for name, score in self.scores.items()}
        return {
            "eval": self.eval,
            "interval": "over seeds, in summary.json",
            "scores": scores,
            "details": plain(dict(self.details)),
        }


def exact(value: float, n: int, better: Better = "neither") -> Score:
    """A number measured on n activations of one world: its interval is over seeds. What is not a
    number is `undefined`.
    """
    return Score(float(value), n=n, better=better)


def undefined(reason: str, better: Better = "neither") -> Score:
    """A number that does not exist here, and why."""
    return Score(None, better=better, reason=reason)
