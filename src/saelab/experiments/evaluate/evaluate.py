"""Evaluate an SAE that lies on disk: a run's, or a bare SAE folder on a model and text, or in a
world.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from saelab.evals import check_evals, standard_evals
from saelab.experiments.compare.judge import row
from saelab.experiments.compare.summary import Summary, cost, write_summary
from saelab.experiments.evaluate.score import Export, evaluate_into, prepare_bench, with_scores
from saelab.experiments.folders import RunFolder, stored_run
from saelab.experiments.listen import Listener, Silent
from saelab.experiments.plan import run_from_config
from saelab.ground.ground import kind_of, open_ground
from saelab.runs import Run, Source, WorldSource
from saelab.sae.io import load_sae
from saelab.sae.module import SAE
from saelab.store import CorruptFile, content_id, read_json, write_json
from saelab.threads import limited
from saelab.train import Health


@dataclass(frozen=True)
class Target:
    """An SAE folder, the run it came from if known, and where its results go."""

    sae: Path
    run: Run | None
    folder: Path  # of eval/ and health.json
    home: Path  # of summary.json and report.html

    @property
    def name(self) -> str:
        return self.folder.resolve().name


def evaluate(
    folder: str | os.PathLike[str],
    *,
    evals: Sequence[str] = (),
    source: Source | WorldSource | None = None,
    out: str | os.PathLike[str] | None = None,
    listener: Listener | None = None,
    exports: Iterable[Export] = (),
    load: Callable[[Path], SAE] = load_sae,
) -> Summary:
    """Evaluate a run folder, or any SAE folder, anew; write `eval/`, `health.json` and
    `summary.json`.

    `evals`: by default the standard ones of its ground (`evals.standard_evals`). `source` says on
    which model and text, or which world (default: what the SAE was trained on). Without `out`,
    results of a run go into its folder, on another text into `eval-<id>` there, and those of a bare
    SAE into `<folder>-eval`. `load`: `load_own_sae` for an SAE of somebody's own class, whose
    code it runs. Raises `FileNotFoundError` when there is no SAE, `ValueError` when its
    model and text are not known or do not fit it.
    """
    started, listener = monotonic(), listener or Silent()
    target = locate(Path(folder), None if out is None else Path(out))
    sae = load(target.sae)
    source = source or _trained_on(target)
    if source is None:
        raise ValueError(
            f"{target.sae / 'sae.json'} does not say on which model and text it was trained; give "
            "--model, --corpus and --hook"
        )
    # another text's numbers must not replace those of the run's plan
    if target.run is not None and target.run.source != source and out is None:
        target = locate(Path(folder), target.home / f"eval-{content_id(asdict(source), 8)}")
    kind_of(source).check(source)
    width = kind_of(source).width(source)
    if width != sae.d_in:
        raise ValueError(
            f"{target.sae} is an SAE of width {sae.d_in}, and activations of {source.where} have "
            f"width {width}; evaluate it on the model that it was trained on"
        )
    evals = tuple(evals) or standard_evals(source)
    check_evals(evals, source)
    with limited(kind_of(source).threads):
        ground = open_ground(source)
        listener.note(f"evaluating {target.sae} on {ground.name}: {', '.join(evals)}")
        scores = evaluate_into(target.folder, sae, prepare_bench(ground.held_out(), evals), exports)
    variant, seed = (target.run.spec.name, target.run.seed) if target.run else (sae.name, 0)
    if not (target.folder / "run.json").exists():
        spec = {"variant": variant, "n_latents": sae.n_latents}
        write_json(
            target.folder / "run.json",
            {"sae": str(target.sae), "spec": spec, "source": asdict(source), "seed": seed},
        )
    health = with_scores(_trained_health(target), scores)
    write_json(target.folder / "health.json", asdict(health))
    facts = ground.about | {"seeds": [seed], **cost(monotonic() - started)}
    rows = [row(target.name, variant, seed, healthy=health.healthy, scores=scores)]
    return write_summary(target.home, rows, facts, {target.name: health})


def source_of(folder: Path, changes: Mapping[str, Any]) -> Source:
    """What the SAE in `folder` was trained on, with `changes`; saelab's defaults where it is not
    known. Raises `ValueError` for an SAE of a world, which has no model and text to change.
    """
    source = _trained_on(locate(folder, None)) or Source()
    if isinstance(source, WorldSource):
        raise ValueError(
            f"{folder} was trained on the world {source.world!r}, which has no "
            f"{', '.join(changes)} to change; leave that out"
        )
    return replace(source, **changes)


def locate(folder: Path, out: Path | None) -> Target:
    """Which SAE is meant by a run folder or an SAE folder. Raises `FileNotFoundError` saying what
    is there instead.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}; give a run folder (runs/<name> of an output folder) or its sae "
            "folder"
        )
    if (folder / "sae.json").exists():
        sae, parent = folder, folder.resolve().parent
    elif (folder / "sae" / "sae.json").exists():
        sae, parent = folder / "sae", folder
    else:
        runs = sorted(path.parents[1] for path in folder.glob("runs/*/sae/sae.json"))
        hint = f"; it is an output folder, give one of its runs: {runs[0]}" if runs else ""
        raise FileNotFoundError(f"{folder} holds no SAE (no sae.json){hint}")
    run = stored_run(parent) if (parent / "run.json").exists() else None
    if run is not None and out is None:
        return Target(sae, run, parent, parent)
    home = out or sae.with_name(f"{sae.name}-eval")
    return Target(sae, run, home / "runs" / (parent if run else sae).resolve().name, home)


def _trained_on(target: Target) -> Source | WorldSource | None:
    """What the SAE was trained on: its run's source, else the one recorded beside it, if any."""
    if target.run is not None:
        return target.run.source
    path = target.sae / "sae.json"
    config = read_json(path).get("meta", {}).get("run")
    try:
        return None if config is None else run_from_config(config).source
    except (KeyError, TypeError) as error:
        raise CorruptFile(
            f"{path}: the run recorded in it is damaged ({error!r}); give --model, --corpus and "
            "--hook"
        ) from error


def _trained_health(target: Target) -> Health:
    """The training's own verdict; an SAE without one has passed no gate and failed none."""
    if target.run is None:
        return Health(True, (), ())
    folder = RunFolder(target.sae.parent, target.run)
    return folder.health() if folder.trained else Health(True, (), ())
