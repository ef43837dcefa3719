"""Where things lie on disk, whose a folder is, and what in it is already done.

    <out>/plan.json  summary.json  report.html  checkpoints/<group>.safetensors
    <out>/runs/<run>/run.json  metrics.jsonl  health.json  sae/  eval/<evaluation>.json

Every file is written whole or not at all, so that a file's existence means that its step is done.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saelab.experiments.plan import Plan, run_from_config, run_id, run_name
from saelab.runs import Run
from saelab.sae.io import load_sae
from saelab.sae.module import SAE
from saelab.sae.own import OwnSAE
from saelab.store import CorruptFile, canonical_json, read_json, read_lines, write_json, write_text
from saelab.train.health import Health
from saelab.train.loop import Build
from saelab.types import Hook

RUN_FORMAT = 1
# what experiment.py puts into a folder before the plan is there
OWN = {"experiment.json", "experiment.py"}


class OtherContent(ValueError):
    """A folder that holds another plan or run; the message names both."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path
    run: Run

    @property
    def name(self) -> str:
        return run_name(self.run)

    @property
    def sae(self) -> Path:
        return self.path / "sae"

    @property
    def metrics(self) -> Path:
        """The training log, a json line per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def trained(self) -> bool:
        """Training has ended, well or badly: the health record is its last file."""
        return (self.path / "health.json").exists()

    def evaluated(self, evals: Sequence[str]) -> bool:
        """All of `evals` are there, or there is no SAE that could be evaluated."""
        return self.trained and (
            not self.sae.exists() or all(self.result(name).exists() for name in evals)
        )

    def result(self, name: str) -> Path:
        return self.path / "eval" / f"{name}.json"

    def health(self) -> Health:
        """The health record. Raises `FileNotFoundError` or `CorruptFile`, naming the file."""
        record = read_json(self.path / "health.json")
        try:
            return Health(record["healthy"], tuple(record["problems"]), tuple(record["warnings"]))
        except (KeyError, TypeError) as error:
            raise CorruptFile(
                f"{self.path / 'health.json'} is no health record ({error!r}); remove {self.path}"
            ) from error

    def write_health(self, health: Health) -> None:
        write_json(self.path / "health.json", asdict(health))

    def load(self, build: Build | None = None) -> SAE:
        """The trained SAE. `build` makes a fresh one where it is of somebody's own class."""
        if build is None:
            return load_sae(self.sae)
        record = read_json(self.sae / "sae.json")
        hook = Hook.from_name(record["hook"])
        fresh = build(self.run.spec, record["d_in"], self.run.seed, hook).sae
        return load_sae(self.sae, module=fresh if isinstance(fresh, OwnSAE) else None)

    def meta(self) -> dict[str, Any]:
        """What was recorded beside the SAE (facts of its training); empty when it has none."""
        return read_json(self.sae / "sae.json").get("meta", {}) if self.sae.exists() else {}

    def claim(self) -> None:
        """Make the folder this run's own. Raises `OtherContent` when it is another's, `CorruptFile`
        when damaged.
        """
        path = self.path / "run.json"
        if path.exists():
            run = stored_run(self.path)
            if run_id(run) != run_id(self.run):
                raise OtherContent(
                    f"{path} holds run {run_name(run)}, not {self.name}; use another --out or "
                    "remove that folder"
                )
        else:
            write_json(path, {"format": RUN_FORMAT, "id": run_id(self.run), **self.run.config})

    def truncate_metrics(self, step: int) -> None:
        """Drop log lines after `step`, which a resumed training writes again."""
        if self.metrics.exists():
            kept = [line for line in complete_lines(self.metrics) if line["step"] <= step]
            write_text(self.metrics, "".join(canonical_json(line) + "\n" for line in kept))


def complete_lines(path: Path) -> list[dict[str, Any]]:
    """The json lines of a training log. Raises `CorruptFile` naming the file."""
    try:
        return [line | {"step": int(line["step"])} for line in read_lines(path)]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{path} is damaged ({error!r}); remove it and run again") from error


def stored_run(folder: Path) -> Run:
    """The run of a run folder. Raises `FileNotFoundError` or `CorruptFile`, naming the file."""
    path = Path(folder) / "run.json"
    record = read_json(path)
    try:
        run = run_from_config(record)
        if record["id"] != run_id(run):
            raise ValueError(f"its id is {record['id']}, its content hashes to {run_id(run)}")
        return run
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFile(
            f"{path} is damaged or was edited ({error}); remove {folder} and run again"
        ) from error


def run_folder(out: Path, run: Run) -> RunFolder:
    """The folder of `run` under the output folder `out`."""
    return RunFolder(Path(out) / "runs" / run_name(run), run)


def check_folder(out: Path) -> None:
    """Raise `NotADirectoryError` where the output folder is a file."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file; give a folder as --out")


def claim(plan: Plan, out: Path) -> None:
    """Make `out` this plan's own folder: a plan of the same name goes on there, another is refused.

    Raises `OtherContent` naming both plans, `CorruptFile` when `plan.json` is damaged,
    `NotADirectoryError` for a file.
    """
    out = Path(out)
    check_folder(out)
    path = out / "plan.json"
    if path.exists():
        record = read_json(path)
        name = record.get("name") if isinstance(record, dict) else None
        if name is None:
            raise CorruptFile(f"{path} is no plan; remove it and run again")
        if name != plan.name:
            results = (file for file in out.glob("runs/*/*") if file.name != "run.json")
            if any(results) or any(out.glob("checkpoints/*")):
                raise OtherContent(
                    f"{out} holds the results of {name!r}, not of {plan.name!r}; use another "
                    "--out or remove it"
                )
            # of a plan that failed before it trained anything
            shutil.rmtree(out / "runs", ignore_errors=True)
    elif out.is_dir() and any(
        not entry.name.startswith(".") and entry.name not in OWN for entry in out.iterdir()
    ):
        raise OtherContent(
            f"{out} holds other files (no plan.json), and {plan.name!r} needs a folder of its "
            "own; use another --out"
        )
    write_json(path, plan.config)
    for run in plan.runs:
        run_folder(out, run).claim()
