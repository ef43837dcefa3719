"""Run folders as the first edition wrote them (commit fc3fc75) are still read: `saelab report` and
`saelab eval`.
"""

import json

import pytest
import torch

from saelab.cli import main
from saelab.experiments.evaluate.score import read_scores
from saelab.experiments.folders import RunFolder, stored_run
from saelab.runs import Optim, Run, Source, Spec, WorldSource
from saelab.store import read_json, write_json, write_tensors

# as written then, identity included: no parts, evaluations called `nces` in worlds too
OPTIM = {
    "lr": 0.01,
    "warmup": 100,
    "decay": 0.33,
    "beta1": 0.9,
    "beta2": 0.999,
    "clip": 1.0,
    "dead_after": 50000,
    "amp": "none",
}
OF_WORLD = {
    "spec": {
        "variant": "batch_topk",
        "n_latents": 64,
        "l0": 4,
        "settings": {"anneal": 3},
        "label": "",
    },
    "source": {"world": "s1", "settings": {}, "tokens": 61440, "batch": 1024, "seed": 0},
    "optim": OPTIM,
    "seed": 0,
}
OF_MODEL = {
    "spec": {"variant": "topk", "n_latents": 64, "l0": 8.0, "settings": {}, "label": ""},
    "source": {
        "model": "pylm",
        "corpus": "stdlib",
        "hook": "middle",
        "context": 64,
        "tokens": 60000,
        "batch": 512,
        "buffer": 65536,
        "lm_batch": 32,
        "max_norm": None,
        "text_column": "text",
        "eval_windows": 256,
        "seed": 0,
    },
    "optim": {**OPTIM, "lr": None, "warmup": 50, "decay": 0.3, "dead_after": None},
    "seed": 0,
}
LINE = {
    "coefficient": None,
    "dead": 0.0,
    "explained_variance": 0.2,
    "l0": 8.0,
    "loss": 0.7,
    "losses": {"mse": 0.7},
    "lr": 1e-4,
    "step": 1,
    "tokens": 1024,
}


def score(value, better):
    return {"value": value, "low": None, "high": None, "n": 9, "better": better, "reason": ""}


def write_run(home, name, identity, config, sae, results):
    folder = home / "runs" / f"{name}-{identity[:8]}"
    write_json(folder / "run.json", {"format": 1, "id": identity, **config})
    (folder / "metrics.jsonl").write_text(json.dumps(LINE) + "\n")
    write_json(folder / "health.json", {"healthy": True, "problems": [], "warnings": []})
    d_in = sae.pop("d_in")
    record = {
        "format": 1,
        "d_in": d_in,
        "n_latents": 64,
        **sae,
        "refine": 0.0,
        "leave_one_out": 0.0,
        "blocks": {},
        "meta": {"run": config, "facts": {"d_in": d_in}},
    }
    write_json(folder / "sae" / "sae.json", record)
    eye = torch.eye(64, d_in)
    tensors = {"W_dec": eye, "W_enc": eye.T, "b_dec": torch.zeros(d_in), "b_enc": torch.zeros(64)}
    if sae["activation"] == "batch_topk":
        tensors["act.threshold"] = torch.tensor(0.5)
    write_tensors(folder / "sae" / "sae.safetensors", tensors)
    for evaluation, result in results.items():
        write_json(folder / "eval" / f"{evaluation}.json", {"eval": evaluation, **result})
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An output folder with a run of a world and one of a model, as no plan had it."""
    home = tmp_path_factory.mktemp("older")
    kept = {"activation": "batch_topk", "activation_config": {"k": 4.0}, "d_in": 64}
    truth = {"mcc": score(0.44, "higher"), "l0": score(4.0, "neither")}
    nces = {"causal_mcc": score(0.17, "higher")}
    world = write_run(
        home,
        "batch_topk-s0",
        "87f7d6001f77",
        OF_WORLD,
        kept | {"hook": "blocks.0.hook_resid_post"},
        {
            "truth": {"interval": "over seeds", "scores": truth, "details": {}},
            "nces": {"interval": "over seeds", "scores": nces, "details": {}},
        },
    )
    core = {"explained_variance": score(0.46, "higher"), "l0": score(8.0, "neither")}
    model = write_run(
        home,
        "topk-s0",
        "21c2339eb678",
        OF_MODEL,
        {
            "activation": "topk",
            "activation_config": {"k": 8.0},
            "d_in": 256,
            "hook": "blocks.1.hook_resid_post",
        },
        {
            "core": {
                "facts": {"tokens": 9},
                "scores": core,
                "compatible": {},
                "density_histogram": {"edges": [], "counts": [], "dead": 0},
                "latents": {},
            }
        },
    )
    row = {"seed": 0, "healthy": True}
    rows = [
        row | {"variant": "batch_topk", "l0": 4.0, "metrics": truth, "run": world.name},
        row | {"variant": "topk", "l0": 8.0, "metrics": core, "run": model.name},
    ]
    contrast = {"metric": "mcc", "baseline": "topk", "treatment": "batch_topk", "value": 0.1}
    contrast |= {"low": 0.05, "high": 0.15, "verdict": "better"}
    write_json(home / "summary.json", {"rows": rows, "contrasts": [contrast], "facts": {}})
    return home


def test_runs_keep_their_identity(home):
    world, model = sorted((home / "runs").iterdir())
    spec = Spec("batch_topk", 64, 4, {"anneal": 3})
    optim = Optim(lr=0.01, warmup=100, decay=0.33, dead_after=50_000)
    run = Run(spec, WorldSource("s1", {}, 61_440, 1_024), optim)
    assert stored_run(world) == run and RunFolder(world, run).name == world.name
    source = Source(context=64, tokens=60_000, batch=512)
    assert stored_run(model) == Run(Spec("topk", 64, 8.0), source)
    assert RunFolder(model, stored_run(model)).load().n_latents == 64
    scores = read_scores(model, ("core",))
    assert scores["explained_variance"].value == 0.46


def test_a_page_is_made_of_what_is_there(home, capsys):
    assert main(["report", str(home)]) == 0
    assert capsys.readouterr().out.startswith("report ")
    page = (home / "report.html").read_text()
    assert "0.4600" in page and "older version" in page
    assert "saelab eval RUN" in page and "cannot be read" not in page
    for folder in sorted((home / "runs").iterdir()):
        assert main(["report", str(folder)]) == 0


def test_an_evaluation_is_made_anew(home, capsys):
    folder = next((home / "runs").glob("batch_topk-*"))
    record = (folder / "run.json").read_bytes()
    assert main(["eval", str(folder), "--evals", "truth"]) == 0
    assert "evaluating" in capsys.readouterr().out
    assert {"scores", "tables", "figures"} <= set(read_json(folder / "eval" / "truth.json"))
    assert (folder / "run.json").read_bytes() == record
    (row,) = read_json(folder / "summary.json")["rows"]
    assert row["run"] == folder.name and row["metrics"]["explained_variance"]["value"] > 0
