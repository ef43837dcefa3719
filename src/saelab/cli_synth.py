"""The command `saelab synth`: baselines and variants on worlds whose true features are known."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction, arg

from saelab.cli_list import worlds_text
from saelab.cli_values import (
    Flag,
    FolderIfGiven,
    Names,
    Real,
    Reals,
    SeveralSeeds,
    WholeIfGiven,
)

if TYPE_CHECKING:
    from saelab.experiments.tables.table import WorldTable

Changes = UseAppendAction[
    Annotated[
        tuple[str, ...], arg(name="set", metavar="NAME=NUMBER", help_behavior_hint="(repeatable)")
    ]
]


def synth(
    world: Annotated[Positional[str], arg(metavar="WORLD")] = "",
    *,
    list: Flag = 0,
    variants: Names = (),
    seeds: SeveralSeeds = (0, 1, 2, 3, 4),
    l0: Reals = (),
    changes: Changes = (),
    length: Real = 1.0,
    tune: Flag = 0,
    rates: FolderIfGiven = None,
    jobs: WholeIfGiven = None,
    out: FolderIfGiven = None,
) -> None:
    """Train and compare SAEs on a synthetic world whose true features are known, and write a
    report.

    Args:
        world: s1, s2, ...; saelab list worlds says what each one tests
        list: list the worlds and what each one tests
        variants: rows of the table (default: the baselines); a row with
            numbers of its own is NAME=VARIANT:SETTING=NUMBER:...
        seeds: the seeds (default: 0-4); each is a world of its own, and all rows are trained on its
            very stream. Below 20 for development, from 20 on for results that are reported
        l0: latents active per activation, on average (default: the world's k); several make a row
            each
        changes: a number of the world (p=0.1) or of its training (k=6, steps=500, lr=0.003)
        length: times the world's standard number of steps
        tune: choose each row's learning rate on seeds 0 to 2 of the family's head world first
        rates: use the learning rates that --tune wrote into this file (learning_rates.json)
        jobs: processes of one thread, one seed each (default: one per core). Results do not depend
            on it
        out: where results go (default: runs/synth-<world>)
    """
    from saelab.experiments.tables.standard import BASELINES
    from saelab.experiments.tables.table import WorldTable, plan_of

    if list or not world:
        print(worlds_text())
        return
    changed = dict(map(_number, changes))
    table = WorldTable(world, variants or BASELINES, seeds, l0, changed, length)
    plan = plan_of(table)  # refuses what cannot work before anything is trained or tuned
    _carry_out(table, out or Path("runs") / plan.name, jobs, tune=tune > 0, rates=rates)


def _carry_out(
    table: "WorldTable", out: Path, jobs: int | None, *, tune: bool, rates: Path | None
) -> None:
    from dataclasses import replace

    from saelab.console import listener, open_console, show_results
    from saelab.experiments.run.execute import execute
    from saelab.experiments.tables.table import plan_of
    from saelab.experiments.tables.tune import choose_rates, read_rates
    from saelab.threads import cores

    hear, jobs = listener(open_console()), cores() if jobs is None else jobs
    if rates is not None:
        table = replace(table, rates=read_rates(rates, table))
    elif tune:
        table = replace(table, rates=choose_rates(table, out, hear, jobs))
    show_results(execute(plan_of(table), out, listener=hear, jobs=jobs)).check()


def _number(text: str) -> tuple[str, float]:
    name, equals, number = text.partition("=")
    try:
        return name.strip(), float(number)
    except ValueError as error:
        missing = "" if equals else " (no = in it)"
        raise ValueError(
            f"--set {text!r} is not NAME=NUMBER{missing}; write for instance --set k=6 --set p=0.1"
        ) from error
