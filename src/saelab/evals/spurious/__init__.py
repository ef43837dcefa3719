"""How much of a spurious concept is left when a few latents are removed?"""

from saelab.evals.common.world import world_evaluation
from saelab.evals.result import Metric
from saelab.evals.spurious import measure
from saelab.synth.worlds.s5_spurious import SpuriousFactor

METRICS = (
    Metric(
        "scr",
        "SCR",
        "higher",
        "Share of the accuracy lost to the spurious factor that ablating its latents wins "
        "back; 1 is all of it, below 0 the ablation does harm.",
    ),
    Metric(
        "scr_threshold",
        "SCR, refit threshold",
        "higher",
        "SCR with the probe's threshold fitted again after the ablation, so that a mere shift "
        "does not count.",
        headline=1,
    ),
    Metric(
        "leak_linear",
        "Leak, linear",
        "lower",
        "A linear probe's accuracy on the spurious factor from the latents outside of its "
        "bank; .5 is chance.",
        headline=2,
    ),
    Metric(
        "leak_mlp",
        "Leak, MLP",
        "lower",
        "A small network's accuracy on the spurious factor from the same latents; .5 is chance.",
    ),
    Metric(
        "task_accuracy",
        "Task accuracy",
        "higher",
        "A probe's accuracy on the task from the same latents, over that of a probe on the "
        "activations.",
        headline=3,
    ),
    Metric(
        "worst_group",
        "Worst group",
        "higher",
        "Accuracy on the task in the worst of the four cells of task and spurious factor.",
    ),
    Metric(
        "spurious_cos",
        "Spurious cosine",
        "lower",
        "|Cosine| of the task's latent with the spurious direction, less that of the two true "
        "directions.",
    ),
)
EVALUATION = world_evaluation(
    METRICS,
    measure.prepare,
    measure.measure,
    what="spurious factor",
    reads=(SpuriousFactor,),
    title="What is left of a spurious factor",
)
