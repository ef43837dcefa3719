"""What the command line shows: progress while training, tables of results, and errors in one
message.
"""

import errno
import os
import sys
import time
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from saelab.evals import headlines, metric_of
from saelab.experiments.compare.summary import Summary
from saelab.experiments.evaluate.score import read_tables
from saelab.experiments.listen import Listener
from saelab.runs import Run
from saelab.train import Progress, Record
from saelab.train.health import L0

PLAIN_SECONDS = 10.0  # between lines where the output is no terminal
LOG_WIDTH = 120  # of tables there
SHORT = 5  # places of the short table of a terminal; the page has room for all headlines


def open_console() -> Console:
    """Standard output; tables get room where it is a file."""
    return Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)


def listener(console: Console) -> Listener:
    """A live table on a terminal, plain lines in a log."""
    return LiveListener(console) if console.is_terminal else PlainListener(console)


def _label(run: Run) -> str:
    return f"{run.spec.name} seed {run.seed}"


class PlainListener:
    """A line per run every ten seconds."""

    def __init__(self, console: Console):
        self.console = console

    def note(self, text: str) -> None:
        """A line."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, runs: Sequence[Run], step: int, steps: int, title: str = "") -> None:
        """What is going to be trained."""
        self.runs, self.first, self.steps = runs, step, steps
        self.records: Sequence[Record] = ()
        self.started = self.shown = time.monotonic()
        count = f"{len(runs)} run{'s' * (len(runs) > 1)}"
        each = (
            f"training {count} for {steps:,} steps of {runs[0].source.batch:,} tokens: "
            f"{', '.join(map(_label, runs))}"
        )
        self.note(title or each)

    def advance(self, progress: Progress) -> None:
        """Now and then, and at the end: rate, time left, and the state of every run."""
        now = time.monotonic()
        last = progress.step == self.steps
        self.records = progress.records or self.records
        if progress.step == self.first or not (last or now - self.shown >= PLAIN_SECONDS):
            return
        self.shown = now
        rate = (progress.step - self.first) / max(now - self.started, 1e-9)
        left = (self.steps - progress.step) / rate
        tokens = rate * self.runs[0].source.batch
        self.note(
            f"step {progress.step:,}/{self.steps:,}  {tokens:,.0f} tokens/s  {_clock(left)} left"
        )
        for record in self.records:
            self.note(f"  {_label(self.runs[record.run]):24} {_state(record)}")

    def end(self) -> None:
        """Nothing to close."""


class LiveListener:
    """A progress bar and a table of the runs, redrawn in place."""

    def __init__(self, console: Console):
        self.console = console

    def note(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, runs: Sequence[Run], step: int, steps: int, title: str = "") -> None:
        """Draw the empty bar."""
        self.runs, self.first, self.started = runs, step, time.monotonic()
        if title:
            self.note(title)
        self.bar = Bar(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
        )
        self.task = self.bar.add_task("training", total=steps, completed=step, rate="")
        self.live = Live(self.bar, console=self.console, refresh_per_second=4)
        self.live.start()

    def advance(self, progress: Progress) -> None:
        """Move the bar; at recorded steps also the table."""
        rate = (progress.step - self.first) / max(time.monotonic() - self.started, 1e-9)
        self.bar.update(
            self.task,
            completed=progress.step,
            rate=f"{rate * self.runs[0].source.batch:,.0f} tokens/s",
        )
        if progress.records:
            table = Table("run", "L0", "EV", "dead", "loss", box=None, pad_edge=False)
            for r in progress.records:
                numbers = (
                    f"{r.l0:.1f}",
                    f"{r.explained_variance:.3f}",
                    f"{r.dead:.1%}",
                    f"{r.loss:.4g}",
                )
                table.add_row(_label(self.runs[r.run]), *numbers)
            self.live.update(Group(self.bar, table))

    def end(self) -> None:
        """Leave the last state on the screen."""
        self.live.stop()


def _state(record: Record) -> str:
    ev, dead = record.explained_variance, record.dead
    return f"L0 {record.l0:6.1f}  EV {ev:6.3f}  dead {dead:5.1%}  loss {record.loss:.4g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def show_summary(console: Console, summary: Summary) -> None:
    """Results and verdicts as tables, then warnings."""
    shown = [
        metric
        for metric in headlines({name for row in summary.rows for name in row["metrics"]})
        if metric.headline <= SHORT
    ]
    table = _table("Results on held-out text, with 95 % intervals over documents")
    for column in ("run", *(metric.label for metric in shown), "healthy"):
        table.add_column(column, no_wrap=column == "run")
    for row in summary.rows:
        cells = [
            _cell(row["metrics"].get(metric.key), interval=bool(metric.against)) for metric in shown
        ]
        table.add_row(
            f"{row['variant']} seed {row['seed']}",
            *cells,
            "yes" if row["healthy"] else "[red]NO[/red]",
        )
    console.print(table)
    _show_contrasts(console, summary)
    _show_warnings(console, summary)


def show_tables(console: Console, summary: Summary, evals: Sequence[str]) -> None:
    """The tables of the evaluations of one SAE, each with what to look for."""
    own = summary.folder / "runs" / summary.rows[0]["run"]
    for table in read_tables(own if own.exists() else summary.folder, evals):
        drawn = _table(table.title)
        for column in table.columns:
            drawn.add_column(column, no_wrap=True)
        for row in table.rows:
            drawn.add_row(*map(_plain_cell, row))
        console.print(drawn)
        if table.note:
            console.print(f"  {table.note}", markup=False, highlight=False)


def _plain_cell(value: float | int | str | None) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "-" if value is None else escape(str(value))


def _show_contrasts(console: Console, summary: Summary) -> None:
    if summary.contrasts:
        table = _table("Contrasts: mean difference over seeds, paired, with 95 % intervals")
        for column in ("claim", "metric", "difference", "detectable", "verdict"):
            table.add_column(column)
        for entry in summary.contrasts:
            claim = f"{entry['treatment']} against {entry['baseline']}"
            reason = f" ({entry['reason']})" if entry["verdict"] == "not comparable" else ""
            label = metric_of(entry["metric"]).label
            smallest = "-" if entry["detectable"] is None else f"{entry['detectable']:.2g}"
            cells = _cell(entry, interval=True), smallest, entry["verdict"] + reason
            table.add_row(claim, label, *cells)
        console.print(table)
        text = "Verdicts are corrected for the number of contrasts (Holm, 5 %); detectable: the "
        console.print(text + "true difference that so few seeds show in 4 of 5 cases.", style="dim")


def _show_warnings(console: Console, summary: Summary) -> None:
    for name, health in summary.health.items():
        for text in health.warnings:
            console.print(f"warning: {name}: {text}", markup=False, highlight=False, soft_wrap=True)


def show_table(console: Console, summary: Summary) -> None:
    """A world's table: means over seeds, differences, what its sanity rows say, warnings."""
    facts = summary.facts
    names: list[str] = [L0, *facts["headline"]]
    table = _table(
        f"World {facts['world']}: means over {len(facts['seeds'])} seeds, with 95 % intervals"
    )
    for column in ("variant", *(metric_of(name).label for name in names)):
        table.add_column(column, no_wrap=column == "variant")
    for row in summary.means:
        cells = [_cell(row["metrics"].get(name), interval=name != L0) for name in names]
        table.add_row(
            row["variant"] + ("" if row["n"] == len(facts["seeds"]) else f" ({row['n']} seeds)"),
            *cells,
        )
    console.print(table)
    _show_contrasts(console, summary)
    for check in facts["sanity"]:
        where = f"{check['variant']} {check['metric']}"
        if check["ok"] is None:
            continue
        found = f"{where} is {check['value']:.3f}, expected {check['low']:g} to {check['high']:g}"
        if check["ok"]:
            console.print(f"sanity: {found}: fine", markup=False, highlight=False, soft_wrap=True)
        else:
            text = f"SANITY: {found}. The world does not test what it should: {check['meaning']}"
            console.print(text, markup=False, highlight=False, soft_wrap=True, style="red")
    _show_warnings(console, summary)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)


def _cell(score: dict | None, *, interval: bool) -> str:
    if score is None:
        return "not measured"
    if score["value"] is None:
        return "undefined"
    digits = 2 if abs(score["value"]) >= 10 else 3
    text = f"{score['value']:.{digits}f}"
    if score["low"] is None or not interval:
        return text
    return f"{text} \\[{score['low']:.{digits}f}, {score['high']:.{digits}f}]"


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
            "command again, "
            "it goes on from the last checkpoint"
        )
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def error(text: str) -> None:
    """Print `text` as an error to standard error."""
    Console(stderr=True).print(
        f"saelab: {text}", markup=False, highlight=False, soft_wrap=True, style="red"
    )
    sys.stderr.flush()
