"""A realistic output folder with synthetic numbers, an all-zero run and hostile strings among them."""

import json
import math
import random
from pathlib import Path
from typing import Any

HOSTILE = "</script><img src=x onerror=1>"
VARIANTS = {"standard": 0.781, "topk": 0.846, "batch_topk": 0.859}
L, D = 512, 64
WORDS = [
    "def",
    " self",
    ".",
    "return",
    " (",
    ")",
    ":",
    "\n",
    "    ",
    " x",
    " =",
    " yield",
    '"',
    " import",
    " os",
    "path",
    "_",
    " if",
    " <",
    " &",
]


def write_folder(folder: Path, seeds: int = 2, contexts: int = 8) -> Path:
    """Three variants and one all-zero SAE, in the layout that a comparison writes."""
    rng = random.Random(0)
    rows = []
    for variant, quality in VARIANTS.items():
        for seed in range(seeds):
            scores = _scores(rng, quality + 0.004 * seed)
            rows.append(_run(folder, rng, variant, seed, scores, contexts))
    rows.append(_zero_run(folder, rng))
    contrasts = [
        _contrast("explained_variance", "topk", 0.0652, "better"),
        _contrast("explained_variance", "batch_topk", 0.0779, "better"),
        _contrast("ce_loss_score", "topk", 0.0011, "no difference shown"),
        _contrast("mse", "batch_topk", 1.94, "worse"),
        {"metric": "cossim", "baseline": "standard", "treatment": "all_zero", "value": None, "low": None, "high": None,
         "verdict": "not comparable", "reason": "unhealthy: all_zero-0-0b5e000000aa"},
    ]  # fmt: skip
    facts = {
        "model": "pylm",
        "hook": "blocks.3.hook_resid_post",
        "corpus": "stdlib",
        "corpus_hash": "9f2c4e0d71ab",
        "tokens": 1_000_000,
        "seeds": list(range(seeds)),
        "versions": {
            "saelab": "0.1.0",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "python": "3.11.9",
        },
        "throughput_tokens_per_s": 41_250.0,
        "dropped_tokens_share": 0.0078,
        "warnings": ["standard-1-3fa9c0de12ab: dead share 12 % at the end"],
        "note": f"free text {HOSTILE}",
    }
    _json(folder / "summary.json", {"rows": rows, "contrasts": contrasts, "facts": facts})
    return folder


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _score(
    rng: random.Random, value: float, width: float, better: str = "higher"
) -> dict[str, Any]:
    value += rng.uniform(-0.1, 0.1) * width
    return {
        "value": value,
        "low": value - width,
        "high": value + width,
        "n": 120,
        "better": better,
        "reason": "",
    }


def _scores(rng: random.Random, quality: float) -> dict[str, Any]:
    return {
        "l0": _score(rng, 32.0, 0.4, "neither"),
        "explained_variance": _score(rng, quality, 0.006),
        "mse": _score(rng, 64 * (1 - quality), 0.5, "lower"),
        "cossim": _score(rng, 0.9 + 0.1 * quality, 0.003),
        "ce_loss_score": _score(rng, 0.9 + 0.1 * quality, 0.004),
        "kl_div_score": _score(rng, 0.89 + 0.1 * quality, 0.004),
        "ce_loss_without_sae": _score(rng, 2.41, 0.05, "neither"),
        "l2_ratio": _score(rng, 0.93, 0.004, "neither"),
    }


def _contrast(name: str, treatment: str, value: float, verdict: str) -> dict[str, Any]:
    return {"metric": name, "baseline": "standard", "treatment": treatment, "value": value, "low": value - 0.0031,
            "high": value + 0.0031, "verdict": verdict}  # fmt: skip


def _config(variant: str, seed: int) -> dict[str, Any]:
    return {
        "spec": {"variant": variant, "n_latents": L, "l0": 32.0, "settings": {}},
        "source": {
            "model": "pylm",
            "corpus": "stdlib",
            "hook": "middle",
            "tokens": 1_000_000,
            "max_norm": None,
        },
        "optim": {"lr": 1e-3, "warmup": 100, "amp": "none"},
        "seed": seed,
    }


def _run(
    folder: Path, rng: random.Random, variant: str, seed: int, scores: dict[str, Any], contexts: int
) -> dict[str, Any]:
    name = f"{variant}-{seed}-3fa9c0de12ab"
    run = folder / "runs" / name
    quality = VARIANTS[variant] + 0.01 * seed
    density = [
        0.0 if rng.random() < 0.03 else min(10 ** rng.gauss(-1.6, 0.55), 0.9) for _ in range(L)
    ]
    _json(run / "run.json", _config(variant, seed))
    warnings = ["dead share 12 % at the end"] if (variant, seed) == ("standard", 1) else []
    _json(run / "health.json", {"healthy": True, "problems": [], "warnings": warnings})
    dead = density.count(0.0) / L
    _json(run / "eval" / "core.json", {"eval": "core", "facts": {}, "scores": scores | {"dead": {"value": dead}},
          "compatible": {"explained_variance": _score(rng, 0.9, 0.004)}, "latents": {"density": density},
          "tables": {}, "figures": [_densities(density)]})  # fmt: skip
    _json(
        run / "eval" / "latents.json",
        {"latents": [_latent(rng, index, contexts) for index in range(16)]},
    )
    with (run / "metrics.jsonl").open("w") as file:
        for step in range(0, 489, 2):
            at = step / 488
            line = {
                "step": step,
                "tokens": step * 2048,
                "loss": (30 * math.exp(-4 * at) + 9 + rng.random()) / quality,
                "losses": {},
                "l0": 32 + 90 * (quality - 0.7) * math.exp(-9 * at),
                "explained_variance": quality * (1 - math.exp(-7 * at)),
                "dead": (1 - quality) * 0.2 * at,
                "lr": 1e-3,
                "coefficient": None,
            }
            file.write(json.dumps(line) + "\n")
    short = {
        key: {bound: score[bound] for bound in ("value", "low", "high")}
        for key, score in scores.items()
        if key != "l2_ratio"
    }
    return {
        "variant": variant,
        "seed": seed,
        "l0": scores["l0"]["value"],
        "healthy": True,
        "metrics": short,
        "run": name,
    }


def _densities(density: list[float]) -> dict[str, Any]:
    """Shares of latents by the power of ten of their density, and the dead ones."""
    alive = [math.log10(value) for value in density if value]
    bins = [sum(-i <= value < 1 - i for value in alive) / L for i in range(5, 0, -1)]
    return {
        "kind": "steps",
        "key": "density",
        "title": "Firing densities",
        "note": f"What to look for. {HOSTILE}",
        "x": {"label": "log10 of the share of tokens"},
        "y": {"label": "share of latents"},
        "edges": [-5, -4, -3, -2, -1, 0],
        "counts": {"latents": bins},
        "apart": {"dead": density.count(0.0) / L},
    }


def _latent(rng: random.Random, index: int, contexts: int) -> dict[str, Any]:
    windows = []
    for window in range(contexts):
        tokens = [rng.choice(WORDS) for _ in range(40)]
        if window == 0:
            tokens[5] = HOSTILE
        activations = [rng.uniform(0.5, 6) if rng.random() < 0.15 else 0.0 for _ in tokens]
        activations[20] = 7.0 - 0.3 * window
        windows.append(
            {
                "tokens": tokens,
                "activations": activations,
                "peak": 20,
                "doc": 17 + window,
                "window": window,
            }
        )
    values = [[rng.choice(WORDS), 2.1 - 0.2 * i] for i in range(8)]
    return {
        "index": 31 * index + 5,
        "density": 0.01 + 0.002 * index,
        "mean_activation": 2.2,
        "contexts": windows,
        "chosen_for": ("effect", "breadth", "selectivity")[index % 3],
        "max_activation": 7.0,
        "histogram": [900, 420, 240, 130, 80, 44, 21, 9, 3, 1],
        "edges": [0.7 * i for i in range(11)],
        "promoted": values,
        "suppressed": [[token, -value] for token, value in values],
    }


def _zero_run(folder: Path, rng: random.Random) -> dict[str, Any]:
    """The published failure: an all-zero SAE. Its cosine is undefined, its L0 is 0; it has no curve and no latents."""
    name = "all_zero-0-0b5e000000aa"
    run = folder / "runs" / name
    undefined = {
        "value": None,
        "low": None,
        "high": None,
        "reason": "the reconstruction is zero everywhere",
    }
    metrics = {
        "explained_variance": _score(rng, -0.31, 0.02),
        "cossim": undefined,
        "ce_loss_score": _score(rng, 0.0, 0.001),
    }
    _json(run / "run.json", _config("all_zero", 0))
    _json(
        run / "health.json",
        {"healthy": False, "problems": ["L0 is 0: no latent is ever active"], "warnings": []},
    )
    _json(
        run / "eval" / "core.json",
        {
            "scores": metrics,
            "latents": {"density": [0.0] * L, "mean_activation": [None] * L},
            "tables": {},
            "figures": [_densities([0.0] * L)],
        },
    )
    return {
        "variant": "all_zero",
        "seed": 0,
        "l0": 0.0,
        "healthy": False,
        "metrics": metrics,
        "run": name,
    }
