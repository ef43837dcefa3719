"""Kinds of number: which values a setting may have, said once for every check, `--help` and page;
the settings that a function lists as its keywords; and how far two predictions are apart.

A setting is a keyword-only parameter annotated with its kind and one phrase of meaning,

    def topk(d_in, n_latents, *, aux: Annotated[NonNegative, "weight of AuxK"] = 1 / 32)

and `settings_in` reads name, kind, default and meaning from there.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """A range of numbers that can say itself and refuse what lies outside of it."""

    low: float = -inf
    high: float = inf
    whole: bool = False
    above: bool = False  # whether `low` itself is outside

    @property
    def range(self) -> str:
        """The range in words: "from 0 to 1", "a whole number, at least 1"."""
        if (self.low, self.high, self.whole) == (0, 1, True):
            return "1 (on) or 0 (off)"
        low = f"above {self.low:,g}" if self.above else f"at least {self.low:,g}"
        if self.high < inf:
            low = f"{low} and at most {self.high:,g}"
            low = low if self.above else f"from {self.low:,g} to {self.high:,g}"
        return f"a whole number, {low}" if self.whole else low

    def check(self, name: str, value: float, meaning: str = "") -> None:
        """Raise `ValueError` that says the number called `name`, its value, the range and, where
        given, what the number means. NaN and infinity lie outside of every range.
        """
        inside = self.low < value if self.above else self.low <= value
        if inside and value <= self.high and abs(value) < inf and not (self.whole and value % 1):
            return
        finite = ", and finite" if value == inf == self.high else ""
        said = f": {meaning}" if meaning else ""
        raise ValueError(f"{name} is {value:g}; it must be {self.range}{finite}{said}")


Share = Annotated[float, Kind(0, 1)]
Count = Annotated[float, Kind(1, whole=True)]
Times = Annotated[float, Kind(0, whole=True)]  # how often something happens; 0: never
NonNegative = Annotated[float, Kind(0)]
Positive = Annotated[float, Kind(0, above=True)]
Switch = Annotated[float, Kind(0, 1, whole=True)]


@dataclass(frozen=True)
class Setting:
    """A number that something can be tuned by."""

    kind: Kind
    default: float
    meaning: str  # a phrase that goes on after the name


def settings_in(function: Callable[..., Any]) -> Mapping[str, Setting]:
    """The settings of a function: its keyword-only parameters that say their kind."""
    hints = get_type_hints(function, include_extras=True)
    settings = {}
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        if get_origin(hint) is Annotated and parameter.kind is parameter.KEYWORD_ONLY:
            _, kind, meaning = get_args(hint)
            settings[parameter.name] = Setting(kind, parameter.default, meaning)
    return settings


def check_numbers(
    owner: str, given: Mapping[str, float], settings: Mapping[str, Setting], prefix: str = ""
) -> None:
    """Refuse numbers that `owner` does not have, or that are out of range; an error calls a number
    by `prefix` and its name. Raises `ValueError`.
    """
    for name, value in given.items():
        if name not in settings:
            its = ", ".join(settings) or "none"
            raise ValueError(
                f"{owner} has no setting {name!r}{nearest_name(name, settings)}; its settings: "
                f"{its}"
            )
        settings[name].kind.check(f"{prefix}{name}", value, settings[name].meaning)


def entry_called(name: str, table: Mapping[str, T], kind: str) -> T:
    """What a table holds under a name; `kind` is what its entries are. Raises `ValueError` with the
    nearest name and all of them where there is none.
    """
    if name not in table:
        near, names = nearest_name(name, table), ", ".join(table)
        raise ValueError(f"no {kind} is called {name!r}{near}; there are: {names}")
    return table[name]


def nearest_name(name: str, names: Iterable[str]) -> str:
    """A question after the likeliest of `names` for one that was mistyped; else empty."""
    close = get_close_matches(name, list(names), n=1, cutoff=0.4)
    return f" (did you mean {close[0]!r}?)" if close else ""


def kl(log_p: "Tensor", log_q: "Tensor") -> "Tensor":
    """How far the predictions q are from the predictions p: KL(p || q) of log-probabilities
    `[..., V]` -> `[...]`, nats.
    """
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def kl_of_near(log_p: "Tensor", log_q: "Tensor") -> "Tensor":
    """The same for predictions that hardly differ: sum p (e^r - 1 - r) with r = log q - log p.

    Equal to `kl`, for both are distributions, but for its rounding error, which drowns small
    effects: no term here is negative, and none is anything but 0 where q is p. It takes twice the
    work, and other last digits, so that each place keeps the one it has.
    """
    p, ratio = log_p.exp(), log_q - log_p
    near = p * (ratio.clamp(max=1).expm1() - ratio)
    return near.where(ratio < 1, log_q.exp() - p * (1 + ratio)).sum(-1)
