"""What every evaluation is, and what it says: metrics with their meaning, scores, tables, figures.

An evaluation is a folder of `evals`; its `__init__` ends with `EVALUATION = Evaluation(...)`, and
`evals.EVALS` is the table of them. Page, console and docs read labels, directions and meanings from
`METRICS` and nowhere else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from saelab.types import Better, Dictionary, Score

if TYPE_CHECKING:
    from saelab.figures import Figure
    from saelab.ground.held_out import HeldOut
    from saelab.runs import Source, WorldSource


@dataclass(frozen=True)
class Metric:
    """One number that an evaluation reports: said once, read by the page, the console, the docs."""

    key: str  # in result files, summaries and contrasts
    label: str  # in tables, short
    better: Better
    meaning: str  # one whole sentence with unit and range, for a reader who does not know this code
    headline: int = 0  # 0: only in full tables; 1, 2, ...: place in the short table
    # key of the metric that it is traded for: the page shows one over the other, a point a run
    against: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of plain values under named columns; `note` says what a reader should look for."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[int | float | str | None]]
    note: str = ""


@dataclass(frozen=True)
class Result:
    """What measuring one dictionary gives. Keys of `scores` are those of the evaluation's metrics.

    `details` are plain values beside the scores under the names that readers of result files know
    (`latents`, `concepts`, `compatible`). `files`: name -> json of a file of its own in `eval/`.
    """

    scores: Mapping[str, Score]
    tables: Mapping[str, Table] = field(default_factory=dict)
    figures: "tuple[Figure, ...]" = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values; undefined is null with its reason. `files` are written apart."""
        # here, so that importing one evaluation stays light
        from saelab.figures import figure_to_json
        from saelab.store import plain

        return {
            **plain(dict(self.details)),
            "scores": {key: plain(asdict(score)) for key, score in self.scores.items()},
            "tables": {key: plain(asdict(table)) for key, table in self.tables.items()},
            "figures": [plain(figure_to_json(figure)) for figure in self.figures],
        }


def needs_model(source: "Source | WorldSource") -> list[str]:
    """For an evaluation of what dictionaries do to a language model's predictions."""
    if source.corpus:
        return []
    return [f"it reads a language model and a text, and {source.where} is none"]


@dataclass(frozen=True)
class Evaluation:
    """An evaluation owns what it says; everything above `evals` handles it through this."""

    metrics: tuple[Metric, ...]
    # what this source lacks for it, one sentence each, without loading a model
    missing: "Callable[[Source | WorldSource], list[str]]"
    prepare: "Callable[[HeldOut], Any]"  # once for all dictionaries
    measure: Callable[[Dictionary, Any], Result]  # pure
    title: str = ""  # of its section on the page; empty: its name
