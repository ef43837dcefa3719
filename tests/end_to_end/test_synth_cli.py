"""`saelab synth` as a user types it: a table, its files, and what is refused in one sentence."""

import re
import signal
import subprocess
import sys
import time

import pytest

from saelab.cli import main
from saelab.store import file_hash, read_json

SHORT = ("--set", "steps=30", "--set", "k=6", "--set", "p=0.1", "--jobs", "1")


def test_a_table(tmp_path, capsys):
    out = tmp_path / "out"
    command = [
        "synth",
        "s1",
        "--variants",
        "batch_topk,jump_relu,frozen",
        "--seeds",
        "0-1",
        *SHORT,
        "--out",
        str(out),
    ]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "training 6 SAEs for 30 steps of 1,024 activations each, 2 groups in 1 process" in text
    assert re.search(r"s1 seed 1: 3 SAEs trained in \d+ s, 3 SAEs evaluated in \d+ s", text)
    assert "World s1: means over 2 seeds" in text and "jump_relu against batch_topk" in text
    assert re.search(r"(?i)sanity: batch_topk kl_recovered is -?0\.\d+, expected -0.1 to 0.1", text)
    record = read_json(out / "summary.json")
    assert {row["variant"] for row in record["means"]} == {"batch_topk", "jump_relu", "frozen"}
    assert record["facts"]["settings"] == {"p": 0.1} and record["means"][0]["metrics"]["l0"][
        "value"
    ] == pytest.approx(6, rel=0.05)
    assert (out / "report.html").stat().st_size > 10_000
    assert main(command) == 0  # again: nothing to do
    assert "6 of 6 runs are done already" in capsys.readouterr().out
    next(out.glob("runs/*-s1-*/eval/truth.json")).unlink()
    assert main(command) == 0  # of what was only evaluated nothing is said to have been trained
    text = capsys.readouterr().out
    assert re.search(r"s1 seed 1: 1 SAE evaluated in \d+ s", text) and "trained in" not in text
    assert main([*command[:1], "s2", *command[2:]]) == 2
    assert "holds the results of 'synth-s1-" in capsys.readouterr().err


def test_a_failed_sanity_row_is_said(tmp_path, capsys):
    """With features of the same strength there is nothing that hides the causal ones."""
    command = [
        "synth",
        "s1",
        "--variants",
        "batch_topk",
        "--seeds",
        "0",
        "--set",
        "ratio=0.3",
        "--set",
        "steps=300",
    ]
    assert main([*command, "--jobs", "1", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "SANITY: batch_topk causal_mcc is 0." in text
    assert (
        "The world does not test what it should: reconstruction alone already finds the causal "
        "features" in text
    )
    assert "The world does not test what it should" in (
        tmp_path / "report.html"
    ).read_text().replace("does not test", "does not test")


def test_the_list(capsys):
    assert main(["synth", "--list"]) == 0
    text = capsys.readouterr().out
    assert (
        "s1d " in text
        and "s5_null" in text
        and "48 latents, L0 2.7, 1,000 steps of 1,024 activations" in text
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["s1x"], "no world is called 's1x' (did you mean 's1'?)"),
        (
            ["s1", "--variants", "batch_tpok"],
            "unknown variant 'batch_tpok' (did you mean 'batch_topk'?)",
        ),
        (["s1", "--set", "ratoi=2"], "world 's1' has no number 'ratoi' (did you mean 'ratio'?)"),
        (["s1", "--set", "ratio"], "--set 'ratio' is not NAME=NUMBER (no = in it)"),
        (["s1", "--set", "ratio=two"], "--set 'ratio=two' is not NAME=NUMBER; write for instance"),
        (["s1", "--l0", "64"], "L0 is 64; it must be above 0 and below the width, 64 latents"),
        (["s1", "--seeds", "-3"], "a seed is -3; it must be 0 or more"),
        (["s1", "--length", "0"], "length is 0"),
        (["s1", "--jobs", "0"], "jobs is 0"),
        (["s1", "--rates", "nowhere.json"], "nowhere.json"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert main(["synth", *words, "--out", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr().err
    assert said in shown and len(shown.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_stopped_and_started_again(tmp_path):
    """SIGTERM while two of three seeds train: a checkpoint each, no third seed; then the end is
    that of an unbroken run.
    """
    words = ["synth", "s3c", "--variants", "batch_topk", "--set", "steps=600"]
    out, whole = tmp_path / "out", tmp_path / "whole"
    command = [sys.executable, "-m", "saelab.cli", *words, "--seeds", "0-2", "--jobs", "2"]
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(list(out.glob("runs/*/metrics.jsonl"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "To go on: saelab synth s3c" in errors
    assert len(list((out / "checkpoints").glob("*.safetensors"))) == 2
    assert len(list(out.glob("runs/*/metrics.jsonl"))) == 2
    for folder in (out, whole):
        assert main([*words, "--seeds", "0-1", "--jobs", "1", "--out", str(folder)]) == 0
    ended = [weights_of(folder) for folder in (out, whole)]
    assert len(ended[0]) == 2 and ended[0] == ended[1]


def weights_of(out):
    return [file_hash(path) for path in sorted(out.glob("runs/*/sae/*.safetensors"))]
