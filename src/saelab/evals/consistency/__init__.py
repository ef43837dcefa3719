"""Consistency: do the latents that tell a concept also act where it decides the next token?"""

from saelab.evals.common.halves import needs_labels
from saelab.evals.consistency import measure
from saelab.evals.consistency.metrics import METRICS
from saelab.evals.result import Evaluation

EVALUATION = Evaluation(
    METRICS, needs_labels, measure.prepare, measure.measure, title="Consistency"
)
