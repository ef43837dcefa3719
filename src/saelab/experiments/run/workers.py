"""Tasks one after the other, or side by side in processes, and what they say on the way."""

import queue
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import torch

from saelab.experiments.listen import Listener
from saelab.experiments.plan import run_name
from saelab.experiments.run.group import Interrupted
from saelab.experiments.run.task import Task, carry_out
from saelab.ground.ground import kind_of
from saelab.runs import Run
from saelab.threads import calm_workers, cores
from saelab.train import Progress, Record

REPORT_SECONDS = 0.5  # between a task's messages
_stopped: list[int] = []  # the task at which this worker process was told to stop


@dataclass(frozen=True)
class Message:
    """What a task says on its way."""

    task: int  # its number
    step: int | None = None
    records: tuple[Record, ...] = ()  # of its runs, by their number among all
    text: str = ""  # a sentence


def work(tasks: Sequence[Task], listener: Listener, jobs: int) -> None:
    """Carry out all tasks, at most `jobs` at a time, each in a process of its own.

    With one task or one job everything happens in this process, and the listener hears of one task
    after the other unless their streams are short. Raises what a task raises; `KeyboardInterrupt`
    on Ctrl-C or SIGTERM, after every process has saved.
    """
    short = all(kind_of(task.source).short for task in tasks)
    if len(tasks) == 1 or (jobs == 1 and not short):
        for task in tasks:
            carry_out(task, listener)
        return
    runs = [run for task in tasks for run in task.runs]
    numbers = {run_name(run): i for i, run in enumerate(runs)}
    listener.begin(runs, 0, sum(task.source.steps for task in tasks), _title(tasks, jobs))
    counter = _Counter(listener)
    try:
        if jobs > 1:
            _in_processes(tasks, numbers, counter, jobs)
        else:
            for number, task in enumerate(tasks):
                carry_out(task, _Messenger(number, numbers, counter))
    finally:
        listener.end()


def _title(tasks: Sequence[Task], jobs: int) -> str:
    """`training 6 SAEs for 30 steps of 1,024 activations each, 2 groups in 1 process`."""
    lengths = {(task.source.steps, task.source.batch) for task in tasks}
    length = "".join(
        f" for {steps:,} steps of {batch:,} activations each" for steps, batch in lengths
    )
    many = f"{sum(len(task.runs) for task in tasks)} SAEs{length if len(lengths) == 1 else ''}"
    jobs = min(jobs, len(tasks))
    return f"training {many}, {len(tasks)} groups in {jobs} process{'es' * (jobs > 1)}"


def _in_processes(
    tasks: Sequence[Task], numbers: dict[str, int], counter: "_Counter", jobs: int
) -> None:
    """A worker that is told to stop saves a checkpoint; then the error or the interruption goes
    up.
    """
    context = get_context("spawn")
    messages: Any = context.Manager().Queue()
    jobs = min(jobs, len(tasks))
    threads = min(torch.get_num_threads(), max(1, cores() // jobs))
    pool = ProcessPoolExecutor(
        jobs, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)
    )
    with calm_workers(), pool:
        futures = [
            pool.submit(_in_worker, task, number, numbers, messages)
            for number, task in enumerate(tasks)
        ]
        try:
            _listen(futures, messages, counter)
            for future in futures:
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            for process in list((pool._processes or {}).values()):
                process.terminate()  # SIGTERM: the worker saves and stops
            raise


def _in_worker(task: Task, number: int, numbers: dict[str, int], messages: Any) -> None:
    """A task in a process of its own.

    A process that was told to stop starts nothing more: the pool may have handed it the next task
    already.
    """
    if _stopped:
        raise Interrupted("stopped before it started")
    try:
        carry_out(task, _Messenger(number, numbers, messages))
    except Interrupted:
        _stopped.append(number)
        raise


def _listen(futures: Sequence[Future[None]], messages: Any, counter: "_Counter") -> None:
    """Pass on what workers say until all are done or one has failed."""
    while True:
        ended = all(future.done() for future in futures) or any(
            future.done() and future.exception() for future in futures
        )
        try:
            while True:
                counter.put(messages.get(timeout=0.0 if ended else REPORT_SECONDS))
        except queue.Empty:
            if ended:
                return


class _Counter:
    """The receiving end: adds up the steps of all tasks and tells the listener."""

    def __init__(self, listener: Listener):
        self.listener, self.steps = listener, dict[int, int]()

    def put(self, message: Message) -> None:
        if message.text:
            self.listener.note(message.text)
        if message.step is not None:
            self.steps[message.task] = message.step
            self.listener.advance(Progress(sum(self.steps.values()), message.records))


class _Messenger:
    """A task's listener: steps now and then, sentences at once.

    `numbers`: of every run among those of all tasks, by name.
    """

    def __init__(self, task: int, numbers: dict[str, int], messages: Any):
        self.task, self.numbers, self.messages, self.sent = task, numbers, messages, 0.0

    def note(self, text: str) -> None:
        self.messages.put(Message(self.task, text=text))

    def begin(self, runs: Sequence[Run], step: int, steps: int, title: str = "") -> None:
        del title
        self.names, self.steps = [run_name(run) for run in runs], steps
        self.records: tuple[Record, ...] = ()
        self.messages.put(Message(self.task, step))

    def advance(self, progress: Progress) -> None:
        self.records = progress.records or self.records
        now = time.monotonic()
        if now - self.sent >= REPORT_SECONDS or progress.step == self.steps:
            self.sent = now
            # a group that goes on may hold runs that the plan counts as done
            records = tuple(
                replace(record, run=self.numbers[self.names[record.run]])
                for record in self.records
                if self.names[record.run] in self.numbers
            )
            self.messages.put(Message(self.task, progress.step, records))

    def end(self) -> None: ...
