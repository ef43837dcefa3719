"""What the command line shows: progress while training, tables of results, and errors in one
message.
"""

import sys
import time
from collections.abc import Collection, Iterable, Sequence

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
from saelab.report import write_report
from saelab.runs import Run
from saelab.train import Progress, Record
from saelab.train.health import L0

PLAIN_SECONDS = 60.0  # between lines where the output is no terminal
LOG_WIDTH = 120  # of tables there
SHORT = 5  # places of the short table of a terminal; the page has room for all headlines


def open_console() -> Console:
    """Standard output; tables get room where it is a file."""
    return Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)


def listener(console: Console) -> Listener:
    """A live table on a terminal, plain lines in a log."""
    return LiveListener(console) if console.is_terminal else PlainListener(console)


def say(console: Console, text: str, style: str | None = None) -> None:
    """One line of plain text, not wrapped."""
    console.print(text, markup=False, highlight=False, soft_wrap=True, style=style)


def _label(run: Run) -> str:
    return f"{run.spec.name} seed {run.seed}"


class PlainListener:
    """A line per run every minute."""

    def __init__(self, console: Console):
        self.console = console

    def note(self, text: str) -> None:
        """A line."""
        say(self.console, text)

    def begin(self, runs: Sequence[Run], step: int, steps: int, title: str = "") -> None:
        """What is going to be trained."""
        self.runs, self.first, self.steps = runs, step, steps
        self.records: Sequence[Record] = ()
        self.started = self.shown = time.monotonic()
        count = f"{len(runs)} run{'s' * (len(runs) > 1)}"
        names = ", ".join(map(_label, runs))
        size = f"{steps:,} steps of {runs[0].source.batch:,} tokens"
        self.note(title or f"training {count} for {size}: {names}")

    def advance(self, progress: Progress) -> None:
        """Now and then, and at the end: rate, time left, and the state of every run."""
        now = time.monotonic()
        last = progress.step == self.steps
        self.records = progress.records or self.records
        if progress.step == self.first or not (last or now - self.shown >= PLAIN_SECONDS):
            return
        self.shown = now
        rate = (progress.step - self.first) / max(now - self.started, 1e-9)
        minutes, seconds = divmod(round((self.steps - progress.step) / rate), 60)
        self.note(
            f"step {progress.step:,}/{self.steps:,}  {rate * self.runs[0].source.batch:,.0f} "
            f"tokens/s  {minutes}:{seconds:02d} left"
        )
        for r in self.records:
            self.note(
                f"  {_label(self.runs[r.run]):24} L0 {r.l0:6.1f}  EV {r.explained_variance:6.3f}  "
                f"dead {r.dead:5.1%}  loss {r.loss:.4g}"
            )

    def end(self) -> None:
        """Nothing to close."""


class LiveListener:
    """A progress bar and a table of the runs, redrawn in place."""

    def __init__(self, console: Console):
        self.console = console

    def note(self, text: str) -> None:
        """A line above the bar."""
        say(self.console, text)

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
        text = f"{rate * self.runs[0].source.batch:,.0f} tokens/s"
        self.bar.update(self.task, completed=progress.step, rate=text)
        if progress.records:
            table = Table("run", "L0", "EV", "dead", "loss", box=None, pad_edge=False)
            for r in progress.records:
                numbers = f"{r.l0:.1f}", f"{r.explained_variance:.3f}", f"{r.dead:.1%}"
                table.add_row(_label(self.runs[r.run]), *numbers, f"{r.loss:.4g}")
            self.live.update(Group(self.bar, table))

    def end(self) -> None:
        """Leave the last state on the screen."""
        self.live.stop()


def show_results(summary: Summary, evals: Sequence[str] = ()) -> Summary:
    """Everything that came out of a command: tables, the page, and where both are.

    `evals`: evaluations of one SAE whose own tables are shown too, first.
    """
    console = open_console()
    show_tables(console, summary, evals)
    show_summary(console, summary)
    say(console, f"report   {write_report(summary.folder)}")
    say(console, f"summary  {summary.folder / 'summary.json'}")
    return summary


def show_summary(console: Console, summary: Summary) -> None:
    """Results and verdicts as tables, what a world's sanity rows say, then warnings."""
    in_world = "headline" in summary.facts
    for table in [_table_of_means(summary)] if in_world else _tables_of_runs(summary):
        console.print(table)
    if summary.contrasts:
        console.print(_table_of_contrasts(summary))
        seeds, rates = len(summary.facts["seeds"]), summary.facts["learning_rates"]
        text = (
            f"Verdicts over {seeds} seeds, learning rates {rates}; corrected for the number of "
            "contrasts (Holm, 5 %); detectable: the true difference that so few seeds show in 4 "
            "of 5 cases."
        )
        console.print(text, style="dim")
    for check in summary.facts.get("sanity", ()):
        if check["ok"] is None:
            continue
        text = (
            f"{check['variant']} {check['metric']} is {check['value']:.3f}, expected "
            f"{check['low']:g} to {check['high']:g}"
        )
        if check["ok"]:
            say(console, f"sanity: {text}: fine")
        else:
            wrong = f"The world does not test what it should: {check['meaning']}"
            say(console, f"SANITY: {text}. {wrong}", style="red")
    for name, health in summary.health.items():
        for text in health.warnings:
            say(console, f"warning: {name}: {text}")


def show_tables(console: Console, summary: Summary, evals: Sequence[str]) -> None:
    """The tables of the evaluations of one SAE, each with what to look for."""
    folder = summary.folder / "runs" / summary.rows[0]["run"]
    for values in read_tables(folder if folder.exists() else summary.folder, evals):
        table = _table(values.title, values.columns, whole=values.columns)
        for row in values.rows:
            table.add_row(*map(_plain_cell, row))
        console.print(table)
        if values.note:
            console.print(f"  {values.note}", markup=False, highlight=False)


def _plain_cell(value: float | int | str | None) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "-" if value is None else escape(str(value))


def _tables_of_runs(summary: Summary) -> list[Table]:
    """A table an evaluation, with a row a run: the headlines of what was measured."""
    tables = []
    keys = {name for row in summary.rows for name in row["metrics"]}
    for title, chosen in headlines(keys).items():
        first, metrics = not tables, [metric for metric in chosen if metric.headline <= SHORT]
        table = _table(
            f"{title}, on held-out data, with 95 % intervals",
            ["run", *(metric.label for metric in metrics), *["healthy"] * first],
            ["run"],
        )
        for row in summary.rows:
            # the first table is the widest: an interval only where one metric is traded for another
            cells = [
                _cell(row["metrics"].get(metric.key), interval=not first or bool(metric.against))
                for metric in metrics
            ]
            healthy = "yes" if row["healthy"] else "[red]NO[/red]"
            table.add_row(f"{row['variant']} seed {row['seed']}", *cells, *[healthy] * first)
        tables.append(table)
    return tables


def _table_of_means(summary: Summary) -> Table:
    """A row a variant, in a world."""
    facts, seeds = summary.facts, len(summary.facts["seeds"])
    names: list[str] = [L0, *facts["headline"]]
    title = f"World {facts['world']}: means over {seeds} seeds, with 95 % intervals"
    table = _table(title, ["variant", *(metric_of(name).label for name in names)], ["variant"])
    for row in summary.means:
        cells = [_cell(row["metrics"].get(name), interval=name != L0) for name in names]
        some = "" if row["n"] == seeds else f" ({row['n']} seeds)"
        table.add_row(row["variant"] + some, *cells)
    return table


def _table_of_contrasts(summary: Summary) -> Table:
    title = "Contrasts: mean difference over seeds, paired, with 95 % intervals"
    table = _table(title, ["claim", "metric", "difference", "detectable", "verdict"])
    for entry in summary.contrasts:
        reason = f" ({entry['reason']})" if entry["verdict"] == "not comparable" else ""
        table.add_row(
            f"{entry['treatment']} against {entry['baseline']}",
            metric_of(entry["metric"]).label,
            _cell(entry, interval=True),
            "-" if entry["detectable"] is None else f"{entry['detectable']:.2g}",
            entry["verdict"] + reason,
        )
    return table


def _table(title: str, columns: Iterable[str], whole: Collection[str] = ()) -> Table:
    """An empty table; `whole`: columns that are never broken into lines."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, no_wrap=column in whole)
    return table


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


def error(text: str) -> None:
    """Print `text` as an error to standard error."""
    say(Console(stderr=True), f"saelab: {text}", style="red")
    sys.stderr.flush()
