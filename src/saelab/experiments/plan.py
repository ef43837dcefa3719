"""What an experiment is: runs to train, evaluations to make, contrasts to judge. Plain values, no
I/O.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from saelab.evals import standard_evals
from saelab.ground.ground import GROUNDS
from saelab.runs import Optim, Run, Source, Spec
from saelab.store import content_id

ADDED = ("dead_after",)  # fields of Optim, None where they are not set


@dataclass(frozen=True)
class Contrast:
    """A claim to judge: on `metric`, does the variant `treatment` differ from the variant
    `baseline`, paired by seed?
    """

    metric: str
    baseline: str
    treatment: str
    # left out of the summary where one of the two has no value at all: levels, trees and the like
    # only exist in some SAEs
    where_defined: bool = False


@dataclass(frozen=True)
class Expectation:
    """A sanity row: where the mean over seeds of a row's metric must lie, else the experiment does
    not test what it should.
    """

    variant: str
    metric: str
    low: float
    high: float
    meaning: str  # what is wrong otherwise, a sentence


@dataclass(frozen=True)
class Plan:
    """A whole experiment. A plan file is a Python file with a function `plan() -> Plan`."""

    name: str
    runs: tuple[Run, ...]
    contrasts: tuple[Contrast, ...] = ()
    evals: tuple[str, ...] = ()  # empty: the standard ones of the first run's source
    facts: Mapping[str, Any] = field(default_factory=dict)  # what the summary says of it besides
    sanity: tuple[Expectation, ...] = ()

    def __post_init__(self) -> None:
        if not self.evals and self.runs:
            object.__setattr__(self, "evals", standard_evals(self.runs[0].source))

    @property
    def config(self) -> dict[str, Any]:
        """Nested plain fields, for json."""
        return {
            "name": self.name,
            "runs": {run_name(run): run.config for run in self.runs},
            "contrasts": [asdict(contrast) for contrast in self.contrasts],
            "evals": list(self.evals),
        }


def run_id(run: Run) -> str:
    """The identity of a run: the hash of its content, in which 32 and 32.0 are one number and a
    label says nothing.

    A field of `Optim` that was added later counts only where it is set, so that earlier runs keep
    their identity.
    """
    config = replace(run, spec=replace(run.spec, label="")).config
    for name in ADDED:
        if config["optim"][name] is None:
            del config["optim"][name]
    return content_id(_floats(config))


def _floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _floats(item) for key, item in value.items()}
    return float(value) if isinstance(value, int) else value


def run_name(run: Run) -> str:
    """The folder of a run, `<variant or label>-s<seed>-<first 8 digits of its id>`."""
    return f"{run.spec.name}-s{run.seed}-{run_id(run)[:8]}"


def run_from_config(config: dict[str, Any]) -> Run:
    """Inverse of `Run.config`. Raises `TypeError` or `KeyError` when fields are missing or
    unknown.
    """
    spec, optim = Spec(**config["spec"]), Optim(**config["optim"])
    stored = config["source"]
    known = (kind for kind in GROUNDS if {*stored} <= {field.name for field in fields(kind)})
    source = next(known, Source)(**stored)
    return Run(spec, source, optim, config["seed"], config.get("code", ""))


def check_plan(plan: Plan) -> None:
    """Refuse a plan that cannot be carried out or judged. Raises `ValueError`, saying which run or
    contrast.
    """
    if not plan.runs:
        raise ValueError(f"plan {plan.name!r} has no runs; give at least one")
    repeated = [
        name for name, count in Counter(run_name(run) for run in plan.runs).items() if count > 1
    ]
    if repeated:
        raise ValueError(
            f"plan {plan.name!r} lists {repeated[0]} twice; equal runs are one run, remove one"
        )
    for run in plan.runs:
        check_optim(run.optim)
        if run.seed < 0:
            raise ValueError(f"seed is {run.seed}; it must be 0 or more")
    variants = sorted({run.spec.name for run in plan.runs})
    for contrast in plan.contrasts:
        for variant in (contrast.baseline, contrast.treatment):
            if variant not in variants:
                near = get_close_matches(variant, variants, n=1, cutoff=0.0)[0]
                raise ValueError(
                    f"a contrast names {variant!r}, which no run of the plan trains (did you mean "
                    f"{near!r}?)"
                )
            seeds = Counter(run.seed for run in plan.runs if run.spec.name == variant)
            if max(seeds.values()) > 1:
                raise ValueError(
                    f"a contrast names {variant!r}, of which the plan holds several runs with one "
                    "seed; "
                    "give differing settings a `label` each (Spec(..., label='no_aux')), or leave "
                    "the contrast out"
                )


def check_optim(optim: Optim) -> None:
    """Refuse optimizer settings that make no sense. Raises `ValueError` with the number and what is
    allowed.
    """
    if optim.lr is not None and not (math.isfinite(optim.lr) and optim.lr > 0):
        raise ValueError(
            f"lr is {optim.lr:g}; it must be above 0 (leave it out to have it derived)"
        )
    if optim.warmup < 0:
        raise ValueError(f"warmup is {optim.warmup} steps; it must be 0 or more")
    if not 0 <= optim.decay <= 1:
        raise ValueError(
            f"decay is {optim.decay:g}; it is the share of the steps in which lr falls to 0, "
            "within 0 and 1"
        )
    if not (0 <= optim.beta1 < 1 and 0 <= optim.beta2 < 1):
        raise ValueError(
            f"beta1 and beta2 are {optim.beta1:g} and {optim.beta2:g}; both must be at least 0 "
            "and below 1"
        )
    if optim.clip <= 0:
        raise ValueError(f"clip is {optim.clip:g}; it must be above 0")
    if optim.dead_after is not None and optim.dead_after < 1:
        raise ValueError(
            f"dead_after is {optim.dead_after} activations; it must be at least 1 (leave it out "
            "to have it derived)"
        )
    if optim.amp not in ("none", "bf16"):
        raise ValueError(f"amp is {optim.amp!r}; write none or bf16")
