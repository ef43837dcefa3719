"""A language model that reads a text, as a ground: live, or with its activations on disk."""

from functools import cached_property
from pathlib import Path
from typing import Any

from saelab.ground.cache import CachedStream
from saelab.ground.held_out import HeldOut
from saelab.ground.stream import ActivationStream, capture_windows
from saelab.lm.model import HFModel, load_model
from saelab.runs import Source
from saelab.text.windows import load_windows
from saelab.types import ActivationSource


class ModelGround:
    """A model that was loaded, and its text; satisfies `ground.Ground`."""

    def __init__(self, source: Source, folder: Path | None = None, lm: HFModel | None = None):
        """`folder`: of a finished cache. `lm`: the model, where it is loaded already."""
        self.source, self.folder = source, folder
        self.lm = lm or load_model(source.model, source.hook)
        self.name, self.d_in = f"{self.lm.name} at {self.lm.hook.name}", self.lm.d_in

    @property
    def weights_hash(self) -> str | None:
        """Of the model's files."""
        return self.lm.weights_hash

    @property
    def live(self) -> ActivationStream | None:
        """The stream that the model makes while it reads the training text."""
        return self._live

    @cached_property
    def _live(self) -> ActivationStream:
        return ActivationStream(self.lm, load_windows(self.source, self.lm, "train"), self.source)

    @property
    def stream(self) -> ActivationSource:
        """The live stream, or the same batches from disk."""
        return self._stream

    @cached_property
    def _stream(self) -> ActivationStream | CachedStream:
        return (
            self._live if self.folder is None else CachedStream(self.folder, self.source, self.lm)
        )

    def on_disk(self, folder: Path) -> "ModelGround":
        """The same with its batches from the cache in `folder`."""
        return ModelGround(self.source, folder, self.lm)

    @property
    def about(self) -> dict[str, Any]:
        """Model, hook and text."""
        return {
            "model": self.lm.name,
            "hook": self.lm.hook.name,
            "layer": self.lm.hook.layer,
            "d_in": self.lm.d_in,
            "weights_hash": self.weights_hash,
            "corpus": self.source.corpus,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What it is, and the facts of the stream."""
        facts = dict(self._stream.facts)
        dropped = facts.pop("dropped")
        return {
            **self.about,
            **facts,
            "dropped_tokens_share": round(sum(dropped.values()), 6),
        }

    @property
    def remarks(self) -> list[str]:
        """Which tokens are left out, what the buffer takes, and whether the text repeats."""
        facts, source = self._stream.facts, self.source
        left_out = (
            ", ".join(f"{name} {share:.2%}" for name, share in facts["dropped"].items()) or "none"
        )
        remarks = [
            f"{self.name}, d_in {self.d_in}; tokens left out: {left_out}; "
            f"shuffle buffer {facts['buffer_bytes'] / 1e6:,.0f} MB"
        ]
        if facts["repeats"]:
            remarks.append(
                f"{source.corpus} holds {facts['kept_activations']:,} activations of the "
                f"{source.steps * source.batch:,}: it repeats, {facts['epochs']:.1f} times"
            )
        return remarks

    def held_out(self) -> HeldOut:
        """Activations of the held-out windows in order, masked as in training."""
        windows = load_windows(self.source, self.lm, "held_out")
        batches = list(capture_windows(self.lm, windows, self.source))
        return HeldOut(self.source, self.lm, batches, windows)
