"""What a change of the activation does to the chance that the next token is one of a set, at the
changed position itself.

Legend: C changes | n positions | D width | V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from saelab.effects.reactions import MAX_BYTES, Text, reactions, vocabulary_of
from saelab.numbers import kl_of_near


@dataclass(frozen=True)
class SetEffects:
    """Predictions at n positions, clean and after each of C changes, nats."""

    clean: Tensor  # [n] log-probability of the set
    changed: Tensor  # [C, n] the same after each change
    kl: Tensor  # [C, n] KL(clean || changed) over all tokens


@torch.no_grad()
def set_effects(
    text: Text, rows: Tensor, delta: Tensor, members: Tensor, *, max_bytes: int = MAX_BYTES
) -> SetEffects:
    """Effects of adding `delta [C, n, D]` at the positions `rows [n]` of `text` on the set of token
    ids `members [m]`.

    One change at a time, the rest of the window as it is; only the changed position's own
    prediction counts. A change of 0 is the untouched model. Raises `ValueError` for shapes that do
    not fit, an empty set of tokens, or ids that the model does not have.
    """
    if delta.ndim != 3 or delta.shape[1] != len(rows):
        raise ValueError(
            f"delta is {list(delta.shape)}; give changes for {len(rows)} positions, [C, "
            f"{len(rows)}, D]"
        )
    if len(members) == 0:
        raise ValueError(
            "the set of tokens is empty; name at least one token whose chance is asked for"
        )
    vocabulary = vocabulary_of(text)
    wrong = members[(members < 0) | (members >= vocabulary)].tolist()
    if wrong:
        raise ValueError(
            f"token ids {wrong[:8]} do not exist; the model has tokens 0 to {vocabulary - 1}"
        )
    clean = torch.zeros(len(rows), dtype=torch.float32)
    changed, divergence = torch.zeros(2, *delta.shape[:2], dtype=torch.float32)
    for reaction in reactions(text, rows, delta, 0, max_bytes):
        log_p, log_q = reaction.clean[:, 0], reaction.changed[:, :, 0]
        where = reaction.changes.unsqueeze(1), reaction.pairs
        clean[reaction.pairs] = log_p[:, members].logsumexp(-1).cpu()
        changed[where] = log_q[..., members].logsumexp(-1).cpu()
        divergence[where] = kl_of_near(log_p.unsqueeze(0), log_q).cpu()
    return SetEffects(clean, changed, divergence)
