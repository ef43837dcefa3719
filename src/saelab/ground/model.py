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


class ModelGround:
    """A model that was loaded, and its text: batches to train on, held-out data to evaluate on, and
    its facts.

    `source` is what was asked for, `name` how messages call it, `d_in` the width D, and
    `weights_hash` says which weights the model has (None where the source alone decides
    everything).
    """

    def __init__(self, source: Source, folder: Path | None = None, lm: HFModel | None = None):
        """`folder`: of a finished cache. `lm`: the model, where it is loaded already."""
        self.source, self.folder = source, folder
        self.lm = lm or load_model(source.model, source.hook)
        self.name, self.d_in = f"{self.lm.name} at {self.lm.hook.name}", self.lm.d_in
        self.weights_hash = self.lm.weights_hash

    @cached_property
    def live(self) -> ActivationStream:
        """The stream that a cache on disk would hold; None where a cache would save nothing."""
        return ActivationStream(self.lm, load_windows(self.source, self.lm, "train"), self.source)

    @cached_property
    def stream(self) -> ActivationStream | CachedStream:
        """The batches to train on: the live stream's, or the same ones from disk."""
        return self.live if self.folder is None else CachedStream(self.folder, self.source, self.lm)

    def on_disk(self, folder: Path) -> "ModelGround":
        """The same with its batches read from a finished cache in `folder`."""
        return ModelGround(self.source, folder, self.lm)

    @property
    def about(self) -> dict[str, Any]:
        """What it is, in the words of `summary.json`; opens no stream."""
        return {
            "model": self.lm.name,
            "hook": self.lm.hook.name,
            "layer": self.lm.hook.layer,
            "d_in": self.d_in,
            "weights_hash": self.weights_hash,
            "corpus": self.source.corpus,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What is recorded beside every SAE that is trained on it: `about`, and its stream's."""
        facts = self.about | self.stream.facts
        dropped = facts.pop("dropped")
        return facts | {"dropped_tokens_share": round(sum(dropped.values()), 6)}

    @property
    def remarks(self) -> list[str]:
        """What a user should know before training starts, one sentence each: which tokens are left
        out, what the buffer takes, and whether the text repeats.
        """
        facts, source = self.stream.facts, self.source
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
        """Data that no training sees, for evaluations: activations of the held-out windows in
        order, masked as in training; read anew in every call.
        """
        windows = load_windows(self.source, self.lm, "held_out")
        bound = None if self.source.max_norm is None else self.live.norm_bound
        batches = list(capture_windows(self.lm, windows, self.source.lm_batch, norm_bound=bound))
        return HeldOut(self.source, self.lm, batches, windows)
