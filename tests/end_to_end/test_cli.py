"""The command line on a tiny random model: what a user types, sees, and gets."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import saelab
from helpers import given, runs_of, small, tiny_checkpoint, tiny_corpus, tiny_place
from saelab.cli import COMMANDS, main
from saelab.experiments.compare.summary import Summary
from saelab.experiments.run.lock import LOCK
from saelab.runs import Spec
from saelab.store import read_json
from saelab.variants import BASES, PARTS, ROWS

SMALL = small()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_place(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "out"
    assert (
        main(["train", "batch_topk", *given(world), *SMALL, "--seeds", "0", "1", "--out", str(out)])
        == 0
    )
    return out


# What a run leaves behind -------------------------------------------------------------------------


def test_summary_has_the_promised_shape(trained):
    summary = read_json(trained / "summary.json")
    assert [row["seed"] for row in summary["rows"]] == [0, 1]
    for row in summary["rows"]:
        assert set(row) == {"variant", "seed", "l0", "healthy", "metrics", "run"}
        assert row["variant"] == "batch_topk" and row["healthy"] is True
        assert row["l0"] == pytest.approx(8, rel=0.1)
        score = row["metrics"]["explained_variance"]
        assert 0 < score["low"] < score["value"] < score["high"] < 1
        assert (trained / "runs" / row["run"] / "eval" / "core.json").exists()
    assert summary["contrasts"] == []
    facts = summary["facts"]
    assert (
        facts["hook"] == "blocks.1.hook_resid_post"
        and facts["tokens"] == 20_000
        and facts["seeds"] == [0, 1]
    )
    assert facts["throughput_tokens_per_s"] > 0 and facts["peak_rss_mb"] > 50
    assert len(facts["corpus_hash"]) == 16 and 0 < facts["dropped_tokens_share"] < 0.1
    assert facts["versions"]["torch"] == torch.__version__


def test_run_folder_is_complete(trained):
    for run in runs_of(trained):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        # 39 steps, each recorded once
        assert [line["step"] for line in lines] == list(range(1, 40))
        assert {"loss", "losses", "l0", "explained_variance", "dead", "lr", "tokens"} <= set(
            lines[0]
        )
        assert len(list((run / "eval" / "saebench").glob("*_eval_results.json"))) == 1
    assert "<html" in (trained / "report.html").read_text()
    assert not (trained / "checkpoints").exists()


def test_the_same_command_again_does_nothing(trained, world, capsys):
    before = [path.stat().st_mtime_ns for path in trained.rglob("*.safetensors")]
    seconds = read_json(trained / "summary.json")["facts"]["seconds"]
    command = ["train", "batch_topk", *given(world), *SMALL, "--seeds", "0", "1"]
    assert main([*command, "--out", str(trained)]) == 0
    assert "2 of 2 runs are done already" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in trained.rglob("*.safetensors")] == before
    assert read_json(trained / "summary.json")["facts"]["seconds"] == seconds


def test_eval_again_gives_the_same_numbers(trained, capsys):
    run = runs_of(trained)[0]
    before = read_json(run / "eval" / "core.json")["scores"]
    assert main(["eval", str(run)]) == 0
    assert read_json(run / "eval" / "core.json")["scores"] == before
    assert read_json(run / "summary.json")["rows"][0]["run"] == run.name
    assert main(["report", str(trained)]) == 0
    assert str(trained / "report.html") in capsys.readouterr().out


def test_eval_on_another_text_leaves_the_runs_own_numbers(trained, tmp_path, capsys):
    run = runs_of(trained)[1]
    before = (run / "eval" / "core.json").read_bytes()
    other = tiny_corpus(tmp_path / "other.txt", documents=220, words=25)
    assert main(["eval", str(run), "--corpus", str(other)]) == 0
    assert (run / "eval" / "core.json").read_bytes() == before
    (folder,) = run.glob("eval-*")
    summary = read_json(folder / "summary.json")
    assert summary["facts"]["corpus"] == str(other) and summary["rows"][0]["run"] == run.name
    assert (folder / "report.html").exists()


def test_an_all_zero_sae_is_never_a_silent_number(trained, world, tmp_path, capsys):
    sae, folder = saelab.load_sae(runs_of(trained)[0]), tmp_path / "zero"
    sae.load_state_dict({key: torch.zeros_like(value) for key, value in sae.state_dict().items()})
    saelab.save_sae(sae, folder, sae.meta)
    assert main(["eval", str(folder)]) == 1
    row = read_json(tmp_path / "zero-eval" / "summary.json")["rows"][0]
    assert row["healthy"] is False and row["l0"] == 0
    assert row["metrics"]["cossim"]["value"] is None and row["metrics"]["cossim"]["reason"]
    assert "NothingActive" in capsys.readouterr().err
    report = (tmp_path / "zero-eval" / "report.html").read_text()
    assert "NothingActive" in report and 'class="alarm"' in report


def test_python_in_ten_lines(world, tmp_path):

    source = saelab.Source(
        str(world / "model"), str(world / "text.txt"), "layers.1", 64, tokens=5_000, batch=500
    )
    run = saelab.Run(saelab.Spec("topk", n_latents=64, l0=8), source)
    result = saelab.train_sae(run, tmp_path / "first")
    value = result.metrics["explained_variance"].value
    assert value is not None and 0 < value < 1
    assert saelab.load_sae(result.folder / "sae").n_latents == 64
    again = saelab.evaluate(result.folder / "sae")
    assert again.rows[0]["metrics"]["explained_variance"]["value"] == value


# Plans --------------------------------------------------------------------------------------------

PLAN = """
from saelab import Contrast, Plan, Run, Source, Spec

def plan():
    source = Source({model!r}, {corpus!r}, "layers.1", 64, tokens=6_000, batch=500, eval_windows=32)
    runs = tuple(Run(Spec(v, n_latents=64, l0=8), source, seed=s) for v in {variants} for s in (0, 1))
    return Plan("small", runs, (Contrast("explained_variance", "topk", "batch_topk"),))
"""


def test_a_plan_is_judged_and_grows(world, tmp_path, capsys):
    paths = {"model": str(world / "model"), "corpus": str(world / "text.txt")}
    (tmp_path / "p.py").write_text(PLAN.format(variants=("topk", "batch_topk"), **paths))
    out = tmp_path / "out"
    assert main(["run", str(tmp_path / "p.py"), "--out", str(out)]) == 0
    (contrast,) = read_json(out / "summary.json")["contrasts"]
    assert (contrast["baseline"], contrast["treatment"], contrast["metric"]) == (
        "topk",
        "batch_topk",
        "explained_variance",
    )
    assert contrast["verdict"] in ("better", "worse", "no difference shown", "not comparable")
    (tmp_path / "p.py").write_text(
        PLAN.format(variants=("topk", "batch_topk", "matryoshka"), **paths)
    )
    capsys.readouterr()
    assert main(["run", str(tmp_path / "p.py"), "--out", str(out)]) == 0
    assert "4 of 6 runs are done already" in capsys.readouterr().out
    assert len(read_json(out / "summary.json")["rows"]) == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", "has no function plan()"),
        ("def plan():\n    return 3\n", "returned int; return a saelab Plan"),
        ("def plan():\n    return Plam()\n", "line 2: NameError: name 'Plam' is not defined"),
        ("def plan(:\n", "line 1: SyntaxError"),
        ("from saelab import Plan\ndef plan():\n    return Plan('p', ())\n", "has no runs"),
    ],
)
def test_bad_plan_files(text, words, tmp_path, capsys):
    (tmp_path / "p.py").write_text(text)
    assert main(["run", str(tmp_path / "p.py"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"variant": "batchtopk"}, "unknown variant 'batchtopk' (did you mean 'batch_topk'?)"),
        ({"--hook": "layers.9"}, "9"),
        ({"--hook": "laiers.1"}, "layers.1"),
        ({"--l0": "64"}, "l0 is 64; it must be above 0 and below the number of latents, 64"),
        ({"--l0": "0"}, "l0 is 0"),
        ({"--tokens": "0"}, "tokens must be positive"),
        ({"--tokens": "-5"}, "tokens must be positive; got -5"),
        (
            {"--tokens": "1000", "--batch": "2048"},
            "1,000 tokens are fewer than one batch of 2,048: 0 training steps",
        ),
        ({"--corpus": "nowhere.txt"}, "no corpus nowhere.txt"),
        ({"--corpus": "empty.txt"}, "is empty"),
        ({"--corpus": "latin.txt"}, "is not UTF-8"),
        ({"--model": "nowhere/at/all"}, "no model folder nowhere/at/all"),
        ({"--evals": "cora"}, "did you mean 'core'?"),
        ({"variant": "topk:auxx=1"}, "topk has no setting 'auxx' (did you mean 'aux'?)"),
        ({"variant": "topk:aux"}, "'aux' is not SETTING=NUMBER"),
        ({"variant": "topk+metrik"}, "no part is called 'metrik' (did you mean 'metric'?)"),
        ({"--lr": "0"}, "lr is 0; it must be above 0"),
        ({"--seeds": "-1"}, "seed is -1"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(flags, words, world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("")
    Path("latin.txt").write_bytes("caf\u00e9 ".encode("latin-1") * 900)
    flags = dict(flags)
    words_of_command = [
        "train",
        flags.pop("variant", "batch_topk"),
        *given(world),
        *SMALL,
        "--out",
        "out",
    ]
    for name, value in flags.items():
        words_of_command += [name, value]
    assert main(words_of_command) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error and len(error.strip().splitlines()) == 1
    assert not Path("out").exists()


def test_unknown_words_are_answered_with_the_nearest(world, capsys):
    assert main(["trian", "topk"]) == 2
    assert "did you mean 'train'?" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["train", "topk", "--modle", "x"])
    assert stop.value.code == 2 and "--model" in capsys.readouterr().err


def test_a_folder_of_another_run_is_refused(trained, world, capsys):
    assert main(["train", "topk", *given(world), *SMALL, "--out", str(trained)]) == 2
    error = capsys.readouterr().err
    assert "topk-s0-" in error and "batch_topk-" in error


def test_folders_without_results(tmp_path, trained, capsys):
    assert main(["eval", str(tmp_path / "nothing")]) == 2
    assert main(["eval", str(trained)]) == 2
    assert "give one of its runs" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2


def test_a_broken_model_names_layer_and_batch(world, tmp_path, capsys):
    tiny_checkpoint(tmp_path / "broken", "llama")
    path = tmp_path / "broken" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    words = ["--model", str(tmp_path / "broken"), "--corpus", str(world / "text.txt"), *SMALL]
    assert main(["train", "topk", *words, "--out", str(tmp_path / "out")]) == 2
    assert re.search(r"NaN or infinite at layer 1 .* in LM batch 0", capsys.readouterr().err)


def test_a_diverging_run_is_marked_and_fails(world, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["train", "batch_topk", *given(world), *SMALL, "--lr", "1e38", "--out", str(out)]) == 1
    )
    error = capsys.readouterr().err
    assert (
        "NonFiniteTraining" in error and "batch_topk, seed 0" in error and "Traceback" not in error
    )
    (row,) = read_json(out / "summary.json")["rows"]
    assert row["healthy"] is False and row["l0"] is None and row["metrics"] == {}
    assert "NonFiniteTraining" in (out / "report.html").read_text()


def test_a_full_disk_leaves_nothing_half_written(world, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    command = ["train", "topk", *given(world), *SMALL, "--out", str(out)]
    real, written = os.fsync, []

    def full(descriptor):
        written.append(descriptor)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert (
        "the disk is full" in error
        and "run the same command again" in error
        and "Traceback" not in error
    )
    assert not [path for path in out.rglob("*") if path.name.startswith(".") and path.name != LOCK]
    monkeypatch.setattr(os, "fsync", real)
    assert main(command) == 0


def test_too_little_disk_is_said_before_training(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _folder: shutil._ntuple_diskusage(10**6, 9 * 10**5, 10**5)
    )
    assert main(["train", "topk", *given(world), *SMALL, "--out", str(tmp_path / "out")]) == 2
    assert "results and checkpoints need 0.1 MB, 0.1 MB are free" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.safetensors"))


# Stopping and going on ----------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_named(world, tmp_path, monkeypatch, capsys):
    from saelab.experiments.run import group

    out = tmp_path / "out"
    command = ["train", "topk", *given(world), *SMALL, "--out", str(out)]

    def stop(*_args, **_kwargs):
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(group, "append_line", stop)
        assert main(command) == 130
    assert "To go on: saelab train topk" in capsys.readouterr().err
    (checkpoint,) = (out / "checkpoints").iterdir()
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert main(command) == 2
    error = capsys.readouterr().err
    assert str(checkpoint) in error and "remove it" in error
    checkpoint.unlink()
    assert main(command) == 0


# Help ---------------------------------------------------------------------------------------------


def test_help_names_everything(capsys):
    with pytest.raises(SystemExit):
        main([])
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert "activations to train on" in text and "--n_latents" in text
    assert all(name in text for name in (*BASES, *PARTS, *ROWS))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_explained(command):
    """In the docstring of its command, or where its type is named."""
    function = COMMANDS[command]
    for name, kind in function.__annotations__.items():
        own = any(getattr(item, "help", None) for item in getattr(kind, "__metadata__", ()))
        assert own or name == "return" or f"\n        {name}: " in function.__doc__, name


def test_train_takes_a_base_with_its_parts(monkeypatch):
    plans = []

    def keep(plan, *_, **__):
        plans.append(plan)
        return Summary(Path(), (), (), (), {}, {})

    monkeypatch.setattr("saelab.cli._carry_out", keep)
    command = ["train", "batch_topk:refine=.15+metric:weight=4", "--l0", "8", "--n_latents", "64"]
    assert main(command) == 0
    (run,) = plans[0].runs
    parts = {"metric": {"weight": 4}}
    assert run.spec == Spec("batch_topk", 64, 8, {"refine": 0.15}, parts=parts)
    assert plans[0].name.startswith("batch_topk-metric-s0-")


def test_help_is_light():
    code = "import sys; import saelab.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "transformers", "matplotlib", "scipy"} & set(loaded)


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert torch.__version__ in text and "embedded model" in text
