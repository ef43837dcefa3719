"""`--cache FOLDER`: activations on disk give the very SAEs of the live stream; costs, interruption
and damage are said.
"""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import tiny_checkpoint, tiny_corpus
from saelab.cli import main
from saelab.ground import cache as lm_cache
from saelab.ground.stream import ActivationStream
from saelab.store import file_hash, read_json

PLAN = """
from saelab.experiments.plan import Plan
from saelab.runs import Optim, Run, Source, Spec

def plan():
    return Plan("cached", tuple(
        Run(Spec(variant, 64, 8), source, Optim(warmup=10))
        for hook in {hooks}
        for source in [Source(model={model!r}, corpus={corpus!r}, hook=hook, context=64, tokens=10_000, batch=256,
                              buffer=4_096, lm_batch=16, max_norm={max_norm}, eval_windows=16)]
        for variant in ("batch_topk", "standard")
    ))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    tiny_checkpoint(folder / "model", "llama")
    tiny_corpus(folder / "text.txt", documents=120)
    return folder


@pytest.fixture(scope="module")
def live(world, tmp_path_factory):
    """The weights' hashes of the plan's runs without a cache."""
    home = tmp_path_factory.mktemp("live")
    assert main(["run", write_plan(home, world), "--out", str(home / "out")]) == 0
    return weights(home / "out")


def write_plan(home, world, hooks=("layers.1", "layers.2"), max_norm=None) -> str:
    path = home / "plan.py"
    text = PLAN.format(
        hooks=hooks, model=str(world / "model"), corpus=str(world / "text.txt"), max_norm=max_norm
    )
    path.write_text(text)
    return str(path)


def weights(out: Path) -> dict[str, str]:
    return {
        run.name: file_hash(run / "sae" / "sae.safetensors")
        for run in sorted((out / "runs").iterdir())
    }


def unmeasured(record) -> str:
    """A record as text, without what differs from run to run."""
    return re.sub(r"'(seconds|throughput_tokens_per_s)': [\d.]+", "", str(record))


def shards(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/block-*.safetensors"))


def test_the_same_saes_and_a_finished_cache_is_reused(world, live, tmp_path, monkeypatch, capsys):
    cache = tmp_path / "cache"
    command = ["run", write_plan(tmp_path, world), "--cache", str(cache), "--out"]
    assert main([*command, str(tmp_path / "first")]) == 0
    assert weights(tmp_path / "first") == live and len(live) == 4
    assert len(list(cache.iterdir())) == 2  # a folder per hook
    said = capsys.readouterr().out
    costs = re.findall(
        r"caching ([\d,]+) activations in (\d+) shards under .*: ([\d.]+) MB on disk, about [\d,]+ s",
        said,
    )
    assert len(costs) == 2 and said.index("caching") < said.index("cached") < said.index(
        "training 2 runs"
    )
    # training, and what is calibrated on
    assert int(costs[0][0].replace(",", "")) >= 10_000 + 16_384
    written = sum(path.stat().st_size for path in shards(cache)) / 1e6
    assert sum(float(cost[2]) for cost in costs) == pytest.approx(written, rel=0.05)
    assert sum(int(cost[1]) for cost in costs) == len(shards(cache))

    def run_model(*_):
        raise AssertionError("the language model was run for training")

    monkeypatch.setattr(ActivationStream, "_captured", run_model)
    assert main([*command, str(tmp_path / "second")]) == 0
    assert weights(tmp_path / "second") == live
    for name in live:  # what is recorded about the data does not depend on where it was read
        first, second = (
            read_json(tmp_path / out / "runs" / name / "sae" / "sae.json")
            for out in ("first", "second")
        )
        assert unmeasured(first) == unmeasured(second)
    assert "caching" not in capsys.readouterr().out


def test_ctrl_c_keeps_finished_shards(world, live, tmp_path, monkeypatch, capsys):
    cache, out = tmp_path / "cache", tmp_path / "out"
    command = ["run", write_plan(tmp_path, world), "--cache", str(cache), "--out", str(out)]
    real = lm_cache._write_shard

    def stop_at_third(path, windows):
        if "00002" in path.name:
            os.kill(os.getpid(), signal.SIGINT)
        return real(path, windows)

    # a suite that a shell runs in the background has SIGINT ignored, and hands that on
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(lm_cache, "_write_shard", stop_at_third)
            assert main(command) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    error = capsys.readouterr().err
    assert (
        re.search(r"stopped while caching, 2 of \d shards are kept in ", error)
        and "To go on: saelab run" in error
    )
    kept = {path: path.stat().st_mtime_ns for path in shards(cache)}
    assert len(kept) == 2
    assert main(command) == 0
    assert weights(out) == live
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_too_little_disk_is_said_before_anything_is_written(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _folder: shutil._ntuple_diskusage(10**8, 98 * 10**6, 2 * 10**6)
    )
    command = [
        "run",
        write_plan(tmp_path, world),
        "--cache",
        str(tmp_path / "cache"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(command) == 2
    assert re.search(r"the cache needs [3-9]\.\d MB, 2\.0 MB are free", capsys.readouterr().err)
    assert not (tmp_path / "cache").exists()


def test_masked_outliers_are_made_up_for(world, tmp_path, monkeypatch):
    """Where the share of outliers was underestimated, shards are added until training and
    calibration have enough.
    """
    plan = write_plan(tmp_path, world, hooks=("layers.1",), max_norm=1.02)
    assert main(["run", plan, "--out", str(tmp_path / "live")]) == 0
    real = lm_cache._in_batches
    planned = iter([10**6])  # the plan believes that one shard is enough
    monkeypatch.setattr(lm_cache, "_in_batches", lambda *given: next(planned, real(*given)))
    assert (
        main(["run", plan, "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]) == 0
    )
    assert len(shards(tmp_path / "cache")) > 5
    assert weights(tmp_path / "out") == weights(tmp_path / "live")


def test_damage_and_other_models_are_refused(world, tmp_path, capsys):
    here, cache = tmp_path / "here", tmp_path / "cache"
    shutil.copytree(world, here)
    plan = write_plan(tmp_path, here, hooks=("layers.1",))
    command = ["run", plan, "--cache", str(cache), "--out"]
    assert main([*command, str(tmp_path / "a")]) == 0
    data = shards(cache)[1].read_bytes()
    shards(cache)[1].write_bytes(data[:-100])
    assert main([*command, str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert (
        f"shard {shards(cache)[1]} is truncated" in error.replace("\n", "")
        and "training" not in error
    )
    shards(cache)[1].unlink()  # as the message says
    assert main([*command, str(tmp_path / "b")]) == 0
    assert shards(cache)[1].read_bytes() == data and weights(tmp_path / "b") == weights(
        tmp_path / "a"
    )

    path = here / "model" / "model.safetensors"
    tensors = load_file(path)
    save_file(
        {name: tensor + 0.01 * torch.ones_like(tensor) for name, tensor in tensors.items()},
        path,
        {"format": "pt"},
    )
    assert main([*command, str(tmp_path / "c")]) == 2
    assert "is of weights_hash" in capsys.readouterr().err
    assert main(["run", plan, "--cache", plan, "--out", str(tmp_path / "d")]) == 2
    assert (
        "is a file; give a folder for the cache" in capsys.readouterr().err
        and not (tmp_path / "d").exists()
    )


def test_train_has_the_flag(world, tmp_path, capsys):
    given = [
        "--model",
        str(world / "model"),
        "--corpus",
        str(world / "text.txt"),
        "--hook",
        "layers.1",
        "--context",
        "64",
    ]
    size = ["--l0", "8", "--n_latents", "64", "--batch", "512", "--tokens", "20_000"]
    command = ["train", "topk", *given, *size, "--out"]
    assert main([*command, str(tmp_path / "live")]) == 0
    assert main([*command, str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]) == 0
    assert weights(tmp_path / "out") == weights(tmp_path / "live") and shards(tmp_path / "cache")
