"""Activations on disk: the blocks of a stream as safetensors shards, one file per load of the
shuffle buffer.

A shard holds whole windows (activations, token ids, document, position, mask) in the epoch's random
order, so batches read from it equal the live stream's. `cache.json` names model, hook, text and
order, the facts about the data, size and sha256 of every finished shard, and at the end the number
of activations that the cache is good for.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saelab.ground.stream import ActivationStream
from saelab.ground.views import Block, read_batches, too_long, windows_per_batch
from saelab.runs import Source
from saelab.store import (
    CorruptFile,
    check_disk,
    file_hash,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from saelab.text.corpora import corpus_hash
from saelab.types import (
    Cursor,
    InputStats,
    Labelled,
    Tokens,
    View,
    Views,
    Windows,
    refuse_missing,
)

if TYPE_CHECKING:
    from saelab.lm.model import HFModel

MANIFEST, STATS = "cache.json", "stats.safetensors"
# What decides the content of a shard. `batch` does not: batches are cut when a shard is read.
_ORDER = ("model", "corpus", "context", "buffer", "lm_batch", "max_norm", "text_column", "seed")


@dataclass(frozen=True)
class CachePlan:
    """What caching will cost; shown before it starts."""

    folder: Path
    shards: int
    tokens: int  # activations asked for
    activations: int  # in whole batches of these shards; an estimate where outliers are masked
    disk_bytes: int
    seconds: float
    memory_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.activations:,} activations in {self.shards} shards under {self.folder}: "
            f"{self.disk_bytes / 1e6:,.1f} MB on disk, about {self.seconds:,.0f} s, "
            f"{self.memory_bytes / 1e6:,.1f} MB of memory"
        )


def plan_cache(stream: ActivationStream, folder: Path, tokens: int) -> CachePlan:
    """What it takes to store the blocks that yield `tokens` activations; times one language-model
    batch.

    Writes nothing. Raises `ValueError` for fewer tokens than a batch, `OSError` (no space) when the
    disk is too small.
    """
    source, windows = stream.source, stream.windows
    if tokens < source.batch:
        raise ValueError(
            f"{tokens:,} tokens are fewer than one batch of {source.batch:,}: nothing to cache"
        )
    tokens = tokens // source.batch * source.batch
    share = 1.0 - stream.facts["dropped"]["norm"]
    shards = held = positions = 0
    while held < tokens:
        rows = stream.rows(*divmod(shards, stream.n_blocks))
        held += _in_batches(int(windows.keep[rows].sum() * share), len(rows), source)
        positions += len(rows) * windows.context
        shards += 1
        _check_yield(held, shards, stream)
    rows = stream.rows(0, 0)[: source.lm_batch]
    started = time.perf_counter()
    stream.lm.capture(windows.tokens[rows])
    seconds = (time.perf_counter() - started) * positions / (len(rows) * windows.context)
    # x, tokens, doc, pos, keep
    per_position = stream.d_in * stream.lm.dtype.itemsize + 4 + 4 + 8 + 1
    disk, folder = positions * per_position, Path(folder)
    written = sum(path.stat().st_size for path in folder.glob("block-*"))
    check_disk(folder, "the cache needs", disk, there=written)
    return CachePlan(folder, shards, tokens, held, disk, seconds, 2 * stream.buffer_bytes)


def _in_batches(kept: int, windows: int, source: Source) -> int:
    """Activations of a block in whole batches, of whichever kind yields fewer."""
    of_windows = windows // min(windows_per_batch(source), windows)
    return min(kept // source.batch, of_windows) * source.batch


def _check_yield(held: int, n_blocks: int, stream: ActivationStream) -> None:
    if not held and n_blocks > 2 * stream.n_blocks:
        raise ValueError(
            f"no buffer load of {stream.per_block} windows holds a batch of "
            f"{stream.source.batch:,}; raise the buffer"
        )


def is_cached(stream: ActivationStream, folder: Path, tokens: int) -> bool:
    """Whether `folder` holds the finished cache of `stream`, for `tokens` activations; the model is
    not run.

    Raises `ValueError` when it holds the cache of another model, hook or text.
    """
    if not (Path(folder) / MANIFEST).exists():
        return False
    manifest = _read_manifest(Path(folder), _identity_of(stream))
    enough = manifest["tokens"] >= tokens // stream.source.batch * stream.source.batch
    return enough and all((Path(folder) / name).exists() for name in manifest["shards"])


def write_cache(stream: ActivationStream, plan: CachePlan) -> Iterator[tuple[int, int]]:
    """Write the shards of `plan`, yielding (finished, total) after each; an interrupted run goes on
    with the missing ones.

    Goes on past the plan's blocks should they hold fewer activations than `plan.tokens`. Raises
    `ValueError` when the folder holds the cache of another model, hook or text.
    """
    path, source = plan.folder / MANIFEST, stream.source
    identity = _identity_of(stream)
    manifest = {"identity": identity, "facts": stream.facts, "tokens": 0, "shards": {}}
    if path.exists():
        manifest = _read_manifest(plan.folder, identity)
    stats = stream.stats
    tensors = {
        "mean": stats.mean,
        "scale": torch.tensor(stats.scale, dtype=torch.float64),
        "n": torch.tensor(stats.n),
    }
    write_tensors(plan.folder / STATS, tensors)
    held = done = 0
    while held < plan.tokens or done < plan.shards:
        epoch, block = divmod(done, stream.n_blocks)
        name = shard_name(epoch, block)
        if name not in manifest["shards"] or not (plan.folder / name).exists():
            manifest["shards"][name] = _write_shard(plan.folder / name, stream.block(epoch, block))
            write_json(path, manifest)
        shard = manifest["shards"][name]
        held += _in_batches(shard["kept"], shard["windows"], source)
        done += 1
        _check_yield(held, done, stream)
        yield done, max(done, plan.shards)
    manifest["tokens"] = max(plan.tokens, manifest["tokens"])
    write_json(path, manifest)


def _write_shard(path: Path, windows: Windows) -> dict[str, Any]:
    """Write a block; returns its record in the manifest."""
    write_tensors(
        path, {field: getattr(windows, field) for field in ("x", "tokens", "doc", "pos", "keep")}
    )
    counts = {
        "windows": len(windows.x),
        "kept": int(windows.keep.sum()),
        "bytes": path.stat().st_size,
    }
    return counts | {"sha256": file_hash(path)}


def _read_manifest(folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The record of the cache in `folder`. Raises `ValueError` where it is not of what is
    `wanted`.
    """
    manifest = read_json(folder / MANIFEST)
    keys = {"identity", "facts", "tokens", "shards"}
    if not isinstance(manifest, dict) or not keys <= set(manifest):
        raise CorruptFile(
            f"{folder / MANIFEST} is no record of a cache; remove {folder} and cache again"
        )
    for name, value in wanted.items():
        written = manifest["identity"].get(name)
        if written != value:
            raise ValueError(
                f"the cache in {folder} is of {name} {written!r}, not {value!r}; give another "
                "folder or write it anew"
            )
    return manifest


def shard_name(epoch: int, block: int) -> str:
    """File name of a shard."""
    return f"block-{epoch:03d}-{block:05d}.safetensors"


def _identity(source: Source, lm: "HFModel") -> dict[str, Any]:
    """What a cache is of, as far as it is known before the text is cut into windows."""
    order = {name: value for name, value in asdict(source).items() if name in _ORDER}
    return order | {"hook": lm.hook.name, "d_in": lm.d_in, "weights_hash": lm.weights_hash}


def _identity_of(stream: ActivationStream) -> dict[str, Any]:
    return _identity(stream.source, stream.lm) | {
        "corpus_hash": stream.windows.corpus_hash,
        "windows_hash": stream.windows.hash,
        "n_blocks": stream.n_blocks,
    }


class CachedStream:
    """The batches of a live stream, read from disk, bit for bit; satisfies
    `types.ActivationSource`.
    """

    def __init__(self, folder: Path, source: Source, lm: "HFModel"):
        """Raises `FileNotFoundError`, or `ValueError` when the cache is not of this source and
        model.
        """
        self.folder, self.source, self.lm = Path(folder), source, lm
        wanted = _identity(source, lm) | {"corpus_hash": corpus_hash(source)}
        manifest = _read_manifest(self.folder, wanted)
        self.hook, self.d_in = lm.hook, lm.d_in
        self.device = lm.device  # where the live stream's batches are
        self.n_blocks = int(manifest["identity"]["n_blocks"])
        self.facts: dict[str, Any] = manifest["facts"]  # of the live stream that was cached
        self._shards: dict[str, Any] = manifest["shards"]
        self._verified: set[str] = set()
        # a truncated one is found before an hour of training, not after
        for name, shard in self._shards.items():
            path = self.folder / name
            if path.exists() and path.stat().st_size != shard["bytes"]:
                raise _damaged(path)
        stats = read_tensors(self.folder / STATS, self.device)
        self.stats = InputStats(stats["mean"], float(stats["scale"]), int(stats["n"]))

    def missing(self, kind: View) -> str:
        """A cache knows documents and order, and no labels."""
        if kind is Labelled:
            return f"the cache in {self.folder} holds no labels of tokens; train without a cache"
        return too_long(kind, self.source)

    def batches(
        self,
        main: type[Tokens] | type[Windows],
        start: Cursor,
        sides: Collection[View] = (),
    ) -> Iterator[tuple[Views, Cursor]]:
        """As the live stream's, for equal cursors. Raises `CorruptFile` naming a damaged shard,
        `ValueError` at the end.
        """
        refuse_missing(self, (main, *sides))

        def load(epoch: int, block: int) -> Block:
            return Block(self.block(epoch, block), self.source, (epoch, block))

        yield from read_batches(load, self.n_blocks, main, start, sides)

    def block(self, epoch: int, block: int) -> Windows:
        """The windows of one shard, its checksum verified the first time."""
        name = shard_name(epoch, block)
        if name not in self._shards:
            raise ValueError(
                f"the cache in {self.folder} ends after {len(self._shards)} shards, before block "
                f"{block} of epoch {epoch}; cache more tokens or train on fewer"
            )
        path = self.folder / name
        if not path.exists():
            raise CorruptFile(f"shard {path} is missing; cache again, finished shards are kept")
        if name not in self._verified:
            if file_hash(path) != self._shards[name]["sha256"]:
                raise _damaged(path)
            self._verified.add(name)
        return Windows(**read_tensors(path, self.device))


def _damaged(path: Path) -> CorruptFile:
    return CorruptFile(
        f"shard {path} is truncated or altered; delete it and cache again, the other shards are "
        "kept"
    )
