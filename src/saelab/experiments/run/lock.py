"""One process at a time works in an output folder."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from saelab.experiments.folders import OtherContent, check_folder
from saelab.experiments.listen import Listener

LOCK = ".lock"  # names the process that works in its folder; empty when none does


@contextmanager
def locked(out: Path, listener: Listener) -> Iterator[None]:
    """The folder `out`, made where it is missing, belongs to this process inside.

    The system frees the lock of a process that dies; it is then taken over, and the listener hears
    of it. Raises `OtherContent` naming the process that holds it, `NotADirectoryError` for a file.
    """
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / LOCK, "a+", encoding="utf-8") as file:
        _take(file, out)
        if holder := _holder(file):
            listener.note(f"{holder} was working in {out} and is gone; its work goes on here")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def check_free(out: Path) -> None:
    """Raise `OtherContent` where another process works in `out`; nothing is made or written."""
    if not (out / LOCK).exists():
        return
    with open(out / LOCK, encoding="utf-8") as file:
        _take(file, out)  # given back with the file


def _take(file: TextIO, out: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OtherContent(
            f"{_holder(file) or 'another process'} is working in {out}; wait until it is done, or "
            "give another folder"
        ) from error


def _holder(file: TextIO) -> str:
    file.seek(0)
    return file.read().strip()
