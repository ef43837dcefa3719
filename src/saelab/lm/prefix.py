"""Windows split at one position: what comes before runs once, what comes after reads its keys and
values.

A change at a position reaches nothing before it. Many changes of one position, each counted over a
few positions behind it, then cost those positions and not whole windows.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

if TYPE_CHECKING:
    from saelab.lm.model import HFModel, State

# of the logits' spread: how far a split window may be from the whole one, in half precision too
CLOSE, CLOSE_HALF = 1e-3, 0.05
ALL = slice(None)


@torch.no_grad()
def tail_of(lm: "HFModel", x: Tensor, state: "State", at: int) -> Callable[[Tensor], Tensor]:
    """Run the blocks above the hook on the first `at` positions of windows as captured, x `[n, T,
    D]`.

    What comes back takes activations `[c n, T - at, D]` from position `at` on, c versions of the n
    windows, to their logits `[c n, T - at, V]`.
    """
    before, after = _at(state, (ALL, slice(at))), _at(state, (ALL, slice(at, None)))
    first = lm.hook.layer + (lm.hook.site == "resid_post")  # the first block that runs
    if at > 0 and first < lm.n_layers:
        past = DynamicCache(config=lm.model.config)
        lm.resume(x[:, :at], replace(before, past=past), at - 1)
        nothing = x.new_zeros(len(x), 1, at, 1)
        # blocks that do not run: only the length of what they hold is ever read
        for layer in range(first):
            past.update(nothing, nothing, layer)
        after = replace(after, past=past)
    n = len(x)

    def logits(x: Tensor) -> Tensor:
        rows = torch.arange(n, device=after.tokens.device).repeat(len(x) // n)
        past = None if after.past is None else _rows(after.past, rows)
        return lm.resume(x, replace(_at(after, rows), past=past))

    return logits


@torch.no_grad()
def splits(lm: "HFModel") -> bool:
    """Whether windows of this model can be split: it goes on from kept keys and values as its own
    forward does.
    """
    x, state = lm.capture(lm.few_tokens(12))
    whole = lm.resume(x, state, 7)
    try:
        split = tail_of(lm, x, state, 7)(x[:, 7:])
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError):
        return False  # an architecture whose cache is of another kind
    close = CLOSE_HALF if lm.dtype in (torch.float16, torch.bfloat16) else CLOSE
    return bool((split - whole).abs().max() <= close * whole.float().std())


def _at(state: "State", places: Any) -> "State":
    """The state of some windows, or of some positions in all: `places` is an index of `[B, T]`."""
    block_input = None if state.block_input is None else state.block_input[places]
    return replace(state, tokens=state.tokens[places], block_input=block_input)


def _rows(past: Cache, rows: Tensor) -> Cache:
    """Keys and values of some windows, to be added to: the ones given stay as they are."""
    selected = copy.copy(past)
    selected.layers = [copy.copy(layer) for layer in past.layers]
    selected.batch_select_indices(rows)
    return selected
