"""NCES: what changing one latent does to the model's predictions, beside matched directions."""

from saelab.evals.nces import on_models
from saelab.evals.nces.metrics import METRICS
from saelab.evals.result import Evaluation, needs_model

EVALUATION = Evaluation(
    METRICS, needs_model, on_models.prepare, on_models.measure, title="Effects of latents"
)
