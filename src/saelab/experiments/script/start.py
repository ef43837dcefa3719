"""What a command or a script does first, before it loads torch."""

import os
import signal
import sys
from pathlib import Path

from saelab.threads import calm


def start() -> None:
    """Let threads sleep while they wait, so that other programs slow this one down less, and let
    Ctrl-C end the process with one line and exit code 130 while it still imports. Call it before
    anything loads torch.
    """
    calm()
    # a shell ignores it for what it runs in the background
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def started() -> None:
    """From now on Ctrl-C raises `KeyboardInterrupt` again: imports are done."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: object) -> None:
    """At once, for torch aborts where an exception crosses its imports."""
    name = Path(sys.argv[0]).name.replace("__main__.py", "saelab")
    sys.stderr.write(f"\n{name}: stopped before it began.\n")
    sys.stderr.flush()
    os._exit(130)
