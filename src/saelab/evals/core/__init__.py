"""Core scores: sparsity, reconstruction, and what the language model loses with it."""

from saelab.evals.core import data, measure
from saelab.evals.core.metrics import METRICS
from saelab.evals.result import Evaluation, needs_model

EVALUATION = Evaluation(
    METRICS, needs_model, data.prepare, measure.measure, title="Latents as a whole"
)
