"""Temporal: what persists along a text, in a dictionary's codes; on worlds see `on_worlds`."""

from saelab.evals.result import Evaluation, needs_model
from saelab.evals.temporal import on_models
from saelab.evals.temporal.metrics import METRICS

EVALUATION = Evaluation(
    METRICS, needs_model, on_models.prepare, on_models.measure, title="What persists along a text"
)
