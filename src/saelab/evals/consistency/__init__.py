"""Consistency: do the latents that tell a concept also act where it decides the next token?"""

from saelab.evals.concepts.measure import missing
from saelab.evals.consistency import measure
from saelab.evals.consistency.metrics import METRICS
from saelab.evals.result import Evaluation

EVALUATION = Evaluation(METRICS, missing, measure.prepare, measure.measure, title="Consistency")
