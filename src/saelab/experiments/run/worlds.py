"""Carry out a table on a world: seeds side by side in processes, rows of a seed in lock-step on one
stream.
"""

import queue
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from saelab.evals import EVALS
from saelab.experiments.compare.summary import Summary, summarise, write_summary
from saelab.experiments.folders import claim, run_folder
from saelab.experiments.listen import Listener, Silent
from saelab.experiments.plan import Plan, check_plan, run_from_config
from saelab.experiments.run.checkpoint import groups
from saelab.experiments.run.group import Interrupted, train_together
from saelab.experiments.run.preflight import check_disk
from saelab.experiments.tables.table import Table, check_batches, facts, plan_of
from saelab.ground.held_out import HeldOut
from saelab.store import write_json
from saelab.synth.world import World
from saelab.synth.worlds import build_world
from saelab.threads import calm_workers
from saelab.train import Progress
from saelab.types import Run, WorldSource
from saelab.variants import build, check_spec

# of torch in every process: products this small gain nothing from more, and results depend on the
# number
THREADS = 1
REPORT_SECONDS = 0.5  # between a worker's messages
_stopped: list[int] = []  # the group at which this worker process was told to stop
Message = tuple[int, int | None, str]  # group, step (None: none), a sentence for the user or ""


def run_table(
    table: Table, out: Path, *, listener: Listener | None = None, jobs: int = 1
) -> Summary:
    """Train and evaluate what is not done yet, and write `<out>/summary.json` with means, contrasts
    and sanity rows.

    `jobs`: processes, one seed each. Every number is the same for any number of them. Raises
    `ValueError` and `OSError` for what cannot work, before anything trains; `KeyboardInterrupt` on
    Ctrl-C or SIGTERM, after saving.
    """
    out, listener, started = Path(out), listener or Silent(), time.monotonic()
    plan = plan_of(table)
    worked = run_plan(plan, out, listener, jobs)
    summary = summarise(plan, out, seconds=time.monotonic() - started if worked else None)
    known = facts(table, summary.means)
    contrasts = tuple(entry for entry in summary.contrasts if _defined(entry, summary.rows))
    return write_summary(replace(summary, contrasts=contrasts, facts={**summary.facts, **known}))


def _defined(contrast: dict[str, Any], rows: Sequence[dict[str, Any]]) -> bool:
    """Whether both arms have the metric at all: levels, trees and the like only exist in some
    SAEs.
    """
    arms = [
        [row for row in rows if row["variant"] == contrast[arm]]
        for arm in ("baseline", "treatment")
    ]
    return all(
        any(row["metrics"].get(contrast["metric"], {}).get("value") is not None for row in arm)
        for arm in arms
    )


def run_plan(plan: Plan, out: Path, listener: Listener, jobs: int) -> bool:
    """Train and evaluate the runs of a plan on worlds that are not done; whether there were any."""
    check_plan(plan)
    for run in plan.runs:
        check_spec(run.spec)
    check_batches(plan)
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; it is the number of processes and must be at least 1")
    claim(plan, out)
    pending = [run for run in plan.runs if not run_folder(out, run).evaluated(plan.evals)]
    if len(pending) < len(plan.runs):
        listener.note(f"{len(plan.runs) - len(pending)} of {len(plan.runs)} runs are done already")
    if not pending:
        return False
    check_disk(pending, 1_024, out)
    members = groups(plan.runs, pending, out)
    jobs = min(jobs, len(members))
    steps = pending[0].source.steps
    title = (
        f"training {len(pending)} SAEs for {steps:,} steps of {pending[0].source.batch:,} "
        "activations each, "
    )
    title += f"{len(members)} group{'s' * (len(members) > 1)} in {jobs} process{'es' * (jobs > 1)}"
    listener.begin(pending, 0, sum(group[0].source.steps for group in members), title)
    try:
        _in_processes(plan, members, out, listener, jobs) if jobs > 1 else _in_turn(
            plan, members, out, listener
        )
    finally:
        listener.end()
    return True


def _in_turn(plan: Plan, members: Sequence[tuple[Run, ...]], out: Path, listener: Listener) -> None:
    """One group after the other, in this process."""
    hear, threads = _Counter(listener), torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        for i, group in enumerate(members):
            _train_and_evaluate([run.config for run in group], plan.evals, str(out), i, hear)
    finally:
        torch.set_num_threads(threads)


def _in_processes(
    plan: Plan, members: Sequence[tuple[Run, ...]], out: Path, listener: Listener, jobs: int
) -> None:
    """One task a group. A worker that is told to stop saves a checkpoint; then the error or the
    interruption goes up.
    """
    context = get_context("spawn")
    messages: Any = context.Manager().Queue()
    pool = ProcessPoolExecutor(
        jobs, mp_context=context, initializer=torch.set_num_threads, initargs=(THREADS,)
    )
    with calm_workers(), pool:
        tasks = [
            pool.submit(
                _train_and_evaluate,
                [run.config for run in group],
                plan.evals,
                str(out),
                i,
                messages,
            )
            for i, group in enumerate(members)
        ]
        try:
            _listen(tasks, messages, listener)
            for task in tasks:
                task.result()
        except BaseException:
            for task in tasks:
                task.cancel()
            for process in list((pool._processes or {}).values()):
                process.terminate()  # SIGTERM: the worker saves and stops
            raise


def _listen(tasks: Sequence[Future[None]], messages: Any, listener: Listener) -> None:
    """Pass on what workers say until all are done or one has failed."""
    counter = _Counter(listener)
    while True:
        ended = all(task.done() for task in tasks) or any(
            task.done() and task.exception() for task in tasks
        )
        try:
            while True:
                counter.put(messages.get(timeout=0.0 if ended else REPORT_SECONDS))
        except queue.Empty:
            if ended:
                return


class _Counter:
    """The receiving end: adds up the steps of all groups and tells the listener."""

    def __init__(self, listener: Listener):
        self.listener, self.steps = listener, dict[int, int]()

    def put(self, message: Message) -> None:
        group, step, text = message
        if text:
            self.listener.note(text)
        if step is not None:
            self.steps[group] = step
            self.listener.advance(Progress(sum(self.steps.values()), ()))


class _Messenger:
    """A worker's listener: steps now and then, sentences at once."""

    def __init__(self, group: int, messages: Any):
        self.group, self.messages, self.sent = group, messages, 0.0

    def note(self, text: str) -> None:
        self.messages.put((self.group, None, text))

    def begin(self, runs: Sequence[Run], step: int, steps: int, title: str = "") -> None:
        del runs, title
        self.steps = steps
        self.messages.put((self.group, step, ""))

    def advance(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self.sent >= REPORT_SECONDS or progress.step == self.steps:
            self.sent = now
            self.messages.put((self.group, progress.step, ""))

    def end(self) -> None:
        """Nothing to close."""


def _train_and_evaluate(
    configs: list[dict[str, Any]], evals: Sequence[str], out: str, group: int, messages: Any
) -> None:
    """Everything about the runs of one seed, in a process of its own.

    A process that was told to stop starts nothing more: the pool may have handed it the next seed
    already.
    """
    if _stopped:
        raise Interrupted("stopped before it started")
    try:
        _one_seed(configs, evals, out, group, messages)
    except Interrupted:
        _stopped.append(group)
        raise


def _one_seed(
    configs: list[dict[str, Any]], evals: Sequence[str], out: str, group: int, messages: Any
) -> None:
    runs = [run_from_config(config) for config in configs]
    source, messenger = runs[0].source, _Messenger(group, messages)
    assert isinstance(source, WorldSource)
    world, started = build_world(source), time.monotonic()
    pending = [run for run in runs if not run_folder(Path(out), run).trained]
    if pending:
        about = {"model": f"world {world.name}", "hook": world.hook.name, "d_in": world.d_in}
        about |= {"n_features": len(world.process.features)}
        train_together(list(runs), world, Path(out), messenger, build, facts=about)
    trained = time.monotonic()
    evaluate_runs(runs, world, evals, Path(out))
    seconds = (
        f"trained in {trained - started:.0f} s, evaluated in {time.monotonic() - trained:.0f} s"
    )
    messenger.note(f"{world.name} seed {source.seed}: {len(runs)} SAEs {seconds}")


def evaluate_runs(runs: Sequence[Run], world: World, evals: Sequence[str], out: Path) -> None:
    """Measure the runs that have an SAE and lack a result; every evaluation prepares its data
    once.
    """
    folders = [run_folder(out, run) for run in runs]
    folders = [folder for folder in folders if folder.sae.exists()]
    for name in evals:
        pending = [folder for folder in folders if not folder.result(name).exists()]
        held = HeldOut(runs[0].source, world.lm, world=world)
        data = EVALS[name].prepare(held) if pending else None
        for folder in pending:
            write_json(folder.result(name), EVALS[name].measure(folder.load(), data).to_json())
