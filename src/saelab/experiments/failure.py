"""How a failure ends, in a command and in a script alike: what is said of it, and the exit code."""

import errno
import os
import traceback
from pathlib import Path

from saelab.train.health import UnhealthyRun

PACKAGE = Path(__file__).parents[1]


def raised_here(error: BaseException) -> bool:
    """Whether saelab raised it on purpose, by a `raise` of its own: then its text says cause and
    cure.
    """
    frames = traceback.extract_tb(error.__traceback__)[-1:]
    return any(
        Path(last.filename).is_relative_to(PACKAGE) and (last.line or "").startswith("raise ")
        for last in frames
    )


def explained(error: BaseException) -> bool:
    """Whether its text is all that the user needs; anything else keeps its traceback."""
    on_purpose = isinstance(error, TypeError) and raised_here(error)
    return on_purpose or isinstance(error, ValueError | OSError | UnhealthyRun)


def exit_code(error: BaseException, *, in_script: bool) -> int:
    """1 an unhealthy run or a fault of saelab's own, 2 what the user can mend, such as what
    happened in the user's own script, 130 stopped.
    """
    if isinstance(error, KeyboardInterrupt):
        return 130
    mendable = in_script or explained(error)
    return 2 if mendable and not isinstance(error, UnhealthyRun) else 1


def explain(error: BaseException) -> str:
    """An error in one message for the user: what happened, what to do."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        if error.strerror != os.strerror(errno.ENOSPC):  # found before anything was written
            return (
                f"not enough disk space for {error.filename}: {error.strerror}; free some, or use "
                "another folder"
            )
        where = f" while writing {error.filename}" if error.filename else ""
        return (
            f"the disk is full{where}. Nothing is half-written; free some space and run the same "
            "command again, it goes on from the last checkpoint"
        )
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
