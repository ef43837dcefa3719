"""Any Hugging Face causal LM, read and resumed at one hook through plain forward hooks.

`capture` runs the model's own forward and stops it at the hook. `resume` runs the model's own
forward too, with the blocks below the hook passing their input through, so that embedding scale,
positions, masks and final norm are the model's own.
"""

import contextlib
import functools
import hashlib
import inspect
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from saelab.lm.hooks import Layout, layout_of, parse_hook
from saelab.lm.prefix import splits, tail_of
from saelab.lm.splice import feeding, passing, reading, replacing
from saelab.lm.weights import load_weights, locate
from saelab.store import file_hash
from saelab.types import Hook


class _Stop(Exception):
    """Ends a forward at the hook; caught by whoever started it."""


@dataclass(frozen=True)
class State:
    """What `resume` needs beside the activations."""

    tokens: Tensor  # [B, T]
    # [B, T, D] for mlp_out and attn_out: the residual stream they are added to
    block_input: Tensor | None
    past: Cache | None = None  # keys and values of the positions before, see `lm.prefix`


@dataclass(frozen=True, eq=False)
class HFModel:
    """A frozen causal LM read at `hook`; satisfies `types.LanguageModel`."""

    model: PreTrainedModel
    tokenizer: Any
    name: str
    hook: Hook
    layout: Layout
    tuples: bool  # blocks return a tuple (some architectures) or the tensor itself (most)

    def __post_init__(self) -> None:
        if self.hook.site in ("attn_out", "mlp_out"):
            self._check_sum()

    # Reading --------------------------------------------------------------------------------------

    @torch.no_grad()
    def capture(self, tokens: Tensor) -> tuple[Tensor, State]:
        """Token ids `[B, T]` -> activations at the hook `[B, T, D]` and the state to resume from;
        stops at the hook.
        """
        tokens = tokens.to(self.device, torch.long)
        if self.hook.site in ("resid_pre", "resid_post"):
            (x,) = self._read(tokens, [self.hook])
            return x, State(tokens, None)
        x, block_input = self._read(tokens, [self.hook, Hook(self.hook.layer, "resid_pre")])
        return x, State(tokens, block_input)

    def _read(self, tokens: Tensor, sites: list[Hook]) -> list[Tensor]:
        """Activations at `sites`; the forward stops as soon as all were seen."""
        seen: dict[int, Tensor] = {}

        def keep(i: int, x: Tensor) -> None:
            seen[i] = x
            if len(seen) == len(sites):
                raise _Stop

        with contextlib.ExitStack() as stack:
            for i, hook in enumerate(sites):
                stack.enter_context(reading(self.module(hook), hook, functools.partial(keep, i)))
            with contextlib.suppress(_Stop):
                self.model(input_ids=tokens, use_cache=False)
        return [seen[i] for i in range(len(sites))]

    def resume(self, x: Tensor, state: State, since: int = 0) -> Tensor:
        """Activations `[B, T, D]` put in at the hook -> logits of positions `since` on, `[B, T -
        since, V]`.

        Runs only the blocks above, and the unembedding only where it is asked for; differentiable
        in x. For `mlp_out` and `attn_out` the block itself runs again on its own input with `x` as
        that sublayer's output.
        """
        x = x.to(self.device, self.dtype)
        above = self.hook.layer + (self.hook.site == "resid_post")  # first block that runs
        below = self.blocks[:above]
        stream = x if state.block_input is None else state.block_input
        with contextlib.ExitStack() as stack:
            for block in below:
                stack.enter_context(passing(block, stream, self.tuples))
            if above == 0:
                stack.enter_context(feeding(self.blocks[0], stream))
            if state.block_input is not None:
                stack.enter_context(replacing(self.module(self.hook), x))
            options: dict[str, Any] = {"use_cache": state.past is not None}
            if state.past is not None:
                options[self._cache_argument] = state.past
            if since and "logits_to_keep" in self._arguments:
                options["logits_to_keep"] = x.shape[1] - since
            logits = self.model(input_ids=state.tokens, **options).logits
        # an architecture may not know `logits_to_keep` and give all
        return logits[:, -(x.shape[1] - since) :]

    @functools.cached_property
    def _arguments(self) -> tuple[str, ...]:
        """Names of what the model's forward takes."""
        return tuple(inspect.signature(self.model.forward).parameters)

    @functools.cached_property
    def _cache_argument(self) -> str:
        """What the forward calls its keys and values: transformers 5.24 renamed the argument of
        most models. Raises `TypeError` where it takes none.
        """
        for name in ("cache", "past_key_values"):
            if name in self._arguments:
                return name
        raise TypeError(
            f"the forward of {type(self.model).__name__} takes neither `cache` nor "
            "`past_key_values`"
        )

    @functools.cached_property
    def _splits(self) -> bool:
        return splits(self)

    def splits(self) -> bool:
        """Whether `tail` gives what `resume` does; tried once, on a few tokens."""
        return self._splits

    def tail(self, x: Tensor, state: State, at: int) -> Callable[[Tensor], Tensor]:
        """`resume` from position `at` on, `[c n, T - at, D]` -> logits, what comes before run once
        (`lm.prefix.tail_of`).
        """
        return tail_of(self, x, state, at)

    def logits(self, tokens: Tensor) -> Tensor:
        """The model's own forward: token ids `[B, T]` -> logits `[B, T, V]`."""
        return self.model(input_ids=tokens.to(self.device, torch.long), use_cache=False).logits

    def loss(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Next-token cross-entropy `[B, T-1]` in nats, computed in float32; entry t scores token t
        + 1.
        """
        log_p = logits[:, :-1].float().log_softmax(-1)  # [B, T-1, V]
        return -log_p.gather(-1, tokens[:, 1:, None].to(logits.device, torch.long)).squeeze(-1)

    def at(self, hook: Hook | str) -> "HFModel":
        """The same weights read at another hook."""
        return replace(self, hook=parse_hook(hook, self.layout))

    def module(self, hook: Hook) -> nn.Module:
        """The module read at `hook`."""
        return self.model.get_submodule(self.layout.path(hook))

    @torch.no_grad()
    def first_broken(self, tokens: Tensor) -> str | None:
        """Path of the first place up to the hook where activations are NaN or infinite, or None."""
        for hook in (Hook(0, "resid_pre"), *map(Hook, range(self.hook.layer + 1))):
            (x,) = self._read(tokens.to(self.device, torch.long), [hook])
            if not torch.isfinite(x).all():
                layer = f"layer {hook.layer} ({self.layout.path(hook)})"
                return "the embedding" if hook.site == "resid_pre" else layer
        return None

    def few_tokens(self, n: int) -> Tensor:
        """n different token ids `[1, n]`, to try the model on."""
        return (
            torch.arange(1, n + 1, device=self.device)[None]
            % self.model.config.get_text_config().vocab_size
        )

    @torch.no_grad()
    def _check_sum(self) -> None:
        """Refuse a sublayer site where attention and MLP outputs do not add up to what the block
        adds.
        """
        layer, added = self.hook.layer, [self.hook]
        if self.layout.attn and self.layout.mlp:
            added = [Hook(layer, "attn_out"), Hook(layer, "mlp_out")]
        sites = [Hook(layer, "resid_pre"), *added, Hook(layer)]
        before, *sublayers, after = (x.double() for x in self._read(self.few_tokens(6), sites))
        gap = (before + sum(sublayers) - after).abs().max() / after.abs().max().clamp_min(1e-30)
        if gap > (1e-3 if self.dtype == torch.float32 else 0.05):
            raise ValueError(
                f"{self.hook.name}: in this {self.layout.architecture} the block adds something "
                "else than "
                f"the outputs of attention and MLP (relative gap {gap:.2g}), so this site is not "
                "defined; "
                "use resid_pre or resid_post"
            )

    # Facts ----------------------------------------------------------------------------------------

    @property
    def blocks(self) -> list[nn.Module]:
        """The model's blocks, in order."""
        return list(self.model.get_submodule(self.layout.blocks).children())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights and of captured activations."""
        return self.model.dtype

    @property
    def d_in(self) -> int:
        """Width of the residual stream, D."""
        return self.model.config.get_text_config().hidden_size

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.layout.n_layers

    def unembed(self) -> Tensor:
        """The unembedding `[D, V]` in float32, final norm not folded in."""
        head = self.model.get_output_embeddings()
        if head is None:
            raise ValueError(f"{self.name} has no unembedding")
        return head.get_parameter("weight").detach().float().T

    def decode(self, ids: list[int] | Tensor) -> list[str]:
        """One display string per token id, leading spaces kept (a lone byte of a longer character
        shows as U+FFFD).
        """
        ids = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        if not self._spaced:
            return [self.tokenizer.decode([i]) for i in ids]
        return [name.replace("▁", " ") for name in self.tokenizer.convert_ids_to_tokens(ids)]

    @functools.cached_property
    def _spaced(self) -> bool:
        """Whether the tokenizer is SentencePiece: decoding one token would drop its space."""
        return "▁" in "".join(self.tokenizer.get_vocab())

    @property
    def facts(self) -> dict[str, Any]:
        """What identifies the model, for the run's record."""
        return {
            "model": self.name,
            "architecture": type(self.model).__name__,
            "parameters": self.model.num_parameters(),
            "dtype": str(self.dtype).removeprefix("torch."),
            "layers": self.n_layers,
            "d_in": self.d_in,
            "hook": self.hook.name,
            "weights_hash": self.weights_hash,
            "versions": {
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "tokenizers": tokenizers.__version__,
                "python": platform.python_version(),
            },
        }

    @property
    def weights_hash(self) -> str:
        """sha256 over the weight files of a local folder; the commit of a model from the hub."""
        folder = Path(locate(self.name))
        if not folder.is_dir():
            return str(getattr(self.model.config, "_commit_hash", None))
        paths = sorted(folder.glob("*.safetensors"))
        return _files_hash(
            tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
        )


def load_model(
    name: str, hook: str | Hook = "middle", *, device: str = "auto", dtype: str = "float32"
) -> HFModel:
    """Load `pylm`, a local folder or a Hugging Face id, to be read at `hook` (any spelling, see
    `lm.hooks`).

    Raises `ModelUnavailable`, `FileNotFoundError` or `ValueError`, saying what is wrong with the
    model or the hook.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model, tokenizer = load_weights(name, device, dtype)
    return wrap(model, tokenizer, name, hook)


def wrap(model: PreTrainedModel, tokenizer: Any, name: str, hook: str | Hook = "middle") -> HFModel:
    """A frozen model already in memory, read at `hook`. Raises `ValueError` for a hook it does not
    have.
    """
    layout = layout_of(model)
    tuples = _returns_tuples(model, layout)
    return HFModel(model, tokenizer, name, parse_hook(hook, layout), layout, tuples)


def _returns_tuples(model: PreTrainedModel, layout: Layout) -> bool:
    outputs: list[Any] = []

    def look(module: nn.Module, args: Any, output: Any) -> None:
        outputs.append(output)
        raise _Stop

    tokens = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    first = model.get_submodule(f"{layout.blocks}.0")
    with first.register_forward_hook(look), contextlib.suppress(_Stop), torch.no_grad():
        model(input_ids=tokens, use_cache=False)
    return isinstance(outputs[0], tuple)


@functools.cache
def _files_hash(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Of (path, time of last change, size): files that changed are hashed anew."""
    digest = hashlib.sha256()
    for path, _, _ in files:
        digest.update(file_hash(path).encode())
    return digest.hexdigest()[:16]
