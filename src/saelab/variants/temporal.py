"""Parts of the temporal idea: a slow block of latents that stands for what persists along the text.

Hypothesis: a block that must predict the activation some tokens on keeps the features that carry
over, also where they are rare and small and reconstruction gives them up. Loss: that of the base
plus weight * E||y(t + lag) - g_lag R(t)||^2 / E||y||^2, y the activation less the mean at its
position, R the block's part of the reconstruction; and, for comparison, the penalties and the
contrast that others use. Data: text in order, pieces of one document each.
"""

from dataclasses import replace
from typing import Annotated, Literal

from saelab.numbers import Count, Kind, NonNegative, Positive, Switch
from saelab.terms.base import Need, Objective, Term, Variant
from saelab.terms.temporal.penalties import (
    LagCorrelation,
    PositionCorrelation,
    Smoothness,
    TokenContrast,
)
from saelab.terms.temporal.pieces import SLOW
from saelab.terms.temporal.prediction import Prediction, position_means_need
from saelab.types import Pieces

Block = Annotated[float, Kind(0, 1, above=True), "share of the latents that are the slow block"]
Length = Annotated[float, Kind(2, whole=True), "positions of a piece of text"]
Every = Annotated[Count, "tokens from one position of a piece to the next"]
Sliding = Annotated[Switch, "pieces may overlap"]


def with_prediction(
    base: Variant,
    *,
    weight: Annotated[NonNegative, "of the prediction error in the loss"] = 10,
    block: Block = 1 / 16,
    length: Length = 16,
    every: Every = 4,
    reach: Annotated[Count, "tokens to the furthest position that is predicted"] = 32,
    untied: Annotated[Switch, "predict by a matrix that only training uses"] = 1,
    sliding: Sliding = 1,
    null: Literal["none", "permuted"] = "none",
) -> Variant:
    """The base's slow block predicts activations further on and back, through one learned gain per
    distance. The defaults are those of a prototype on a language model.

    `null`: what is predicted comes from another piece, so nothing persists.
    """
    need, pieces = position_means_need(), Pieces(round(length), round(every), bool(sliding))
    term = Prediction(
        need.name,
        pieces.name,
        _slow_block(base, block),
        base.sae.d_in,
        reach=round(reach),
        untied=bool(untied),
        permuted=null == "permuted",
    )
    return _joined(base, Term("prediction", term, weight), pieces, block, need)


def with_smoothness(
    base: Variant,
    *,
    weight: Annotated[NonNegative, "of the change of slow codes in the loss"] = 0.1,
    block: Block = 1 / 16,
    window: Length = 8,
    variance: Annotated[
        Switch, "variance within a window, instead of the change between neighbours"
    ] = 0,
    relative: Annotated[Switch, "relative to the size of the codes"] = 0,
    sliding: Sliding = 1,
) -> Variant:
    """The base's slow codes pay for changing within a window of neighbouring tokens: the plain
    readings of temporal consistency, and their scale-free forms.
    """

    pieces = Pieces(round(window), 1, bool(sliding))
    term = Smoothness(pieces.name, bool(variance), bool(relative))
    return _joined(base, Term("smoothness", term, weight), pieces, block)


def with_lag_correlation(
    base: Variant,
    *,
    weight: Annotated[NonNegative, "of 1 - the correlation in the loss"] = 1,
    block: Block = 1 / 16,
    length: Length = 16,
    every: Every = 1,
) -> Variant:
    """The base's slow latents pay for codes that do not correlate along the text."""
    pieces = Pieces(round(length), round(every))
    term = Term("lag_correlation", LagCorrelation(pieces.name), weight)
    return _joined(base, term, pieces, block)


def with_position_penalty(
    base: Variant,
    *,
    weight: Annotated[NonNegative, "of the position's share of slow codes in the loss"] = 1,
    block: Block = 1 / 16,
    length: Length = 16,
    every: Every = 1,
) -> Variant:
    """The base's slow latents pay for codes that can be read off the position alone."""
    pieces = Pieces(round(length), round(every))
    term = Term("position", PositionCorrelation(pieces.name), weight)
    return _joined(base, term, pieces, block)


def with_token_contrast(
    base: Variant,
    *,
    weight: Annotated[NonNegative, "of the contrast in the loss"] = 0.1,
    block: Block = 0.2,
    product: Annotated[Switch, "inner products, as T-SAE's code has it, instead of cosines"] = 0,
    pre: Annotated[Switch, "of pre-activations instead of codes"] = 0,
    temperature: Annotated[Positive, "that cosines are divided by"] = 0.1,
) -> Variant:
    """The base's slow codes must tell the next token of a text from tokens of other texts: the
    contrast of T-SAE (2511.05541).
    """

    pieces = Pieces(2)
    term = TokenContrast(pieces.name, bool(product), bool(pre), temperature)
    return _joined(base, Term("token_contrast", term, weight), pieces, block)


def _slow_block(base: Variant, share: float) -> range:
    """The first latents, that share of all, at least one."""
    return range(max(1, round(share * base.sae.n_latents)))


def _joined(base: Variant, term: Term, pieces: Pieces, share: float, *needs: Need) -> Variant:
    """The base with a slow block, pieces beside what it reads, and one more term on both; the base
    itself for weight 0. Raises `ValueError` where the block cannot be.
    """
    if term.weight == 0:
        return base
    sae, block = base.sae, _slow_block(base, share)
    if sae.blocks.get(SLOW, block) != block:
        raise ValueError(
            f"one part asks for a slow block of {len(sae.blocks[SLOW])} latents and another for "
            f"{len(block)}; give both the same block"
        )
    if any(event.moves for event in base.events):
        raise ValueError(
            "the base sorts its latents during training, which would carry them out of the slow "
            "block; switch that off (frontier:sorts=0)"
        )
    sae.blocks = {**sae.blocks, SLOW: block}
    return replace(
        base,
        objective=Objective(*base.objective.terms, term),
        batches={**base.batches, pieces.name: pieces},
        needs=(*base.needs, *needs),
    )
