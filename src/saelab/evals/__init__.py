"""Evaluations: (dictionary, data) -> `Result`. The table of them is `table.EVALS`; a new evaluation
is one line in it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saelab.evals.table import EVALS, check_evals, headlines, metric_of, named, standard_evals

__all__ = ["EVALS", "check_evals", "headlines", "metric_of", "named", "standard_evals"]


def __getattr__(name: str) -> Any:
    # on first use: the table loads every evaluation, and one alone should not load the others
    if name not in __all__:
        raise AttributeError(f"module 'saelab.evals' has no attribute {name!r}")
    return getattr(import_module("saelab.evals.table"), name)
