"""What can be refused before a language model loads is refused here, in one sentence with the
numbers.
"""

from saelab.lm.hooks import parse_hook
from saelab.lm.weights import load_config
from saelab.runs import Source
from saelab.text.corpora import check_corpus

_COUNTS = ("tokens", "batch", "context", "buffer", "lm_batch", "eval_windows")


def check_source(source: Source) -> None:
    """Check numbers, model, hook and corpus of `source`, in this order, without loading weights.

    Raises `ValueError` (`ModelUnavailable` for a gated or missing model) or `FileNotFoundError`.
    """
    _check_numbers(source)
    config = load_config(source.model)
    parse_hook(source.hook, config)
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and source.context > longest:
        raise ValueError(
            f"context {source.context:,} is more than the {longest:,} positions of "
            f"{source.model}; lower context"
        )
    check_corpus(source)


def width_of(source: Source) -> int:
    """Width D of the activations of `source`, from the model's configuration."""
    return load_config(source.model).get_text_config().hidden_size


def _check_numbers(source: Source) -> None:
    for name in _COUNTS:
        value = getattr(source, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number; got {value!r}")
        if value <= 0:
            raise ValueError(f"{name} must be positive; got {value:,}")
    if source.steps == 0:
        raise ValueError(
            f"{source.tokens:,} tokens are fewer than one batch of {source.batch:,}: 0 training "
            f"steps; ask for {source.batch:,} tokens or more, or a smaller batch"
        )
    if source.context < 2:
        raise ValueError(
            f"context must be 2 or more, the first token of a window included; got {source.context}"
        )
    if source.buffer < source.batch:
        raise ValueError(
            f"the shuffle buffer of {source.buffer:,} activations is smaller than one batch of "
            f"{source.batch:,}"
        )
    windows = source.buffer // source.context
    usable = windows * (source.context - 1)
    if usable < source.batch:
        raise ValueError(
            f"a buffer of {source.buffer:,} holds {windows:,} windows of {source.context}, "
            f"{usable:,} activations without their first tokens: fewer than one batch of "
            f"{source.batch:,}; raise the buffer (to twice the batch, say)"
        )
    if source.max_norm is not None and not source.max_norm > 1:
        raise ValueError(
            f"max_norm is a multiple of the median norm and must be over 1; got {source.max_norm}"
        )
