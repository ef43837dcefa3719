"""What the language model loses when activations at the hook are changed: CE and KL per evaluated
token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saelab.types import LanguageModel, Windows

# below this log-probability, softmax then log may differ from log_softmax in float32
LOG_SAFE = -80.0


@dataclass(frozen=True)
class Effect:
    """What the model does with changed activations, per evaluated token `[N]`."""

    ce: Tensor  # nats; 0 where the token predicts nothing
    kl: Tensor  # nats, KL(clean || changed)
    kl_shipped: Tensor  # the same by softmax then log, NaN where a probability underflows


def ablations(
    lm: LanguageModel, batches: Sequence[tuple[Windows, Any]], mean: Tensor
) -> tuple[Tensor, tuple[Effect, Effect, Effect]]:
    """Clean CE `[N]` and the effects of three ablations of the evaluated tokens.

    Evaluated tokens set to 0, evaluated tokens set to `mean [D]`, and (as SAEBench does) every
    token set to 0. With the whole residual stream 0 the layers above see the same at every token,
    so the last one needs the first batch only; where that does not hold (`mlp_out`, `attn_out`) the
    logits differ between tokens and every batch is run.
    """
    clean_ce, effects = [], []
    constant = None  # [V], the logits of an all-zero stream
    for windows, state in batches:
        keep = windows.keep.unsqueeze(2)
        clean = lm.resume(windows.x, state)
        clean_ce.append(_ce(lm, windows, clean))
        zero = effect(lm, windows, clean, lm.resume(windows.x.masked_fill(keep, 0), state))
        to_mean = effect(
            lm, windows, clean, lm.resume(torch.where(keep, mean.to(windows.x), windows.x), state)
        )
        logits = (
            lm.resume(torch.zeros_like(windows.x), state)
            if constant is None
            else constant.expand_as(clean)
        )
        effects.append((zero, to_mean, effect(lm, windows, clean, logits)))
        if constant is None and all(
            torch.allclose(each, logits[:1, 0], rtol=1e-5, atol=1e-5) for each in logits
        ):
            constant = logits[0, 0].clone()
    first, second, third = (join(list(each)) for each in zip(*effects, strict=True))
    return torch.cat(clean_ce), (first, second, third)


def effect(lm: LanguageModel, windows: Windows, clean: Tensor, changed: Tensor) -> Effect:
    """Effect of one LM batch from logits `[B, T, V]`, a window at a time so that temporaries stay
    small.
    """
    kl, shipped = zip(
        *[_kl(p.float(), q.float()) for p, q in zip(clean, changed, strict=True)], strict=True
    )
    keep = windows.keep
    return Effect(
        _ce(lm, windows, changed), torch.stack(kl)[keep].cpu(), torch.stack(shipped)[keep].cpu()
    )


def join(effects: list[Effect]) -> Effect:
    """Effects of consecutive batches as one."""
    return Effect(
        *(torch.cat([getattr(e, name) for e in effects]) for name in ("ce", "kl", "kl_shipped"))
    )


def _kl(clean: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
    """KL(clean || changed) of logits `[T, V]` in nats `[T]`, by log_softmax and as SAEBench ships
    it.
    """
    log_p, log_q = clean.log_softmax(1), changed.log_softmax(1)
    kl = (log_p.exp() * (log_p - log_q)).sum(1)
    if torch.minimum(log_p.amin(), log_q.amin()) > LOG_SAFE:
        return kl, kl
    p = clean.softmax(1)
    return kl, (p * (p.log() - changed.softmax(1).log())).sum(1)


def _ce(lm: LanguageModel, windows: Windows, logits: Tensor) -> Tensor:
    """CE of predicting the next token, per evaluated token `[n]`; 0 at the last position."""
    # [1, T-1]
    each = [
        lm.loss(logits[b : b + 1].float(), windows.tokens[b : b + 1]) for b in range(len(logits))
    ]
    return torch.nn.functional.pad(torch.cat(each), (0, 1))[windows.keep].cpu()
