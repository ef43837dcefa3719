"""`python experiment.py --out_dir=run_1`: the script as it is driven, on a tiny random model."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import tiny_checkpoint, tiny_corpus
from saelab.experiments.compare.summary import Summary
from saelab.experiments.listen import Silent
from saelab.experiments.run.lock import locked
from saelab.experiments.script.bench import run_script
from saelab.sae.io import load_sae
from saelab.train import UnhealthyRun

ROOT = Path(__file__).parents[2]
SMALL = {
    "model_name": '"model"',
    "corpus": '"text.txt"',
    "layers": "[1, 2]",
    "dict_size": "64",
    "num_tokens": "20_000",
    "context_length": "64",
    "l0": "8",
    "sae_batch_size": "500",
    "warmup_steps": "10",
    "learning_rate": "None",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    tiny_checkpoint(folder / "model", "llama")
    tiny_corpus(folder / "text.txt", documents=300)
    return folder


@pytest.fixture
def bench(home, monkeypatch):
    monkeypatch.chdir(home)
    for path in [*home.glob("run_*"), *home.glob("notes.txt")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return home / "experiment.py"


def script(path, changes=None, edit=("", "")):
    """The repository's script with small constants and one edit."""
    text = (ROOT / "experiment.py").read_text()
    for name, value in (SMALL | (changes or {})).items():
        text, count = re.subn(rf"(?m)^{name}( *: [^=]+)? = .*$", f"{name} = {value}", text)
        assert count == 1, name
    assert edit[0] in text
    path.write_text(text.replace(*edit) if edit[0] else text)


def block_of(notes):
    text = notes.read_text()
    start, last = text.index("## run_1 (written by saelab)\n"), "## end of run_1\n"
    return text[start : text.index(last) + len(last)]


def drive(path, monkeypatch, out="run_1", more=()):
    """Run the script's main part in this process: exit code, or 0."""
    monkeypatch.setattr(sys, "argv", [path.name, f"--out_dir={out}", *more])
    names = {"__file__": str(path), "__name__": "script"}
    exec(compile(path.read_text(), str(path), "exec"), names)
    try:
        run_script(names, Silent())
    except SystemExit as stop:
        return stop.code
    return 0


def test_final_info_has_the_structure_its_readers_know(bench):
    """As a person types it: a process of its own."""
    script(bench)
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, bench.name, "--out_dir=run_1"],
        capture_output=True,
        text=True,
        env=one_thread,
    )
    assert done.returncode == 0, done.stderr
    info = json.loads(Path("run_1/final_info.json").read_text())
    assert list(info) == ["model_layer_1", "model_layer_2"]
    for name, entry in info.items():
        assert set(entry) == {"means", "stderrs", "final_info_dict"}
        means, values = entry["means"], entry["final_info_dict"]
        assert (
            means["training_steps"] == 40
            and means["dict_size"] == 64
            and means["sparsity_penalty"] == 0
        )
        assert means["layer"] == int(name[-1])
        assert means["learning_rate"] > 0 and means["final_loss"] > 0
        # a value per seed
        assert len(values["explained_variance"]) == 2 == len(set(values["explained_variance"]))
        assert means["explained_variance"] == pytest.approx(sum(values["explained_variance"]) / 2)
        spread = abs(values["explained_variance"][0] - values["explained_variance"][1])
        assert entry["stderrs"]["explained_variance"] == pytest.approx(spread / 2)
    folders = sorted(Path("run_1/runs").glob("*/sae"))
    assert len(folders) == 4
    assert sorted(load_sae(folder).hook.layer for folder in folders) == [1, 1, 2, 2]
    assert Path("run_1/report.html").exists()
    assert (
        Path("notes.txt").read_text().startswith("## run_1 (written by saelab)\nmodel_layer_1: l0 ")
    )


def test_finished_changed_failed(bench, monkeypatch, capsys):
    script(bench, {"layers": "[1]", "seeds": "[0]"})
    assert drive(bench, monkeypatch) == 0
    written = Path("run_1/final_info.json").stat().st_mtime_ns
    assert drive(bench, monkeypatch) == 0  # identical: left alone
    assert Path("run_1/final_info.json").stat().st_mtime_ns == written
    assert not list(Path().glob("run_1.failed-*"))

    notes = Path("notes.txt")
    notes.write_text(f"First of all: why?\n{notes.read_text()}## run_1\nIt converges early.\n")
    mine = notes.read_text().replace(block_of(notes), "")
    (first,) = Path("run_1/runs").iterdir()
    script(bench, {"layers": "[1]", "seeds": "[0]", "overlap_weight": "0.02"})
    assert drive(bench, monkeypatch) == 2
    end = capsys.readouterr().err[-1500:]
    assert "holds a finished experiment of another script" in end and "--replace" in end
    assert Path("run_1/final_info.json").stat().st_mtime_ns == written

    before = block_of(notes)
    assert drive(bench, monkeypatch, more=("--replace",)) == 0
    assert Path("run_1.before-1/final_info.json").stat().st_mtime_ns == written
    assert [folder.name for folder in Path("run_1/runs").iterdir()] != [first.name]
    assert block_of(notes) != before and notes.read_text().replace(block_of(notes), "") == mine

    script(bench, {"layers": "[1]", "seeds": "[2]"})
    monkeypatch.setattr(Summary, "check", unhealthy)
    assert drive(bench, monkeypatch, more=("--replace",)) == 1
    assert "FAILED  cause: 1 of 1 runs is unhealthy" in capsys.readouterr().err[-1500:]
    assert Path("run_1/failed.txt").exists() and not Path("run_1/final_info.json").exists()
    assert drive(bench, monkeypatch) == 1  # started anew, the failed one kept
    assert Path("run_1.failed-1/failed.txt").exists()


def unhealthy(_summary):
    raise UnhealthyRun("1 of 1 runs is unhealthy")


def test_an_interrupted_experiment_goes_on(bench, monkeypatch, capsys):
    script(bench, {"layers": "[1]", "seeds": "[0]"})
    from saelab.experiments.run import task

    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(task, "_evaluate", stop)
        assert drive(bench, monkeypatch) == 130
    assert "run the same command again" in capsys.readouterr().err
    (sae,) = Path("run_1").glob("runs/*/sae/sae.safetensors")
    written = sae.stat().st_mtime_ns
    assert drive(bench, monkeypatch) == 0
    assert sae.stat().st_mtime_ns == written and not list(Path().glob("run_1.failed-*"))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            ("firing = (step.z > 0)", "firing = (stp.z > 0)"),
            ["NameError: name 'stp' is not defined", "line ", "cure:", "define it"],
        ),
        (
            ("firing = (step.z > 0)", "firing = (step.zz > 0)"),
            ["no attribute 'zz'", "line ", "cure:", "(did you mean 'z'?); it has batch", "x_hat"],
        ),
        (
            ("step.sae.W_dec[picked]", "step.sae.W_dec[picked] @ step.z"),
            ["RuntimeError", "W_dec[picked] @ step.z", "cure:", "[N, L]"],
        ),
        (
            ("return cosines.square().mean()", "return cosines"),
            ["term 'overlap' returned a tensor of shape", ".mean()"],
        ),
        (
            ("dict_size, l0=l0)", "dict_size * 2, l0=l0)"),
            ["build made an SAE of 32 x 128", "32 x 64"],
        ),
        (
            ("    return replace(\n        base", "    base = replace(\n        base"),
            ["build returned NoneType", "must return a Variant or a module"],
        ),
        (
            ("num_tokens = ", "num_token = "),
            ["the script defines no num_tokens; is it called 'num_token' now?"],
        ),
        (
            ("num_tokens = 20_000", "num_tokens = 400"),
            ["400 tokens are fewer than one batch of 500"],
        ),
        (
            ("num_tokens = 20_000", "num_tokens = 2e4"),
            ["tokens must be a whole number; got 20000.0"],
        ),
        (
            ("step.sae.W_dec[picked]", "step.windows"),
            ["this step has no windows", "rows = step.windows", 'batches={"main": Tokens'],
        ),
        (("layers = [1, 2]", "layers = [9]"), ["layer 9 is out of range", "layers 0 to 3"]),
        (
            ("learning_rate = None", "learning_rate = 1e38"),
            [
                "the loss became nan at step 2",
                "in the dry run, on 64 made-up",
                "lower the learning rate",
            ],
        ),
        (("seeds = [0, 1]", "seeds = []"), ["give at least one of each"]),
        (("l0 = 8", "l0 = None"), ["l0 is None and sparsity_penalty is None; give one of them"]),
    ],
)
def test_mistakes_are_found_before_the_model_loads(edit, words, bench, monkeypatch, capsys):

    def loaded(*_args, **_kwargs):
        raise AssertionError("the language model was loaded")

    monkeypatch.setattr("saelab.ground.model.load_model", loaded)
    script(bench, edit=edit)
    assert drive(bench, monkeypatch) == (1 if "the loss became nan" in words[0] else 2)
    err = capsys.readouterr().err
    end = err[-1500:]
    assert "FAILED" in end and "cause:" in end
    # of the script's own crash only, from its own line on
    assert ("Traceback" in err) == ("cure:" in words) and "saelab/train/loop.py" not in err
    assert not [word for word in words if word not in end], end
    assert not Path("run_1").exists()


def test_a_fixed_penalty_instead_of_l0(bench, monkeypatch):
    script(
        bench,
        {
            "layers": "[1]",
            "seeds": "[0]",
            "l0": "None",
            "sparsity_penalty": "0.05",
            "num_tokens": "60_000",
        },
    )
    assert drive(bench, monkeypatch) == 0
    (entry,) = json.loads(Path("run_1/final_info.json").read_text()).values()
    assert entry["means"]["sparsity_penalty"] == 0.05
    assert entry["stderrs"]["explained_variance"] is None  # one seed


def test_a_folder_that_another_process_works_in_is_left_alone(bench, monkeypatch, capsys):
    script(bench, {"layers": "[1]", "seeds": "[0]"})
    out = Path("run_1")
    with locked(out, Silent()):
        (out / "experiment.json").write_text('{"id": "of another script", "finished": false}')
        before = sorted(out.iterdir())
        for more in ((), ("--replace",)):
            assert drive(bench, monkeypatch, more=more) == 2
            assert "is working in run_1; wait" in capsys.readouterr().err[-1500:]
            assert sorted(out.iterdir()) == before and not list(Path().glob("run_1.*"))


def test_a_folder_of_something_else_is_left_alone(bench, monkeypatch, capsys):
    script(bench)
    Path("run_1").mkdir()
    Path("run_1/thesis.tex").write_text("x")
    assert drive(bench, monkeypatch) == 2
    assert "give another --out_dir" in capsys.readouterr().err
    assert Path("run_1/thesis.tex").exists()


def test_without_saelab_it_uses_the_environment_beside_it(tmp_path):
    """-S hides site-packages: the script starts the interpreter in .venv, or says what to do."""
    bare = tmp_path / "experiment.py"
    bare.write_text((ROOT / "experiment.py").read_text())
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "SAELAB"))
    }
    command = [sys.executable, "-I", "-S", bare.name, "--out_dir=run_1"]
    alone = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert alone.returncode == 2 and "run `make demo` once" in alone.stderr
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "started again with $*"\n')
    python.chmod(0o755)
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (
        again.returncode == 0
        and "started again with" in again.stdout
        and "--out_dir=run_1" in again.stdout
    )
