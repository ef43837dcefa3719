"""Take finished runs over from another output folder: rows that several plans share are trained
once.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from saelab.experiments.folders import RunFolder, run_folder, stored_run
from saelab.experiments.listen import Listener
from saelab.experiments.plan import run_id
from saelab.runs import Run
from saelab.store import CorruptFile, atomic_folder, write_bytes


def check_reuse(folder: Path) -> None:
    """Refuse a folder that holds no runs. Raises `FileNotFoundError`."""
    if not any(Path(folder).glob("runs/*/run.json")):
        raise FileNotFoundError(
            f"{folder} holds no runs to take over (no runs/<run>/run.json); give an output folder "
            "of saelab"
        )


def adopt(
    runs: Sequence[Run], out: Path, folder: Path, listener: Listener, weights_hash: str | None
) -> None:
    """Copy those of `runs` that are finished in `folder` into `out`, with their logs and
    evaluations.

    A run is found by its content id, whatever its row is called. One that was trained on other
    weights of the model (`weights_hash`; None: a world) is left alone, and said.
    """
    by_id = {
        path.name.rsplit("-", 1)[-1]: path
        for path in sorted(Path(folder).glob("runs/*"))
        if path.is_dir()
    }
    taken = []
    for run in runs:
        source = _finished(run, by_id.get(run_id(run)[:8]))
        if source is None:
            continue
        other = source.meta().get("facts", {}).get("weights_hash")
        if other != weights_hash:
            listener.note(
                f"{source.path} was trained on other weights of the model ({other}, here "
                f"{weights_hash}): trained anew"
            )
            continue
        _copy(source, run_folder(out, run))
        taken.append(run_folder(out, run).name)
    if taken:
        listener.note(
            f"{len(taken)} run{'s' * (len(taken) > 1)} taken over from {folder}: {', '.join(taken)}"
        )


def _finished(run: Run, path: Path | None) -> RunFolder | None:
    """The folder at `path` if it holds this very run, trained, with its SAE."""
    if path is None:
        return None
    try:
        same = run_id(stored_run(path)) == run_id(run)
    except (FileNotFoundError, CorruptFile):  # not ours to mend: the run is trained anew
        return None
    folder = RunFolder(path, run)
    return folder if same and folder.trained and folder.sae.exists() else None


def _copy(source: RunFolder, target: RunFolder) -> None:
    """SAE, evaluations and log first; the health record, which says that a run is trained, last."""
    with atomic_folder(target.sae) as temporary:
        shutil.copytree(source.sae, temporary, dirs_exist_ok=True)
    results = sorted(source.path.glob("eval/**/*"))
    for path in (*results, source.metrics, source.path / "health.json"):
        if path.is_file():
            write_bytes(target.path / path.relative_to(source.path), path.read_bytes())
