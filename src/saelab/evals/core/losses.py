"""What a model loses when activations at the hook are changed: CE and KL per evaluated token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saelab.numbers import kl
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
    lm: LanguageModel, batches: Sequence[tuple[Windows, Any]], mean: Tensor, room: int
) -> tuple[tuple[Tensor, ...], Tensor, tuple[Effect, Effect, Effect]]:
    """Clean logits `[B, T, V]` of the first batches, in `room` bytes at most, clean CE `[N]`, and
    the effects of three ablations of the evaluated tokens.

    Evaluated tokens set to 0, evaluated tokens set to `mean [D]`, and (as SAEBench does) every
    token set to 0. With the whole residual stream 0 the layers above see the same at every token,
    so the last one needs the first batch only; where that does not hold (`mlp_out`, `attn_out`) the
    logits differ between tokens and every batch is run.
    """
    kept, clean_ce, effects = [], [], []
    constant = None  # [V], the logits of an all-zero stream
    for windows, state in batches:
        keep = windows.keep.unsqueeze(2)
        clean = lm.resume(windows.x, state)
        room -= clean.nbytes
        if room >= 0:
            kept.append(clean)
        clean_ce.append(_ce(lm, windows, clean))
        zero = effect(lm, windows, clean, lm.resume(windows.x.masked_fill(keep, 0), state))
        at_mean = torch.where(keep, mean.to(windows.x), windows.x)
        to_mean = effect(lm, windows, clean, lm.resume(at_mean, state))
        logits = (
            lm.resume(torch.zeros_like(windows.x), state)
            if constant is None
            else constant.expand_as(clean)
        )
        effects.append((zero, to_mean, effect(lm, windows, clean, logits)))
        if constant is None and all(
            torch.allclose(window, logits[:1, 0], rtol=1e-5, atol=1e-5) for window in logits
        ):
            constant = logits[0, 0].clone()
    zero, to_mean, zero_all = (join(ablation) for ablation in zip(*effects, strict=True))
    return tuple(kept), torch.cat(clean_ce), (zero, to_mean, zero_all)


def effect(lm: LanguageModel, windows: Windows, clean: Tensor, changed: Tensor) -> Effect:
    """Effect of one LM batch from logits `[B, T, V]`, by the window to keep temporaries small."""
    pairs = [_kl(p.float(), q.float()) for p, q in zip(clean, changed, strict=True)]
    divergence, shipped = (
        torch.stack(rows)[windows.keep].cpu() for rows in zip(*pairs, strict=True)
    )
    return Effect(_ce(lm, windows, changed), divergence, shipped)


def join(effects: Sequence[Effect]) -> Effect:
    """Effects of consecutive batches as one."""
    return Effect(
        torch.cat([effect.ce for effect in effects]),
        torch.cat([effect.kl for effect in effects]),
        torch.cat([effect.kl_shipped for effect in effects]),
    )


def _kl(clean: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
    """KL of logits `[T, V]` in nats `[T]`, by log_softmax and as SAEBench ships it."""
    log_p, log_q = clean.log_softmax(1), changed.log_softmax(1)
    divergence = kl(log_p, log_q)
    if torch.minimum(log_p.amin(), log_q.amin()) > LOG_SAFE:
        return divergence, divergence
    p = clean.softmax(1)
    return divergence, (p * (p.log() - changed.softmax(1).log())).sum(1)


def _ce(lm: LanguageModel, windows: Windows, logits: Tensor) -> Tensor:
    """CE of predicting the next token, per evaluated token `[n]`; 0 at the last position."""
    rows = zip(logits.split(1), windows.tokens.split(1), strict=True)
    losses = torch.cat([lm.loss(row.float(), tokens) for row, tokens in rows])  # [B, T-1]
    return torch.nn.functional.pad(losses, (0, 1))[windows.keep].cpu()
