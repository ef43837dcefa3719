"""The command `saelab list`: what can be trained, measured and set, with a line on each."""

import textwrap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from saelab.numbers import nearest_name

if TYPE_CHECKING:
    from saelab.evals.result import Evaluation

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
    if what and what not in kinds:
        raise ValueError(
            f"there is no list of {what!r}{nearest_name(what, kinds)}; write saelab list "
            f"{' | '.join(kinds)} [NAME]"
        )
    print(kinds[what](name) if what else _everything())


def _everything() -> str:
    """What can be listed, by its command."""
    from saelab.evals import EVALS
    from saelab.synth.worlds import WORLDS
    from saelab.variants import PARTS, VARIANTS

    lists = {
        "variants": f"What can be trained: {', '.join(VARIANTS)}; and parts that join any base: "
        f"{', '.join(PARTS)}.",
        "evals": f"What can be measured: {', '.join(EVALS)}.",
        "evals NAME": "The scores of an evaluation, explained.",
        "worlds": f"Where the true features are known: {', '.join(WORLDS)}.",
        "settings NAME": "The settings of a variant or part, with default and range.",
    }
    return "\n".join(_entry(f"saelab list {what}", text) for what, text in lists.items())


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
    """Every evaluation and what it can be made on, or (with a name) every score of one."""
    from saelab.evals import EVALS, named

    if not name:
        return "\n".join(
            _entry(f"{key} (on {_grounds(said)})", f"{len(said.metrics)} scores: {_first(said)}")
            for key, said in EVALS.items()
        )
    words = {"higher": "higher is better", "lower": "lower is better", "neither": "no direction"}
    return "\n".join(
        _entry(metric.key, f"{metric.label} ({words[metric.better]}). {metric.meaning}")
        for metric in named(name).metrics
    )


def _grounds(evaluation: "Evaluation") -> str:
    """What it can be made on: language models, all worlds, or some of them."""
    from saelab.runs import Source, WorldSource
    from saelab.synth.worlds import WORLDS

    grounds = [] if evaluation.missing(Source()) else ["language models"]
    worlds = [name for name in WORLDS if not evaluation.missing(WorldSource(name, {}, 1, 1))]
    if worlds:
        few = len(worlds) < len(WORLDS)
        grounds.append(f"the worlds {', '.join(worlds)}" if few else "all worlds")
    return " and ".join(grounds)


def _first(evaluation: "Evaluation") -> str:
    """The scores in its short table, in their order, and that there are more."""
    shown = sorted((metric.headline, metric.key) for metric in evaluation.metrics)
    keys = [key for headline, key in shown if headline] or [shown[0][1]]
    return ", ".join(keys) + ", ..." * (len(keys) < len(shown))


def _entry(key: str, text: str) -> str:
    indent = " " * 4
    return f"{key}\n" + textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
