"""Numbers that change during training: functions of progress in [0, 1]."""

from saelab.types import Schedule


def linear(start: float, end: float, *, until: float = 1.0, since: float = 0.0) -> Schedule:
    """`start` up to `since`, a straight line to `end` at `until`, `end` after that."""

    def value(progress: float) -> float:
        if until <= since:
            return end
        share = min(1.0, max(0.0, (progress - since) / (until - since)))
        return start + (end - start) * share

    return value
