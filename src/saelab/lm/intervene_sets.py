"""What a change of the activation does to the chance that the next token is one of a set, at the changed position itself.

Legend: C changes | n positions | D width | V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from saelab.lm.intervene import MAX_BYTES, SMALLEST, WIDTHS, Text, divergence, fitting


@dataclass(frozen=True)
class SetEffects:
    """Predictions at n positions, clean and after each of C changes, nats."""

    clean: Tensor  # [n] log-probability of the set
    changed: Tensor  # [C, n] the same after each change
    kl: Tensor  # [C, n] KL(clean || changed) over all tokens


@torch.no_grad()
def set_effects(text: Text, rows: Tensor, delta: Tensor, members: Tensor, *, max_bytes: int = MAX_BYTES) -> SetEffects:
    """Effects of adding `delta [C, n, D]` at the positions `rows [n]` of `text` on the set of token ids `members [m]`.

    One change at a time, the rest of the window as it is; windows are cut behind the changed position, for only its own
    prediction counts. A change of 0 is the untouched model. Raises `ValueError` for shapes that do not fit, an empty set of
    tokens, or ids that the model does not have.
    """
    if delta.ndim != 3 or delta.shape[1] != len(rows):
        raise ValueError(f"delta is {list(delta.shape)}; give changes for {len(rows)} positions, [C, {len(rows)}, D]")
    n_changes, n = delta.shape[:2]
    found = SetEffects(*(torch.zeros(shape, dtype=torch.float32) for shape in ((n,), (n_changes, n), (n_changes, n))))
    window, position = text.window[rows], text.position[rows]
    order = position.argsort(descending=True, stable=True)
    vocabulary = text.lm.resume(*text.read(text.window[:1], 1)).shape[-1]
    _check_members(members, vocabulary)
    at = 0
    while at < n:
        length = int(position[order[at]]) + 1
        rows_at_once = fitting(length - position[order[at:]], vocabulary, WIDTHS * length * text.lm.d_in, max_bytes)
        part = order[at : at + rows_at_once]
        since = int(position[part[-1]])
        x, state = text.read(window[part], length)  # [b, length, D]
        row, place = torch.arange(len(part), device=x.device), position[part].to(x.device)

        def log_p(x: Tensor) -> Tensor:
            logits = text.lm.resume(x, state, since)[row, place - since]  # noqa: B023
            return logits.float().log_softmax(-1).clamp(min=SMALLEST).cpu()

        clean = log_p(x)
        found.clean[part] = clean[:, members].logsumexp(-1)
        for c in range(n_changes):
            changed = x.clone()
            changed[row, place] += delta[c, part].to(x)
            log_q = log_p(changed)
            found.changed[c, part] = log_q[:, members].logsumexp(-1)
            found.kl[c, part] = divergence(clean, log_q)
        at += len(part)
    return found


def _check_members(members: Tensor, vocabulary: int) -> None:
    if len(members) == 0:
        raise ValueError("the set of tokens is empty; name at least one token whose chance is asked for")
    wrong = members[(members < 0) | (members >= vocabulary)].tolist()
    if wrong:
        raise ValueError(f"token ids {wrong[:8]} do not exist; the model has tokens 0 to {vocabulary - 1}")
