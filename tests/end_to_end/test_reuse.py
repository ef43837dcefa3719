"""Rows that several plans share are trained once: `saelab run ... --reuse FOLDER`."""

import json

import pytest

from helpers import tiny_checkpoint, tiny_corpus
from saelab.cli import main
from saelab.store import file_hash, read_json

PLAN = """
from saelab import Plan, Run, Source, Spec

def plan():
    source = Source({model!r}, {corpus!r}, "layers.1", 64, tokens=3_000, batch=500, eval_windows=16)
    return Plan({name!r}, tuple(Run(Spec(v, n_latents=64, l0=8, label=label), source) for v, label in {rows}))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reuse")
    tiny_checkpoint(folder / "model", "llama")
    tiny_corpus(folder / "text.txt", documents=200)
    write(folder, "base", [("topk", ""), ("batch_topk", "")])
    assert main(["run", str(folder / "base.py"), "--out", str(folder / "base")]) == 0
    return folder


def write(folder, name, rows):
    text = PLAN.format(
        model=str(folder / "model"), corpus=str(folder / "text.txt"), name=name, rows=rows
    )
    (folder / f"{name}.py").write_text(text)


def test_a_run_is_found_by_its_content_whatever_its_row_is_called(place, capsys):
    write(place, "more", [("topk", "the_base"), ("standard", "")])
    command = [
        "run",
        str(place / "more.py"),
        "--out",
        str(place / "more"),
        "--reuse",
        str(place / "base"),
    ]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "1 run taken over from" in text and "training 1 run for 6 steps" in text
    (theirs,) = (place / "base" / "runs").glob("topk-s0-*")
    (ours,) = (place / "more" / "runs").glob("the_base-s0-*")
    assert theirs.name[-8:] == ours.name[-8:]
    for file in ("sae/sae.safetensors", "metrics.jsonl", "eval/core.json", "health.json"):
        assert file_hash(ours / file) == file_hash(theirs / file)
    assert [row["variant"] for row in read_json(place / "more" / "summary.json")["rows"]] == [
        "the_base",
        "standard",
    ]


def test_other_weights_and_damage_are_trained_anew(place, capsys):
    write(place, "third", [("topk", ""), ("batch_topk", "")])
    base = place / "base" / "runs"
    path = next(base.glob("topk-s0-*")) / "sae" / "sae.json"
    whole = path.read_text()
    record = json.loads(whole)
    record["meta"]["facts"]["weights_hash"] = "another"
    path.write_text(json.dumps(record))
    broken = next(base.glob("batch_topk-s0-*")) / "run.json"
    kept = broken.read_text()
    broken.write_text("{")
    assert (
        main(
            [
                "run",
                str(place / "third.py"),
                "--out",
                str(place / "third"),
                "--reuse",
                str(place / "base"),
            ]
        )
        == 0
    )
    text = capsys.readouterr().out
    assert (
        "was trained on other weights of the model (another, here" in text
        and "training 2 runs" in text
    )
    path.write_text(whole)
    broken.write_text(kept)


def test_a_folder_without_runs_is_refused(place, tmp_path, capsys):
    assert (
        main(
            [
                "run",
                str(place / "base.py"),
                "--out",
                str(tmp_path / "out"),
                "--reuse",
                str(tmp_path),
            ]
        )
        == 2
    )
    assert "holds no runs to take over" in capsys.readouterr().err
