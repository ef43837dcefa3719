"""The command `saelab list`: what can be trained, measured and set, with a line on each."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from saelab.numbers import nearest_name

if TYPE_CHECKING:
    from saelab.evals.result import Metric

WIDTH = 100  # columns


def show(
    what: Annotated[Positional[str], arg(metavar="KIND")] = "",
    name: Annotated[Positional[str], arg(metavar="NAME", help_behavior_hint="")] = "",
) -> None:
    """Say what there is to choose from: variants, evals, worlds, or the settings of a variant.

    Args:
        what: variants, evals, worlds or settings
        name: of an evaluation, to have its scores explained, or of a variant or part with settings
    """
    kinds: Mapping[str, Callable[[str], str]] = {
        "variants": _variants,
        "evals": _evals,
        "worlds": _worlds,
        "settings": _settings,
    }
    if what not in kinds:
        given = f"there is no list of {what!r}{nearest_name(what, kinds)}; " if what else ""
        raise ValueError(f"{given}write saelab list {' | '.join(kinds)} [NAME]")
    print(kinds[what](name))


def worlds_text() -> str:
    """Every world, what it tests, and its size."""
    from saelab.synth.worlds import WORLDS

    lines = []
    for name, entry in WORLDS.items():
        setup = entry.setup
        size = (
            f"{setup.n_latents} latents, L0 {setup.k:g}, {setup.steps:,} steps of "
            f"{setup.batch:,} activations"
        )
        lines += [f"{name:9} {entry.tests}", f"{'':9} {size}"]
    return "\n".join(lines)


def _variants(name: str) -> str:
    from saelab.variants import listing

    return _settings(name) if name else listing()


def _settings(name: str) -> str:
    from saelab.variants import settings_text

    if not name:
        raise ValueError(
            "the settings of what? Write for instance saelab list settings topk; names: saelab "
            "list variants"
        )
    return settings_text(name) or f"{name} has no settings"


def _worlds(name: str) -> str:
    if name:
        raise ValueError(f"saelab list worlds takes no name; given {name!r}")
    return worlds_text()


def _evals(name: str) -> str:
    """Every evaluation, or (with a name) every score of one."""
    from saelab.evals import EVALS, named

    if not name:
        return "\n".join(
            _entry(key, f"{len(evaluation.metrics)} scores, first: {_first(evaluation.metrics)}")
            for key, evaluation in EVALS.items()
        )
    words = {"higher": "higher is better", "lower": "lower is better", "neither": "no direction"}
    return "\n".join(
        _entry(metric.key, f"{metric.label} ({words[metric.better]}). {metric.meaning}")
        for metric in named(name).metrics
    )


def _first(metrics: "Sequence[Metric]") -> str:
    """Those in the short table, in its order."""
    shown = sorted((metric.headline, metric.key) for metric in metrics if metric.headline)
    return ", ".join(key for _, key in shown) or metrics[0].key


def _entry(key: str, text: str) -> str:
    indent = " " * 4
    return f"{key}\n" + textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
