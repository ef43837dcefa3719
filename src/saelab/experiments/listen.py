"""How an experiment tells what it does: it calls a listener and prints nothing itself."""

from collections.abc import Sequence
from typing import Protocol

from saelab.runs import Run
from saelab.train import Progress


class Listener(Protocol):
    """Hears what happens. The command line has two: a live table for a terminal, plain lines for a
    log.
    """

    def note(self, text: str) -> None:
        """One sentence for the user."""

    def begin(self, runs: Sequence[Run], step: int, steps: int, title: str = "") -> None:
        """A group of runs starts to train at `step` of `steps`. `title`: what to say of several
        groups side by side.
        """

    def advance(self, progress: Progress) -> None:
        """A step is done."""

    def end(self) -> None:
        """The group's training is over, well or badly."""


class Silent:
    """Hears and says nothing."""

    def note(self, text: str) -> None: ...

    def begin(self, runs: Sequence[Run], step: int, steps: int, title: str = "") -> None: ...

    def advance(self, progress: Progress) -> None: ...

    def end(self) -> None: ...
