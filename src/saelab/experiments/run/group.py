"""Train one group of runs in lock-step, with logs, checkpoints, and a way to stop and go on."""

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from saelab.experiments.folders import RunFolder, run_folder
from saelab.experiments.listen import Listener
from saelab.experiments.run.checkpoint import Checkpoint
from saelab.runs import Run
from saelab.sae.io import save_sae
from saelab.store import append_line
from saelab.terms.base import Need
from saelab.train import Health, NonFiniteTraining, Training
from saelab.train.loop import Build, Meet
from saelab.types import ActivationSource

# between checkpoints, whichever comes first
CHECKPOINT_SECONDS = 60.0
CHECKPOINT_STEPS = 2_000


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM arrived; everything up to a checkpoint is saved, and the same call goes on
    from there.
    """


def train_together(
    runs: list[Run],
    source: ActivationSource,
    out: Path,
    listener: Listener,
    build: Build,
    *,
    facts: Mapping[str, Any],
    meet: Meet = Need.of,
) -> None:
    """Train `runs` to the end and write their logs, SAEs and health records; go on from a
    checkpoint if there is one.

    A run that becomes non-finite is marked and left out, and the others start anew without it.
    `facts` are recorded beside each SAE. Raises `Interrupted` after saving, `CorruptFile` for a
    damaged checkpoint.
    """
    while runs:
        try:
            training = Training(runs, source, build=build, meet=meet)
            _train(training, [run_folder(out, run) for run in runs], out, listener, facts)
            return
        except NonFiniteTraining as error:
            Checkpoint.of(out, runs).remove()
            failed = runs.pop(error.run)
            run_folder(out, failed).write_health(
                Health(False, (f"NonFiniteTraining: {error}",), ())
            )
            listener.note(
                f"{error}. The run is marked unhealthy"
                + ("; the others start anew" if runs else "")
            )


def _train(
    training: Training,
    folders: Sequence[RunFolder],
    out: Path,
    listener: Listener,
    facts: Mapping[str, Any],
) -> None:
    runs = [folder.run for folder in folders]
    checkpoint = Checkpoint.of(out, runs)
    before = checkpoint.load(training) if checkpoint.path.exists() else 0.0
    for folder in folders:
        folder.truncate_metrics(training.step)
    if training.step:
        listener.note(
            f"going on from {checkpoint.path} at step {training.step:,} of {training.steps:,}"
        )
    started = time.monotonic()
    with stop_requests() as stop:
        listener.begin(runs, training.step, training.steps)
        try:
            _loop(training, folders, checkpoint, listener, stop, before)
        finally:
            listener.end()
    seconds = before + time.monotonic() - started
    speed = {
        "seconds": round(seconds, 2),
        "throughput_tokens_per_s": round(runs[0].source.tokens / max(seconds, 1e-9), 1),
    }
    for folder, trained in zip(folders, training.results(), strict=True):
        save_sae(trained.sae, folder.sae, {"run": folder.run.config, "facts": {**facts, **speed}})
        folder.write_health(trained.health)
    checkpoint.remove()


def _loop(
    training: Training,
    folders: Sequence[RunFolder],
    checkpoint: Checkpoint,
    listener: Listener,
    stop: Sequence[int],
    before: float,
) -> None:
    """Steps, logs and checkpoints until the end or until `stop` holds a signal; `before`: seconds
    of earlier starts.
    """
    started = saved = time.monotonic()
    for progress in training:
        for record in progress.records:
            line = {key: value for key, value in asdict(record).items() if key != "run"}
            append_line(folders[record.run].metrics, line)
        listener.advance(progress)
        now = time.monotonic()
        due = now - saved >= CHECKPOINT_SECONDS or progress.step % CHECKPOINT_STEPS == 0
        if stop or (due and progress.step < training.steps):
            checkpoint.save(training, before + now - started)
            saved = time.monotonic()
        if stop:
            raise Interrupted(
                f"stopped at step {progress.step:,} of {training.steps:,}, saved in "
                f"{checkpoint.path}"
            )


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that receives a signal's number on Ctrl-C or SIGTERM, so that a step is never cut in
    two.

    A second one acts at once. Only the main thread can listen; elsewhere the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handler(number: int, _frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    previous = {
        number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, action in previous.items():
            signal.signal(number, action)
    if received:  # it came after the last look at the list, and must not be lost
        raise KeyboardInterrupt
