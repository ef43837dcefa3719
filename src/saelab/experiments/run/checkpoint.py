"""Checkpoints of a group of runs that train together: one safetensors file, replaced as a whole.

<out>/checkpoints/<group id>.safetensors     metadata: the runs' names and the seconds trained so
                                             far
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from saelab.experiments.plan import run_id, run_name
from saelab.runs import Run
from saelab.store import CorruptFile, content_id, read_tensors, write_tensors
from saelab.train import Training


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint file of a group, whether or not it is there yet."""

    path: Path
    runs: tuple[Run, ...]

    @staticmethod
    def of(out: Path, runs: Sequence[Run]) -> "Checkpoint":
        """The checkpoint of `runs` under the output folder `out`."""
        group = content_id([run_id(run) for run in runs])
        return Checkpoint(Path(out) / "checkpoints" / f"{group}.safetensors", tuple(runs))

    def save(self, training: Training, seconds: float) -> None:
        """Write the training's state; `seconds`: trained so far, all starts together."""
        write_tensors(self.path, training.state(), self._meta() | {"seconds": seconds})

    def load(self, training: Training) -> float:
        """Put `training` where the checkpoint left it; return the seconds trained before. Raises
        `CorruptFile`.
        """
        meta = self._read_meta()
        if meta.get("runs") != self._meta()["runs"]:
            raise CorruptFile(
                f"{self.path} is a checkpoint of other runs ({meta.get('runs')}); remove it to "
                "start anew"
            )
        try:
            training.load(read_tensors(self.path))
        except ValueError as error:
            raise CorruptFile(f"{self.path} does not fit: {error}") from error
        return float(meta["seconds"])

    def remove(self) -> None:
        """Training is over: the SAE folders hold the result."""
        self.path.unlink(missing_ok=True)
        if self.path.parent.exists() and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()

    def _meta(self) -> dict[str, Any]:
        return {"runs": [run_name(run) for run in self.runs]}

    def _read_meta(self) -> dict[str, Any]:
        try:
            with safe_open(str(self.path), framework="pt") as file:
                return json.loads(file.metadata()["json"])
        except (SafetensorError, TypeError, KeyError, json.JSONDecodeError) as error:
            raise CorruptFile(
                f"{self.path} is truncated or no checkpoint ({error}); remove it to start anew"
            ) from error


def groups(runs: Sequence[Run], pending: Sequence[Run], out: Path) -> list[tuple[Run, ...]]:
    """`pending` runs in groups that share a Source; a group with a checkpoint stays whole, so that
    it can go on.

    A checkpoint may hold runs of `runs` that are done already (killed while results were written):
    they train along.
    """
    left, together = list(pending), []
    by_name = {run_name(run): run for run in runs}
    for path in sorted((Path(out) / "checkpoints").glob("*.safetensors")):
        meta = Checkpoint(path, ())._read_meta()
        members = tuple(by_name[name] for name in meta.get("runs", ()) if name in by_name)
        if members and len(members) == len(meta["runs"]) and any(run in left for run in members):
            together.append(members)
            left = [run for run in left if run not in members]
    while left:
        members = tuple(run for run in left if run.source == left[0].source)
        together.append(members)
        left = [run for run in left if run not in members]
    return together
