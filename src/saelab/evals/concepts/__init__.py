"""Concepts: how well latents tell labels of tokens."""

from saelab.evals.concepts import measure
from saelab.evals.concepts.metrics import METRICS
from saelab.evals.result import Evaluation

EVALUATION = Evaluation(
    METRICS, measure.missing, measure.prepare, measure.measure, title="Concepts"
)
