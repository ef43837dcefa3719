"""Where in a language model: `Hook` <-> `blocks.5.hook_resid_post` <-> `layers.5` <->
`model.layers.5`.

The module tree is read off the model itself, or off a weightless copy built from its config, so a
hook is checked before any weight loads and no architecture needs a table.
"""

import difflib
import re
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from saelab.types import SITES, Hook

_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward", "block_sparse_moe")
# Gemma-2, Gemma-3 and OLMo-2 normalise what a sublayer returns before adding it; only they have the
# second name of a pair. In Llama or Gemma 1, post_attention_layernorm alone is the norm *before*
# the MLP: there the pair is incomplete.
_POST_NORMS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)


@dataclass(frozen=True)
class Layout:
    """The module tree of a causal LM: paths from the model, names within a block ("" where there is
    none).
    """

    architecture: str
    blocks: str  # path of the list of blocks, `model.layers`
    base: str  # path of the base model, `model`
    n_layers: int
    attn: str  # module of a block whose output is added to the residual stream
    mlp: str
    inner: tuple[str, ...] = ()  # modules whose output passes a norm before it is added: not a site

    def path(self, hook: Hook) -> str:
        """Path of the module whose output is read at `hook` (`model.layers.5.mlp`); for `resid_pre`
        of the block whose input is read.
        """
        block = f"{self.blocks}.{hook.layer}"
        name = {"attn_out": self.attn, "mlp_out": self.mlp}.get(hook.site)
        return block if name is None else f"{block}.{name}"


def layout_of(config_or_model: PreTrainedConfig | PreTrainedModel) -> Layout:
    """Find the blocks and their sublayers. Raises `ValueError` for a model that is no stack of
    blocks.
    """
    model = config_or_model
    if isinstance(model, PreTrainedConfig):
        with torch.device("meta"):  # modules without weights
            model = AutoModelForCausalLM.from_config(model)
    n_layers = model.config.get_text_config().num_hidden_layers
    stacks = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == n_layers
        and _first(module[0], (*_ATTENTION, *_MLP))
    ]
    if not stacks:
        raise ValueError(
            f"no stack of {n_layers} blocks with attention or MLP found in "
            f"{type(model).__name__}; saelab cannot hook it"
        )
    path, stack = stacks[0]
    block = stack[0]
    attn, mlp = _first(block, _ATTENTION), _first(block, _MLP)
    inner: tuple[str, ...] = ()
    for after_attn, after_mlp in _POST_NORMS:
        if hasattr(block, after_attn) and hasattr(block, after_mlp):
            inner, attn, mlp = (attn, mlp), after_attn, after_mlp
    return Layout(
        model.config.model_type, path, path.rpartition(".")[0], n_layers, attn, mlp, inner
    )


def _first(block: nn.Module, names: tuple[str, ...]) -> str:
    return next((name for name in names if isinstance(getattr(block, name, None), nn.Module)), "")


def parse_hook(
    spelling: str | Hook, config_or_model: PreTrainedConfig | PreTrainedModel | Layout
) -> Hook:
    """The `Hook` meant by `blocks.5.hook_resid_post`, `layers.5`, `layers.5.mlp`, `model.layers.5`
    or `middle`.

    A path names a module, and means its output. `middle` is the output of the block that ends the
    first half. Raises `ValueError` for an unknown spelling (with the nearest one), a layer out of
    range, or a site that the architecture does not have.
    """
    spelling = spelling.name if isinstance(spelling, Hook) else spelling
    layout = config_or_model if isinstance(config_or_model, Layout) else layout_of(config_or_model)
    if spelling == "middle":
        return Hook(max(layout.n_layers // 2 - 1, 0))
    if re.search(r"\.-\d+\b", spelling):
        raise ValueError(
            f"hook {spelling!r}: layers are counted from the first one; this "
            f"{layout.architecture} has layers 0 to {layout.n_layers - 1}, so the last one is "
            f"layers.{layout.n_layers - 1}"
        )
    name = re.fullmatch(rf"blocks\.\d+\.hook_({'|'.join(SITES)})", spelling)
    hook = Hook.from_name(spelling) if name else _from_path(spelling, layout)
    if not 0 <= hook.layer < layout.n_layers:
        raise ValueError(
            f"hook {spelling!r}: layer {hook.layer} is out of range; "
            f"this {layout.architecture} has layers 0 to {layout.n_layers - 1}"
        )
    if (hook.site == "attn_out" and not layout.attn) or (hook.site == "mlp_out" and not layout.mlp):
        raise ValueError(
            f"hook {spelling!r}: a block of {layout.architecture} has no module for {hook.site}; "
            "use resid_pre or resid_post"
        )
    return hook


def _from_path(spelling: str, layout: Layout) -> Hook:
    relative = layout.blocks.removeprefix(layout.base + ".")
    stems = [*dict.fromkeys((layout.blocks, relative, "layers"))]
    for stem in stems:
        match = re.fullmatch(rf"{re.escape(stem)}\.(\d+)(?:\.(\w+))?", spelling)
        if match is None:
            continue
        layer, child = int(match[1]), match[2]
        if child is None:
            return Hook(layer)
        if child in layout.inner:
            added = layout.attn if child == layout.inner[0] else layout.mlp
            raise ValueError(
                f"hook {spelling!r}: {layout.architecture} normalises the output of {child} "
                "before adding it to the "
                f"residual stream; write {stem}.{layer}.{added} for what is added"
            )
        if child in (layout.attn, layout.mlp):
            return Hook(layer, "attn_out" if child == layout.attn else "mlp_out")
    raise ValueError(
        f"unknown hook {spelling!r}; did you mean {_nearest(spelling, layout, stems)!r}? "
        f"Write blocks.<layer>.hook_<{'|'.join(SITES)}>, layers.<layer>, {layout.blocks}.<layer> "
        "or middle"
    )


def _nearest(spelling: str, layout: Layout, stems: list[str]) -> str:
    digits = re.search(r"\d+", spelling)
    layer = min(int(digits[0]), layout.n_layers - 1) if digits else 0
    children = [f".{name}" for name in (layout.attn, layout.mlp) if name]
    names = [f"blocks.{layer}.hook_{site}" for site in SITES] + ["middle"]
    names += [f"{stem}.{layer}{child}" for stem in stems for child in ("", *children)]
    return difflib.get_close_matches(spelling, names, 1, 0.0)[0]
