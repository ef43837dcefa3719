"""One executor for models and worlds: `saelab run` and `saelab eval` on either, in processes."""

import pytest

from helpers import tiny_place, weights
from saelab.cli import main
from saelab.experiments.plan import run_id
from saelab.runs import Run, Spec, WorldSource
from saelab.store import file_hash, read_json

MODEL = """
from saelab import Plan, Run, Source, Spec

def plan():
    source = Source({model!r}, {corpus!r}, "layers.1", 64, tokens=3_000, batch=500, eval_windows=16)
    return Plan("two", tuple(Run(Spec("topk", 64, 8), source, seed=seed) for seed in (0, 1)))
"""
# two worlds that are measured in a moment
WORLDS = """
from saelab.experiments.tables.table import WorldTable, plan_of

def plan():
    changes = {{"steps": 20}}
    return [plan_of(WorldTable(w, ("topk", "frozen"), (0, 1), changes=changes)) for w in {worlds}]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grounds")
    model, corpus = folder / "model", folder / "text.txt"
    tiny_place(folder)
    (folder / "model.py").write_text(MODEL.format(model=str(model), corpus=str(corpus)))
    (folder / "worlds.py").write_text(WORLDS.format(worlds=("s3c", "s2")))
    (folder / "s2.py").write_text(WORLDS.format(worlds=("s2",)))
    return folder


def carry_out(place, plan, out, *more):
    return main(["run", str(place / f"{plan}.py"), "--out", str(place / out), *more])


def test_runs_on_one_stream_are_shared_out_among_processes(place, capsys):
    cache = ("--cache", str(place / "cache"))
    assert carry_out(place, "model", "one", "--threads", "1") == 0
    assert carry_out(place, "model", "two", "--threads", "1", "--jobs", "2", *cache) == 0
    text = capsys.readouterr().out
    assert "training 2 SAEs for 6 steps of 500 activations each, 2 groups in 2 processes" in text
    assert text.count("caching ") == 1 and text.count("training reads its activations from") == 3
    hashes = [
        [file_hash(path) for path in sorted((place / out).glob(f"runs/*/{file}"))]
        for out in ("one", "two")
        for file in ("sae/sae.safetensors", "eval/core.json")
    ]
    assert len(hashes[0]) == 2 and hashes[:2] == hashes[2:]


def test_a_plan_over_worlds_and_an_sae_of_one(place, capsys):
    assert carry_out(place, "worlds", "worlds", "--cache", str(place / "cache")) == 0
    text = capsys.readouterr().out
    assert text.count("nothing of it is cached") == 2  # once a plan
    assert "World s3c: means over 2 seeds" in text and "World s2: means over 2 seeds" in text
    (home,) = (place / "worlds").glob("synth-s3c-*")
    assert read_json(home / "summary.json")["facts"]["world"] == "s3c"
    run = next((home / "runs").glob("topk-s0-*"))
    kept = {path.name: path.read_bytes() for path in (run / "eval").glob("*.json")}
    assert kept.keys() == {"truth.json", "temporal_world.json"}
    assert main(["eval", str(run)]) == 0
    assert kept == {path.name: path.read_bytes() for path in (run / "eval").glob("*.json")}
    capsys.readouterr()
    assert main(["eval", str(run), "--corpus", "stdlib"]) == 2
    assert (
        "was trained on the world 's3c', which has no corpus to change" in capsys.readouterr().err
    )
    assert main(["eval", str(run), "--evals", "core"]) == 2
    assert "evaluations that cannot run on world 's3c': core: " in capsys.readouterr().err


def test_runs_of_a_world_are_taken_over(place, capsys):
    assert carry_out(place, "s2", "first") == 0
    assert carry_out(place, "s2", "more", "--reuse", str(place / "first")) == 0
    assert capsys.readouterr().out.count("2 runs taken over from") == 2  # a seed at a time
    assert len(weights(place / "first")) == 4 and weights(place / "more") == weights(
        place / "first"
    )


def test_runs_keep_their_ids():
    source = WorldSource("s1", {"p": 0.1}, 1_024, 512, 3)
    assert run_id(Run(Spec("topk", 64, 4.0), source, seed=3)).startswith("2b0c731c")
    assert run_id(Run(Spec("batch_topk", 64, 4.0, {"anneal": 3}, "row"), source)).startswith(
        "d03702f2"
    )
