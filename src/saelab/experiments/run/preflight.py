"""What can be refused before the language model loads is refused here, in one sentence with the
numbers.
"""

import errno
import shutil
from collections.abc import Sequence
from pathlib import Path

from saelab.evals import check_evals
from saelab.experiments.plan import Plan, check_plan
from saelab.ground.preflight import check_source
from saelab.types import Run, Source
from saelab.variants import VARIANTS, check_spec


def preflight(plan: Plan, *, own_build: bool) -> None:
    """Check the plan, every spec, every source and every evaluation. Raises `ValueError` or
    `FileNotFoundError`.

    `own_build`: the caller builds the variants itself, so that their names and settings are its own
    business.
    """
    check_plan(plan)
    for run in plan.runs:
        if not own_build or run.spec.variant in VARIANTS:
            check_spec(run.spec)
    for source in sources(plan.runs):
        check_source(source)
        check_evals(plan.evals, source)


def sources(runs: Sequence[Run]) -> list[Source]:
    """The different sources of `runs`, in order of appearance."""
    return list(dict.fromkeys(run.text for run in runs))


def check_disk(runs: Sequence[Run], d_in: int, out: Path) -> None:
    """Raise `OSError` when the results and a checkpoint of `runs`, training together, do not fit on
    the disk.

    An SAE has 2*D*L weights of 4 bytes; a checkpoint holds them with two Adam moments and is
    written beside the old one.
    """
    weights = sum(2 * d_in * run.spec.n_latents * 4 for run in runs)
    needed, folder = weights * (1 + 2 * 3), Path(out)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        text = f"results and checkpoints need {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free"
        raise OSError(errno.ENOSPC, text, str(out))
