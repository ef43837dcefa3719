"""A task of an experiment: the unfinished runs that share one stream, brought to their end."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from saelab.experiments.evaluate.score import Export, evaluate_into, prepare_bench
from saelab.experiments.folders import run_folder
from saelab.experiments.listen import Listener
from saelab.experiments.run.adopt import adopt
from saelab.experiments.run.caching import cached
from saelab.experiments.run.checkpoint import Checkpoint, groups
from saelab.experiments.run.group import train_together
from saelab.experiments.run.preflight import check_results
from saelab.ground.ground import Ground, kind_of, open_ground
from saelab.runs import Run, Source, WorldSource
from saelab.terms.base import Need
from saelab.threads import limited
from saelab.train.loop import Build
from saelab.variants import build as build_variant

SLOW = 5.0  # seconds from which the evaluation of one SAE is worth a note


@dataclass(frozen=True)
class Task:
    """What a process of its own can carry out: plain values, but for `build`."""

    runs: tuple[Run, ...]  # of one source, in the plan's order
    evals: tuple[str, ...]
    out: Path
    exports: tuple[Export, ...] = ()
    build: Build | None = None  # in place of the table of variants
    cache: Path | None = None
    reuse: Path | None = None

    @property
    def source(self) -> Source | WorldSource:
        return self.runs[0].source


def carry_out(task: Task, listener: Listener) -> None:
    """Take over, train and evaluate what is not done. Raises `Interrupted` after saving."""
    with limited(kind_of(task.source).threads):
        started, ground = time.monotonic(), open_ground(task.source)
        if task.reuse is not None:
            adopt(_untrained(task), task.out, task.reuse, listener, ground.weights_hash)
        untrained = _untrained(task)
        _train(untrained, task, ground, listener)
        trained = time.monotonic()
        evaluated = _evaluate(task, ground, listener)
    done = {"trained": (len(untrained), trained - started)}
    done["evaluated"] = evaluated, time.monotonic() - trained
    said = [f"{_saes(n)} {what} in {seconds:.0f} s" for what, (n, seconds) in done.items() if n]
    listener.note(f"{ground.name}: {', '.join(said) or 'taken over, nothing was left to do'}")


def tasks_of(runs: Sequence[Run], whole: Task, jobs: int) -> list[Task]:
    """The task of all unfinished runs, divided: one for every stream.

    Where there are fewer streams than `jobs`, the runs of a stream are shared out among several
    tasks, each of which reads it by itself. A group with a checkpoint stays together. `runs`: all
    of the plan.
    """
    streams: list[list[tuple[Run, ...]]] = []
    for group in groups(runs, whole.runs, whole.out):
        same = [stream for stream in streams if stream[0][0].source == group[0].source]
        if same:
            same[0].append(group)
        else:
            streams.append([group])
    share = max(1, jobs // len(streams))
    return [
        replace(whole, runs=piece) for stream in streams for piece in _pieces(stream, share, whole)
    ]


def _pieces(stream: Sequence[tuple[Run, ...]], share: int, whole: Task) -> list[tuple[Run, ...]]:
    """The groups of one stream as the runs of about `share` tasks."""
    if share == 1:
        return [sum(stream, ())]
    pieces = [group for group in stream if Checkpoint.of(whole.out, group).path.exists()]
    rest = sum((group for group in stream if group not in pieces), ())
    count = min(max(1, share - len(pieces)), len(rest))
    return pieces + [rest[i::count] for i in range(count)]


def _untrained(task: Task) -> list[Run]:
    return [run for run in task.runs if not run_folder(task.out, run).trained]


def _saes(count: int) -> str:
    return f"{count} SAE{'s' * (count != 1)}"


def _train(pending: list[Run], task: Task, ground: Ground, listener: Listener) -> None:
    if not pending:
        return
    check_results(pending, ground.d_in, task.out)
    meet = Need.of
    if task.cache is not None:
        ground, meet = cached(ground, task.cache, listener)
    for remark in ground.remarks:
        listener.note(remark)
    for members in groups(task.runs, pending, task.out):
        train_together(
            list(members),
            ground.stream,
            task.out,
            listener,
            task.build or build_variant,
            facts=ground.facts,
            meet=meet,
        )


def _evaluate(task: Task, ground: Ground, listener: Listener) -> int:
    """Measure what has an SAE and lacks a result, and say how many; every evaluation prepares its
    data once.
    """
    lacking = [
        (folder, [name for name in task.evals if not folder.result(name).exists()])
        for folder in (run_folder(task.out, run) for run in task.runs)
        if not folder.evaluated(task.evals)
    ]
    if not lacking:
        return 0
    names = [name for name in task.evals if any(name in lack for _, lack in lacking)]
    listener.note(
        f"evaluating {_saes(len(lacking))} on held-out data of {ground.name}: {', '.join(names)}"
    )
    bench = prepare_bench(ground.held_out(), names)
    for folder, lack in lacking:
        started = time.monotonic()
        lacked = replace(bench, prepared={name: bench.prepared[name] for name in lack})
        evaluate_into(folder.path, folder.load(task.build), lacked, task.exports)
        if time.monotonic() - started >= SLOW:
            listener.note(f"evaluated {folder.name}")
    return len(lacking)
