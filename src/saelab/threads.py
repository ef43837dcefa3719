"""How many threads torch uses, and how they wait for each other. Nothing here changes unless it is
called.

torch's OpenMP threads busy-wait ("spin") at the end of every parallel product. As long as each has
a core to itself that costs nothing. Beside other processes, a spinning thread holds the very core
that the thread it waits for needs, and a training step becomes several times slower.
`GOMP_SPINCOUNT` says how often a thread looks before it goes to sleep: libgomp, the OpenMP of
torch's Linux wheels, takes 300,000, which lasts longer than most products. OpenMP reads it once,
when torch loads, so it must be set before `import torch`: the `saelab` command, `experiment.py`,
worker processes and the test suite do so; `import saelab` in a program of your own does not.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SPINS = "GOMP_SPINCOUNT"
SET_BY_USER = ("OMP_WAIT_POLICY", SPINS)  # either says how threads wait; then it is left as it is
# Measured (docs/threads.md): as fast as torch's default on an idle machine, while 10,000 already
# cost a tenth of a small step there, because the sleeping thread wakes late.
SHORT = 30_000
LOADAVG = Path("/proc/loadavg")


def calm() -> bool:
    """Let torch's threads sleep while they wait, unless the user has said how they wait; whether
    this still has an effect.

    Sets `GOMP_SPINCOUNT` in the environment of this process and of those it starts: 0 where other
    programs want the same cores now (`crowded`), else 30,000. This process is past changing once
    torch is loaded.
    """
    if not any(name in os.environ for name in SET_BY_USER):
        os.environ[SPINS] = str(0 if crowded() else SHORT)
    return "torch" not in sys.modules


def crowded() -> bool:
    """Whether other programs leave fewer free cores than this process may use, at this moment.

    It is the least of five looks within 20 ms, so that what wakes for an instant does not count.
    False where the system does not say (anything but Linux).
    """
    if not LOADAVG.exists():
        return False
    running = []
    for _ in range(5):
        # "0.20 0.18 0.12 3/80 11206": three tasks can run, this one among them
        running.append(int(LOADAVG.read_text().split()[3].split("/")[0]))
        time.sleep(0.004)
    return (os.cpu_count() or 1) - (min(running) - 1) < cores()


@contextmanager
def calm_workers() -> Iterator[None]:
    """Processes that are started inside have calm threads; the environment of this one is as before
    afterwards.
    """
    before = os.environ.get(SPINS)
    calm()
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(SPINS, None)


def cores() -> int:
    """Processor cores that this process may keep busy: its affinity, or the CPU quota of its
    container where that is less.
    """
    from joblib import cpu_count

    return cpu_count()


def use_threads(threads: int | None = None, *, processes: int = 1) -> int:
    """Set how many threads torch uses in this process, and return that number.

    `threads`: the user's own number. Without it, `OMP_NUM_THREADS` counts where it is set; else
    torch's default, but no more than this process's share of the cores when `processes` of them
    work at once. Raises `ValueError` when `threads` is below 1.
    """
    import torch

    if threads is not None and threads < 1:
        raise ValueError(
            f"threads is {threads}; it is the number of threads of torch and must be at least 1"
        )
    if threads is None and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, min(torch.get_num_threads(), cores() // processes))
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


@contextmanager
def limited(threads: int | None) -> Iterator[None]:
    """Torch has this many threads inside and as many as before afterwards; None changes nothing."""
    import torch

    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def side_by_side(tasks: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` that works on as many of its `tasks` items at once as torch has threads, each with
    its share of these: what runs on one thread does not wait for the others after every product.
    """
    import torch

    threads = torch.get_num_threads()
    abreast = min(threads, tasks)
    if abreast < 2:
        yield map
        return
    share = (threads // abreast,)
    with ThreadPoolExecutor(abreast, initializer=torch.set_num_threads, initargs=share) as pool:
        yield pool.map


def waiting() -> str:
    """How torch's threads wait in this process, in words."""
    for name in SET_BY_USER:
        if name in os.environ:
            return f"{name}={os.environ[name]}"
    return f"they spin, which is slow beside other processes; set {SPINS} before torch loads"
