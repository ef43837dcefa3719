"""The health gate: a run that did not really train stops with a named error, not as a number."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from saelab.runs import Run
from saelab.types import Score

MAX_DEAD = 0.2  # share of latents above which a run is warned about
SILENT = 0.02  # active latents of a block per position, below which it counts as silent
MAX_L0_ERROR = 0.05  # relative to the L0 asked for
# keys of the scores without which no other one means anything
L0, EXPLAINED_VARIANCE = "l0", "explained_variance"


class UnhealthyRun(RuntimeError):
    """A run took no steps, codes nothing, or reconstructs no better than a constant; the message
    says which and what to do.
    """


class NonFiniteTraining(UnhealthyRun):
    """The loss or a weight became NaN or infinite; the message names run, step and tensor. `run`:
    its place in the group.
    """

    def __init__(self, message: str, run: int):
        super().__init__(message)
        self.run = run


@dataclass(frozen=True)
class Measured:
    """What the gate looks at, by inference codes on the stream that follows training."""

    steps: int
    l0: float
    explained_variance: float
    dead: float  # share of latents
    reads_nothing: bool = False  # every direction is 0
    silent: tuple[str, ...] = ()  # blocks of latents that hardly ever fire


@dataclass(frozen=True)
class Health:
    """Verdict of the gate. `problems` make a run unhealthy, `warnings` do not."""

    healthy: bool
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def check(run: Run, measured: Measured) -> Health:
    """Judge a finished run."""
    problems, warnings = [], []
    if measured.steps < 1:
        problems.append("NoSteps: trained for 0 steps; raise tokens or lower batch")
    fixed = run.spec.settings.get("coefficient", 0)
    if measured.reads_nothing:
        problems.append(
            "ZeroWeights: every direction of the SAE is 0; its weights were never initialised, or "
            "a term of the loss drove them there"
        )
    elif measured.l0 == 0:
        cause = (
            f"the penalty's coefficient {fixed:g} is far too strong, lower it"
            if fixed > 0
            else "a penalty in the loss is too strong, or the learning rate is: lower it"
        )
        problems.append(f"NothingActive: L0 is 0, no latent ever fires; {cause}")
    ev = measured.explained_variance
    if not math.isfinite(ev):
        problems.append(
            "UndefinedVariance: the explained variance is undefined; are the activations constant?"
        )
    elif ev <= 0:
        problems.append(
            f"NoBetterThanMean: explained variance {ev:.3f} is not above 0, the reconstruction is "
            "no better than the mean; "
            "train longer or change the learning rate"
        )
    if measured.dead > MAX_DEAD:
        warnings.append(
            f"{measured.dead:.0%} of the latents are dead; train longer, or use fewer latents"
        )
    for name in measured.silent:
        warnings.append(
            f"the block {name!r} went silent: fewer than {SILENT:g} of its latents fire at a "
            "position. Either nothing in these activations is what it is for, or a term of the "
            "loss is too strong: lower its weight"
        )
    if fixed <= 0 and measured.l0 > 0 and abs(measured.l0 / run.spec.l0 - 1) > MAX_L0_ERROR:
        script = "change the sparsity in its loss, or " if run.code else ""
        warnings.append(
            f"L0 is {measured.l0:.1f}, over 5 % from the {run.spec.l0:g} asked for; {script}train "
            "longer"
        )
    return Health(not problems, tuple(problems), tuple(warnings))


def score_problems(scores: Mapping[str, Score]) -> list[str]:
    """Why an evaluated SAE does not count: it codes nothing, or is no better than the mean on
    held-out text.
    """
    problems = []
    if L0 in scores and not scores[L0].value:
        problems.append("NothingActive: L0 is 0 on held-out text, no latent ever fires")
    if EXPLAINED_VARIANCE in scores:
        ev = scores[EXPLAINED_VARIANCE].value
        if ev is None or not math.isfinite(ev):
            problems.append(
                "UndefinedVariance: the explained variance on held-out text is undefined"
            )
        elif ev <= 0:
            problems.append(
                f"NoBetterThanMean: explained variance {ev:.3f} on held-out text is not above 0, "
                "the reconstruction is no better than the mean"
            )
    return problems
