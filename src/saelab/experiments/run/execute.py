"""Carry a plan out, on whatever ground: check everything, train what is not trained, evaluate what
is not evaluated, compare.
"""

import time
from collections.abc import Iterable
from pathlib import Path

from saelab.experiments.compare.summary import Summary, summarise
from saelab.experiments.evaluate.score import Export
from saelab.experiments.folders import claim, run_folder
from saelab.experiments.listen import Listener, Silent
from saelab.experiments.plan import Plan
from saelab.experiments.run.adopt import check_reuse
from saelab.experiments.run.caching import cached, check_folder
from saelab.experiments.run.lock import locked
from saelab.experiments.run.preflight import preflight, sources
from saelab.experiments.run.task import Task, tasks_of
from saelab.experiments.run.workers import work
from saelab.ground.ground import open_ground
from saelab.runs import WorldSource
from saelab.train.loop import Build


def execute(
    plan: Plan,
    out: Path,
    *,
    listener: Listener | None = None,
    build: Build | None = None,
    exports: Iterable[Export] = (),
    cache: Path | None = None,
    reuse: Path | None = None,
    jobs: int = 1,
) -> Summary:
    """Bring `plan` to its end in the folder `out` and return its summary; what is done already is
    skipped.

    `build` replaces the table of variants; `exports` write results in other formats. `cache`: a
    folder that training reads its activations from; those that are not there yet are written
    first. `reuse`: another output folder, whose finished runs are taken over where they are the
    plan's own by content id. `jobs`: processes, each with the runs of one stream and its share of
    the cores; worlds give the same numbers for any number of them. Unhealthy runs are evaluated
    where possible and marked; call `Summary.check()` to have them raise. Raises `ValueError` and
    `OSError` for what cannot work, before a model loads (where the cache is too large or of another
    model: after), or where another process works in `out`; `KeyboardInterrupt` on Ctrl-C or
    SIGTERM, after saving.
    """
    out, listener, started = Path(out), listener or Silent(), time.monotonic()
    _check_way(build, cache, reuse, jobs)
    preflight(plan, own_build=build is not None)
    with locked(out, listener):
        claim(plan, out)
        unfinished = tuple(
            run for run in plan.runs if not run_folder(out, run).evaluated(plan.evals)
        )
        if len(unfinished) < len(plan.runs):
            done = len(plan.runs) - len(unfinished)
            listener.note(f"{done} of {len(plan.runs)} runs are done already")
        if unfinished:
            whole = Task(unfinished, plan.evals, out, tuple(exports), build, cache, reuse)
            if cache is not None:
                _fill(whole, listener, jobs)
            work(tasks_of(plan.runs, whole, jobs), listener, jobs)
        return summarise(plan, out, seconds=time.monotonic() - started if unfinished else None)


def _check_way(build: Build | None, cache: Path | None, reuse: Path | None, jobs: int) -> None:
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; it is the number of processes and must be at least 1")
    if jobs > 1 and build is not None:
        raise ValueError(
            f"jobs is {jobs}, and variants that a script builds itself stay in its own process; "
            "leave jobs out"
        )
    if cache is not None:
        check_folder(cache)
    if reuse is not None:
        check_reuse(reuse)


def _fill(task: Task, listener: Listener, jobs: int) -> None:
    """Write the activations that several processes will read, before they start to; say of which
    sources there are none.
    """
    untrained = [run for run in task.runs if not run_folder(task.out, run).trained]
    if any(isinstance(run.source, WorldSource) for run in untrained):
        listener.note("a world is drawn as fast as a disk is read: nothing of it is cached")
    if jobs > 1 and task.cache is not None:
        for source in sources(untrained):
            cached(open_ground(source), task.cache, listener)
