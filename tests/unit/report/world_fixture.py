"""An output folder of a synthetic world with made-up numbers: 16 parents, 64 children, 16
distractors.
"""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saelab.evals.composition.measure import tree_figure
from saelab.evals.result import Result
from saelab.figures import Axis, Figure, Heat, Points, Scatter, figure_to_json
from saelab.types import Score
from unit.report.fixture import HOSTILE

GROUPS = {"parents": (0, 16), "children": (16, 80), "distractors": (80, 96)}
VARIANTS = {"standard": 0.62, "batch_topk": 0.8, "matryoshka": 0.88, "frozen": 0.3}
F = L = 96


def write_world(
    folder: Path,
    variants: Sequence[str] = tuple(VARIANTS),
    seeds: int = 2,
    sanity_value: float = 0.21,
) -> Path:
    """One run a variant and seed, of seeds 20, 21, ...; the sanity row wants `parent_fn` between
    .12 and .35.
    """
    rng = random.Random(0)
    rows, means = [], []
    for variant in variants:
        quality = VARIANTS.get(variant, 0.75)
        rows += [_run(folder, rng, variant, 20 + i, quality) for i in range(seeds)]
        means.append(
            {
                "variant": variant,
                "n": seeds,
                "metrics": {key: _mean(rows[-seeds:], key) for key in rows[-1]["metrics"]},
            }
        )
    expected = {
        "variant": "batch_topk",
        "metric": "parent_fn",
        "low": 0.12,
        "high": 0.35,
        "value": sanity_value,
    }
    sanity = [
        {
            **expected,
            "ok": 0.12 <= sanity_value <= 0.35,
            "meaning": "there is no absorption to cure",
        },
        {
            "variant": "gated",
            "metric": "mcc",
            "low": 0.5,
            "high": None,
            "value": None,
            "ok": None,
            "meaning": "nothing is found",
        },
    ]
    facts = {
        "world": "s2",
        "tests": f"Does an SAE keep a parent's latent active beside its children? {HOSTILE}",
        "headline": ["parent_fn", "coverage_f1", "explained_variance"],
        "settings": {"p": 0.06},
        "learning_rates": dict.fromkeys(variants, 0.002),
        "sanity": sanity,
        "length": 1,
        "tokens": 2_560_000,
        "seeds": [20 + i for i in range(seeds)],
        "seconds": 412.0,
        "peak_rss_mb": 900,
        "versions": {"saelab": "0.1.0"},
    }
    contrast = {"metric": "parent_fn", "baseline": "standard", "treatment": "batch_topk", "value": -0.1, "low": -0.12,
                "high": -0.08, "verdict": "better"}  # fmt: skip
    _json(
        folder / "summary.json",
        {"rows": rows, "contrasts": [contrast], "means": means, "facts": facts},
    )
    return folder


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _mean(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    values = [row["metrics"][key]["value"] for row in rows]
    if None in values:
        return {
            "value": None,
            "low": None,
            "high": None,
            "n": 0,
            "reason": f"undefined for seed 20: {rows[0]['metrics'][key]['reason']}",
        }
    mean = sum(values) / len(values)
    return {"value": mean, "low": mean - 0.01, "high": mean + 0.01, "n": len(values)}


def _run(
    folder: Path, rng: random.Random, variant: str, seed: int, quality: float
) -> dict[str, Any]:
    name = f"{variant}-s{seed}-3fa9c0de"
    run = folder / "runs" / name
    _json(
        run / "run.json",
        {
            "spec": {"variant": variant, "n_latents": L, "l0": 3.0},
            "source": {"world": "s2"},
            "seed": seed,
        },
    )
    _json(run / "health.json", {"healthy": True, "problems": [], "warnings": []})
    curve = [
        {"step": i, "tokens": 512 * i, "loss": 3.0 / i, "l0": 3.0, "dead": 0.0}
        for i in range(1, 20)
    ]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, curve)) + "\n")
    frequency = [
        (0.06 if f < 16 else 0.012 if f < 80 else 0.15) * rng.uniform(0.9, 1.1) for f in range(F)
    ]
    matched = [min(1.0, max(0.0, rng.gauss(quality + 0.3 * (x - 0.06), 0.08))) for x in frequency]
    noise = [[min(0.99, round(abs(rng.gauss(0, 0.14)), 2)) for _ in range(F)] for _ in range(L)]
    cosine = [[round(matched[f], 2) if f == i else noise[i][f] for f in range(F)] for i in range(L)]
    truth = {"mcc": sum(matched) / F, "explained_variance": quality, "l0": 3.0, "dead": 0.0}
    figures = (cosines(cosine), recovery(frequency, matched))
    details = {"matched": matched, "frequency": frequency, "groups": GROUPS}
    _json(
        run / "eval" / "truth.json",
        Result(_scores(truth), figures=figures, details=details).to_json(),
    )
    parents = [
        {"parent": p, "cosine": matched[p],
         "children": [{"child": c, "cosine": matched[c], "found": matched[c] > 0.78} for c in range(16 + 4 * p, 20 + 4 * p)]}
        for p in range(16)
    ]  # fmt: skip
    tree = {
        "parent_fn": 0.4 * (1 - quality),
        "coverage_f1": quality,
        "edge_f1": None,
        "parent_fn_batch": 0.3 * (1 - quality),
    }
    tree = {
        key: None if value is None else value + rng.gauss(0, 0.01) for key, value in tree.items()
    }
    details = {"parents": parents, "threshold": 0.78}
    result = Result(_scores(tree), figures=(tree_figure(details),), details=details)
    _json(run / "eval" / "composition.json", result.to_json())
    metrics = Result(_scores({**truth, **tree})).to_json()["scores"]
    return {
        "variant": variant,
        "seed": seed,
        "l0": 3.0,
        "healthy": True,
        "metrics": metrics,
        "run": name,
    }


def _scores(values: Mapping[str, float | None]) -> dict[str, Score]:
    missing = Score(None, reason="this dictionary has no tree")
    return {
        key: missing if value is None else Score(value, n=1000) for key, value in values.items()
    }


def cosines(
    values: Sequence[Sequence[float]], groups: Mapping[str, tuple[int, int]] = GROUPS
) -> Heat:
    """The matrix that truth emits."""
    return Heat(
        "cosines",
        "Cosine of every latent and every feature",
        "A clean diagonal is full recovery.",
        rows=(),
        columns=(),
        values=values,
        low=0.0,
        high=1.0,
        groups=groups,
        row_label=f"{len(values)} latents, sorted",
        column_label=f"{len(values[0])} features",
    )


def recovery(
    frequency: Sequence[float],
    matched: Sequence[float | None],
    groups: Mapping[str, tuple[int, int]] = GROUPS,
) -> Scatter:
    """The dots that truth emits; without groups they have the row's colour."""
    group = [i for i, (start, stop) in enumerate(groups.values()) for _ in range(start, stop)]
    return Scatter(
        "recovery",
        "Recovery against frequency",
        "A dot is a true feature.",
        x=Axis("share of activations it is in", log=True),
        y=Axis("|cosine| with its latent", low=0.0, high=1.0),
        points=(Points("features", frequency, matched, group=group),),
        groups=tuple(groups),
    )


def put_figures(path: Path, *figures: Figure) -> None:
    """Replace the figures of a result."""
    value = json.loads(path.read_text())
    value["figures"] = [figure_to_json(figure) for figure in figures]
    path.write_text(json.dumps(value))
