import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from helpers import byte_tokenizer, tiny_corpus, tiny_model
from saelab.ground.cache import CachedStream, plan_cache, shard_name, write_cache
from saelab.ground.model import ModelGround
from saelab.ground.stream import ActivationStream, BrokenModelError, capture_windows
from saelab.lm.model import HFModel, load_model, wrap
from saelab.runs import Source
from saelab.store import CorruptFile
from saelab.text.windows import load_windows
from saelab.types import Cursor, Tokens, Windows


@pytest.fixture(scope="module")
def lm() -> HFModel:
    return wrap(tiny_model("llama").requires_grad_(False), byte_tokenizer(), "tiny")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    path = tiny_corpus(tmp_path_factory.mktemp("text") / "a.txt")
    return Source(
        corpus=str(path),
        context=32,
        batch=100,
        buffer=1_000,
        lm_batch=8,
        tokens=100_000,
        model="tiny",
    )


@pytest.fixture(scope="module")
def stream(lm, source) -> ActivationStream:
    return ActivationStream(lm, load_windows(source, lm, "train"), source)


def take(stream, kind, n, start=None, sides=()):
    """The main batches, each with the cursor that follows it."""
    batches = itertools.islice(stream.batches(kind, start or Cursor(), sides), n)
    return [(views.main, after) for views, after in batches]


def test_an_epoch_gives_every_kept_activation_once(stream):
    """All batches of an epoch, and what every block drops, add up; no activation comes twice."""
    steps = sum(
        int(stream.windows.keep[stream.rows(0, b)].sum()) // 100 for b in range(stream.n_blocks)
    )
    drawn = take(stream, Tokens, steps)
    assert drawn[-1][1] == Cursor(1, 0, 0)
    x = torch.cat([batch.x for batch, _ in drawn])
    assert all(isinstance(batch, Tokens) and batch.x.shape == (100, 32) for batch, _ in drawn)
    every = torch.cat([stream.block(0, b).flat for b in range(stream.n_blocks)])
    assert len(every) == stream.windows.n_kept
    drawn_once, all_once = (Counter(row.numpy().tobytes() for row in rows) for rows in (x, every))
    assert drawn_once <= all_once
    assert len(every) - stream.n_blocks * 100 < len(x) <= len(every)


@pytest.mark.parametrize("kind", [Tokens, Windows])
def test_equal_cursors_equal_batches(stream, lm, source, kind):
    whole = take(stream, kind, 150)
    assert whole[-1][1].epoch >= 1
    again = ActivationStream(lm, stream.windows, source)
    for i in (0, 1, 7, 60, 110, 130, 148):
        batch, after = take(again, kind, 1, whole[i][1])[0]
        assert after == whole[i + 1][1]
        assert torch.equal(batch.x, whole[i + 1][0].x)
    other = ActivationStream(lm, stream.windows, replace(source, seed=1))
    assert not torch.equal(take(other, kind, 1)[0][0].x, whole[0][0].x)


def test_windows_beside_tokens_change_no_token(stream):
    n = 130  # more than an epoch
    both = list(itertools.islice(stream.batches(Tokens, Cursor(), [Windows]), n))
    for (views, _), (tokens, _) in zip(both, take(stream, Tokens, n), strict=True):
        windows = views.sides[Windows]
        assert torch.equal(views.main.x, tokens.x)
        assert isinstance(windows, Windows) and windows.x.shape == (3, 32, 32)
    block = stream.block(0, 0)
    seen = torch.cat([v.sides[Windows].tokens for v, _ in both[: len(block.flat) // 100]])
    # in the epoch's random order, none twice before all were read
    assert torch.equal(seen, block.tokens[: len(seen)])


def test_epochs_differ_in_order(stream):
    assert not torch.equal(stream.rows(0, 0), stream.rows(1, 0))
    everything = torch.cat([stream.rows(1, b) for b in range(stream.n_blocks)])
    assert torch.equal(everything.sort().values, torch.arange(len(stream.windows)))


def test_windows_are_whole_and_in_order(stream, lm):
    for batch, _ in take(stream, Windows, 3):
        assert isinstance(batch, Windows)
        assert batch.x.shape == (3, 32, 32)  # 3 windows of 32: about 100 positions
        torch.testing.assert_close(batch.x, lm.capture(batch.tokens)[0], rtol=1e-5, atol=1e-5)
        assert torch.equal(batch.keep, (batch.tokens != 0) & (batch.tokens != 1))
        assert torch.equal(batch.pos, torch.arange(32).expand(3, -1))


def test_stats_are_those_of_the_kept_activations(stream, lm):
    x = torch.cat([w.flat for w, _ in capture_windows(lm, stream.windows)]).double()
    stats = stream.stats
    assert stats.n >= 8_192
    assert stats.scale == pytest.approx(1 / math.sqrt(x.square().sum(1).mean()), rel=0.02)
    assert (stats.mean - x.mean(0)).norm() < 0.1 * x.mean(0).norm()
    y = take(stream, Tokens, 1)[0][0].x * stats.scale
    assert y.square().sum(1).mean().item() == pytest.approx(1, rel=0.2)


def test_an_outlier_mask_is_one_bound_for_training_and_evaluation(stream, lm, source):
    everything = torch.cat([w.flat for w, _ in capture_windows(lm, stream.windows)]).norm(dim=1)
    masked = ActivationStream(lm, stream.windows, replace(source, max_norm=1.1))
    assert masked.norm_bound == pytest.approx(1.1 * everything.median().item(), rel=0.05)
    share = (everything > masked.norm_bound).float().mean().item()
    assert 0.02 < share < 0.9
    assert masked.facts["dropped"]["norm"] == pytest.approx(share, abs=0.05)
    assert all(
        batch.x.norm(dim=1).max() <= masked.norm_bound for batch, _ in take(masked, Tokens, 5)
    )
    bound = masked.norm_bound
    norms = torch.cat(
        [w.flat for w, _ in capture_windows(lm, stream.windows, norm_bound=bound)]
    ).norm(dim=1)
    assert len(norms) == pytest.approx((1 - share) * len(everything), abs=2)
    assert norms.max() <= bound


def test_facts_say_what_was_dropped_and_how_often_the_text_repeats(stream, lm, source):
    facts = stream.facts
    assert facts["repeats"]
    assert facts["epochs"] == pytest.approx(100_000 / stream.windows.n_kept, rel=1e-6)
    assert facts["buffer_bytes"] == 31 * 32 * 32 * 4 + 100 * 32 * 4
    assert 0.03 < facts["dropped"]["bos"] < 0.05
    assert facts["dropped"]["norm"] == 0.0
    ground = ModelGround(source, lm=lm)
    ground.live = stream
    left_out, repeats = ground.remarks
    assert "tokens left out: bos 3." in left_out and "shuffle buffer 0 MB" in left_out
    assert f"it repeats, {100_000 / stream.windows.n_kept:.1f} times" in repeats


def test_too_little_text_for_one_batch(stream, lm, source):
    with pytest.raises(
        ValueError, match=r"holds [\d,]+ activations, fewer than one batch of 1,000,000"
    ):
        ActivationStream(lm, stream.windows, replace(source, batch=1_000_000, buffer=2_000_000))


def test_nan_activations_name_layer_and_batch(stream, source):
    broken = wrap(tiny_model("llama").requires_grad_(False), byte_tokenizer(), "broken").at(
        "layers.2"
    )
    rare = stream.windows.tokens[stream.rows(0, 0)[9]]  # a window of the second LM batch
    only = next(int(t) for t in rare if t > 1)
    with torch.no_grad():
        broken.model.get_parameter("model.layers.1.mlp.down_proj.weight")[:] = float("inf")
    with pytest.raises(
        BrokenModelError,
        match=r"NaN or infinite at layer 1 \(model\.layers\.1\), in LM batch 0 of block 0",
    ):
        take(ActivationStream(broken, stream.windows, source), Tokens, 1)
    broken = wrap(tiny_model("llama").requires_grad_(False), byte_tokenizer(), "broken")
    with torch.no_grad():
        broken.model.get_input_embeddings().weight[only] = float("nan")  # pyright: ignore
    with pytest.raises(BrokenModelError, match="at the embedding, in LM batch 0"):
        list(capture_windows(broken, stream.windows))


# Cache --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cached(tmp_path_factory, stream):
    folder = tmp_path_factory.mktemp("cache")
    plan = plan_cache(stream, folder, 6_000)
    assert [done for done, _ in write_cache(stream, plan)] == list(range(1, plan.shards + 1))
    return folder, plan


def test_the_plan_states_disk_time_and_memory(cached):
    folder, plan = cached
    assert plan.activations >= 6_000
    real = sum(path.stat().st_size for path in folder.glob("block-*"))
    assert plan.disk_bytes == pytest.approx(real, rel=0.02)
    assert plan.seconds > 0
    assert plan.memory_bytes > 2 * 31 * 32 * 32 * 4
    assert "MB on disk" in str(plan)


@pytest.mark.parametrize("kind", [Tokens, Windows])
def test_a_cache_gives_the_live_streams_batches(cached, stream, source, lm, kind):
    folder, plan = cached
    disk = CachedStream(folder, source, lm)
    assert (disk.hook, disk.d_in, disk.stats.scale) == (stream.hook, 32, stream.stats.scale)
    for (live, after), (stored, then) in zip(
        take(stream, kind, 60), take(disk, kind, 60), strict=True
    ):
        assert after == then
        assert torch.equal(live.x, stored.x)
    middle = take(stream, kind, 25)[-1][1]
    assert torch.equal(take(disk, kind, 1, middle)[0][0].x, take(stream, kind, 1, middle)[0][0].x)
    with pytest.raises(ValueError, match=rf"ends after {plan.shards} shards"):
        take(disk, kind, 200)


def test_interrupted_caching_keeps_finished_shards(tmp_path, stream, cached):
    plan = replace(cached[1], folder=tmp_path)
    writing = write_cache(stream, plan)
    next(writing), next(writing)
    writing.close()
    first = (tmp_path / shard_name(0, 0)).stat().st_mtime_ns
    assert len(list(tmp_path.glob("block-*"))) == 2
    assert list(write_cache(stream, plan))[-1] == (plan.shards, plan.shards)
    assert (tmp_path / shard_name(0, 0)).stat().st_mtime_ns == first


def test_a_damaged_shard_is_named(tmp_path, stream, source, cached, lm):
    plan = replace(cached[1], folder=tmp_path)
    list(write_cache(stream, plan))
    shard = tmp_path / shard_name(0, 1)
    data = shard.read_bytes()
    shard.write_bytes(data[:-100])
    with pytest.raises(CorruptFile, match=r"block-000-00001\.safetensors is truncated or altered"):
        take(CachedStream(tmp_path, source, lm), Tokens, 60)
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorruptFile, match=r"block-000-00001"):
        take(CachedStream(tmp_path, source, lm), Tokens, 60)
    shard.unlink()
    assert list(write_cache(stream, plan))
    assert shard.read_bytes() == data
    take(CachedStream(tmp_path, source, lm), Tokens, 60)


def test_a_cache_of_something_else_is_refused(tmp_path, cached, stream, source, lm):
    folder, plan = cached
    with pytest.raises(ValueError, match="of seed 0, not 1"):
        CachedStream(folder, replace(source, seed=1), lm)
    with pytest.raises(
        ValueError, match=r"of hook 'blocks\.1\.hook_resid_post', not 'blocks\.2\.hook_resid_post'"
    ):
        CachedStream(folder, source, lm.at("layers.2"))
    with pytest.raises(ValueError, match=r"of corpus .* not "):
        CachedStream(
            folder, replace(source, corpus=str(tiny_corpus(tmp_path / "b.txt", documents=50))), lm
        )
    with pytest.raises(ValueError, match="of hook"):
        list(write_cache(ActivationStream(lm.at("layers.2"), stream.windows, source), plan))
    with pytest.raises(FileNotFoundError):
        CachedStream(tmp_path / "none", source, lm)
    with pytest.raises(ValueError, match="50 tokens are fewer than one batch of 100"):
        plan_cache(stream, folder, 50)


def test_weights_decide_the_cache(tmp_path, source):
    from helpers import tiny_checkpoint

    lm = load_model(str(tiny_checkpoint(tmp_path / "m", "llama")))
    here = replace(source, model=lm.name)
    stream = ActivationStream(lm, load_windows(here, lm, "train"), here)
    plan = plan_cache(stream, tmp_path / "cache", 500)
    list(write_cache(stream, plan))
    CachedStream(tmp_path / "cache", here, lm)
    other = load_model(str(tiny_checkpoint(tmp_path / "n", "llama", num_hidden_layers=5)))
    with pytest.raises(ValueError, match="weights_hash"):
        CachedStream(tmp_path / "cache", here, other)
