"""Concepts: how well latents tell labels of tokens."""

from saelab.evals.common.halves import needs_labels
from saelab.evals.concepts import measure
from saelab.evals.concepts.metrics import METRICS
from saelab.evals.result import Evaluation

EVALUATION = Evaluation(METRICS, needs_labels, measure.prepare, measure.measure, title="Concepts")
