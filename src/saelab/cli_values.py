"""What the flags of the commands take: kinds of value, and how each is read from words."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import UseCounterAction, arg
from tyro.constructors import PrimitiveConstructorSpec


def whole(word: str) -> int:
    """A whole number: 1000000, 1_000_000 or 1e6. Raises `ValueError`."""
    try:
        if re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d+", word) and float(word).is_integer():
            return int(float(word))
        return int(word)
    except ValueError:
        raise ValueError(f"{word!r} is no whole number; write for instance 8 or 1e6") from None


def real(word: str) -> float:
    """A number: 8, 0.001 or 1e-3. Raises `ValueError`."""
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{word!r} is no number; write for instance 8 or 0.001") from None


def separate(words: Sequence[str]) -> tuple[str, ...]:
    """Names that were separated by spaces, commas or both.

    Raises `ValueError` where there are none: such a flag would silently mean its default.
    """
    names = tuple(name for word in words for name in word.replace(",", " ").split())
    if not names:
        raise ValueError("it is given without a value; write one or several, or leave it out")
    return names


def seeds(words: Sequence[str]) -> tuple[int, ...]:
    """Seeds, one by one and as ranges: `0 1 2`, `0,1,2` and `0-2` are the same. Raises
    `ValueError`.
    """
    given: list[int] = []
    for name in separate(words):
        ends = re.fullmatch(r"(-?\d+)(?:-(\d+))?", name)
        named = range(int(ends[1]), int(ends[2] or ends[1]) + 1) if ends else ()
        if not named:
            raise ValueError(f"{name!r} is no seed; write for instance 0 1 2, or 0-2")
        given += named
    return tuple(given)


def several_seeds(words: Sequence[str]) -> tuple[int, ...]:
    """The same where a comparison needs several: one number alone reads like a count, and is
    refused with both ways to mean something.
    """
    given = seeds(words)
    if len(given) == 1 and words[0].isdigit() and given[0] > 0:
        n = given[0]
        raise ValueError(
            f"{n} alone is one seed, not {n} seeds; write 0-{n - 1} for {n} seeds, or "
            f"{n}-{n} for that one"
        )
    return given


def _reals(words: Sequence[str]) -> tuple[float, ...]:
    return tuple(map(real, separate(words)))


def _one(read: Callable[[str], Any], metavar: str) -> Any:
    return _spec(1, metavar, lambda words: read(words[0]), lambda value: [str(value)])


def _several(read: Callable[[Sequence[str]], Any], metavar: str) -> Any:
    return _spec("*", f"{metavar} ...", read, lambda values: list(map(str, values)))


def _spec(nargs: Any, metavar: str, read: Callable[[list[str]], Any], write: Any) -> Any:
    return PrimitiveConstructorSpec(nargs, metavar, read, lambda value: True, write)


unsaid = arg(help_behavior_hint="")  # where the help of the flag says its default in words

Whole = Annotated[int, _one(whole, "INT")]
Real = Annotated[float, _one(real, "FLOAT")]
Folder = Annotated[Path, _one(Path, "FOLDER")]
Seeds = Annotated[tuple[int, ...], _several(seeds, "INT"), arg(aliases=["--seed"])]
SeveralSeeds = Annotated[
    tuple[int, ...], _several(several_seeds, "INT"), arg(aliases=["--seed"], help_behavior_hint="")
]
WholeIfGiven = Annotated[int | None, _one(whole, "INT"), unsaid]
RealIfGiven = Annotated[float | None, _one(real, "FLOAT"), unsaid]
TextIfGiven = Annotated[str | None, _one(str, "STR"), unsaid]
FolderIfGiven = Annotated[Path | None, _one(Path, "FOLDER"), unsaid]
Names = Annotated[tuple[str, ...], _several(separate, "NAME"), unsaid]
Reals = Annotated[tuple[float, ...], _several(_reals, "FLOAT"), unsaid]
Flag = Annotated[UseCounterAction[int], unsaid]
