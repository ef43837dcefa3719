"""`final_info.json` and `notes.txt`: the results of `experiment.py` in the words its readers
know.
"""

import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from saelab.experiments.evaluate.score import read_scores
from saelab.experiments.folders import RunFolder, complete_lines, run_folder
from saelab.experiments.plan import Plan
from saelab.experiments.run.preflight import sources
from saelab.runs import Source
from saelab.store import read_json, write_text
from saelab.train.optim import learning_rate
from saelab.types import Hook

SHOWN = ("l0", "explained_variance", "ce_loss_score", "kl_div_score", "dead", "final_loss")


def final_info(plan: Plan, out: Path) -> dict[str, Any]:
    """`{name: {"means", "stderrs", "final_info_dict"}}`, a name per layer; `final_info_dict` has a
    value per seed.

    A standard error of one seed, and a mean over undefined values, are None.
    """
    info: dict[str, Any] = {}
    for source in sources(plan.runs):
        assert isinstance(source, Source), "a script trains on a language model"
        folders = [run_folder(out, run) for run in plan.runs if run.source == source]
        values = [_values(folder, plan.evals) for folder in folders]
        by_name = {name: [run.get(name) for run in values] for name in values[0]}
        info[f"{Path(source.model).name}_layer_{int(values[0]['layer'] or 0)}"] = {
            "means": {name: _mean(column) for name, column in by_name.items()},
            "stderrs": {name: _stderr(column) for name, column in by_name.items()},
            "final_info_dict": by_name,
        }
    return info


def _values(folder: RunFolder, evals: tuple[str, ...]) -> dict[str, float | None]:
    """The numbers of one run."""
    run, last = folder.run, complete_lines(folder.metrics)[-1]
    sae = read_json(folder.sae / "sae.json")
    fixed = run.spec.settings.get("coefficient", 0.0)
    return {
        "training_steps": run.source.steps,
        "final_loss": last["loss"],
        "layer": Hook.from_name(sae["hook"]).layer,
        "dict_size": sae["n_latents"],
        "learning_rate": learning_rate(run),
        "sparsity_penalty": fixed or last.get("coefficient") or 0.0,
        **{name: score.value for name, score in read_scores(folder.path, evals).items()},
    }


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    if len(defined) < len(values):
        return None
    return defined[0] if len(set(defined)) == 1 else fmean(defined)  # a count stays a whole number


def _stderr(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return stdev(defined) / math.sqrt(len(defined)) if len(defined) == len(values) > 1 else None


def write_notes(out: Path, info: dict[str, Any]) -> None:
    """Put a block on the experiment into `notes.txt` beside the folder, in place of an earlier one
    of that name.

    The block stands between two marked lines; every other line is the user's and stays as it is.
    """
    path = out.parent / "notes.txt"
    lines = []
    for name, entry in info.items():
        means = ", ".join(f"{key} {_short(entry['means'].get(key))}" for key in SHOWN)
        lines.append(f"{name}: {means}")
    first, last = (f"## {out.name} (written by saelab)", f"## end of {out.name}")
    block = "\n".join([first, *lines, last, ""])
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    start = old.find(first + "\n")
    end = old.find(last + "\n", start)
    if start >= 0 and end >= 0:
        write_text(path, old[:start] + block + old[end + len(last) + 1 :])
    else:
        write_text(path, f"{old.rstrip()}\n\n{block}" if old.strip() else block)


def _short(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
