"""Activations on disk for an experiment: say what it costs, write what is missing, read.

<cache>/<id of the source>/              shards, `cache.json`, `stats.safetensors`: one folder per
                                         source, see `ground.cache`
<cache>/<id of the source>/needs/        what variants need of the stream (a Fisher metric, for
                                         instance), by its name
"""

import errno
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from saelab.experiments.listen import Listener
from saelab.experiments.run.group import Interrupted
from saelab.ground.cache import is_cached, plan_cache, write_cache
from saelab.ground.ground import Ground
from saelab.ground.stream import ActivationStream
from saelab.runs import Source, WorldSource
from saelab.store import content_id, read_tensors, write_tensors
from saelab.terms.base import Need
from saelab.train.loop import CALIBRATION_ROWS, Meet
from saelab.types import ActivationSource

if TYPE_CHECKING:
    from torch import Tensor

NOTE_SECONDS = 10.0  # between notes of progress


def cached(ground: Ground, cache: Path, listener: Listener) -> tuple[Ground, Meet]:
    """`ground` with its batches from its folder under `cache`, and the way to meet needs from
    there; a finished cache is used as it is, the model is not run. A ground whose batches cost
    nothing is returned as it is.

    Raises `OSError` (no space) before anything is written, `ValueError` when the folder is of
    another model or text, `CorruptFile` for a truncated shard, `Interrupted` on Ctrl-C: finished
    shards are kept.
    """
    stream = ground.live
    if stream is None:
        return ground, Need.of
    folder, source = source_folder(cache, ground.source), stream.source
    # what training reads, and what finished SAEs are calibrated on; whole batches
    tokens = (source.steps + math.ceil(CALIBRATION_ROWS / source.batch)) * source.batch
    if not is_cached(stream, folder, tokens):
        _write(stream, folder, tokens, listener)
    listener.note(f"training reads its activations from {folder}")
    return ground.on_disk(folder), kept(folder)


def kept(folder: Path) -> Meet:
    """Meets needs from their files in the folder of a source, and writes those that are not there.

    Raises `CorruptFile` for a damaged file.
    """

    def meet(need: Need, source: ActivationSource) -> "Mapping[str, Tensor]":
        path = folder / "needs" / f"{content_id(need.name)}.safetensors"
        if path.exists():
            return read_tensors(path, source.stats.mean.device)
        tensors = need.of(source)
        write_tensors(path, tensors, {"need": need.name})
        return tensors

    return meet


def source_folder(cache: Path, source: Source | WorldSource) -> Path:
    """Where under `cache` the activations of `source` are; held-out windows, which are not cached,
    do not matter.
    """
    fields = {name: value for name, value in asdict(source).items() if name != "eval_windows"}
    return Path(cache) / content_id(fields)


def check_folder(cache: Path) -> None:
    """Raise `OSError` when `cache` is a file."""
    if Path(cache).exists() and not Path(cache).is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR, "is a file; give a folder for the cache", str(cache)
        )


def _write(stream: ActivationStream, folder: Path, tokens: int, listener: Listener) -> None:
    plan = plan_cache(stream, folder, tokens)
    listener.note(f"caching {plan}")
    done, total = 0, plan.shards
    shown = time.monotonic()
    try:
        for done, total in write_cache(stream, plan):
            if done == total or time.monotonic() - shown >= NOTE_SECONDS:
                shown = time.monotonic()
                listener.note(f"cached {done:,} of {total:,} shards")
    except KeyboardInterrupt as stop:
        raise Interrupted(
            f"stopped while caching, {done:,} of {total:,} shards are kept in {folder}"
        ) from stop
