"""Predictions after changes: split windows and whole ones give the same, and no piece is forgotten."""

import pytest
import torch

from helpers import byte_tokenizer, tiny_model
from saelab.effects.reactions import Text, reactions
from saelab.effects.sets import set_effects
from saelab.lm.model import HFModel, wrap
from saelab.numbers import kl_of_near

TOKENS = torch.randint(2, 258, (5, 24), generator=torch.Generator().manual_seed(1))
PLACES = torch.randint(0, 5 * 24, (17,), generator=torch.Generator().manual_seed(2))


def text_of(arch: str, *, hook: str = "middle") -> Text:
    lm = wrap(tiny_model(arch).requires_grad_(False), byte_tokenizer(), arch, hook)
    window, position = torch.arange(5).repeat_interleave(24), torch.arange(24).repeat(5)
    return Text(lm, lambda rows, length: lm.capture(TOKENS[rows, :length]), window, position, 24)


def divergences(text: Text, following: int, max_bytes: int) -> torch.Tensor:
    """KL `[C, M]`, NaN for a pair and change that no piece held."""
    delta = torch.randn(3, len(PLACES), 32, generator=torch.Generator().manual_seed(3))
    kl = torch.full((3, len(PLACES)), float("nan"))
    for found in reactions(text, PLACES, delta, following, max_bytes):
        assert found.changed.shape[:2] == (len(found.changes), len(found.pairs))
        each = kl_of_near(found.clean.unsqueeze(0), found.changed) * found.inside
        at = found.changes.unsqueeze(1), found.pairs
        assert kl[at].isnan().all(), "given twice"
        kl[at] = each.sum(-1)
    return kl


@pytest.mark.parametrize("arch", ["gpt2", "gpt_neox", "gemma2"])
@pytest.mark.parametrize(
    "hook",
    ["middle", "blocks.0.hook_resid_pre", "blocks.3.hook_resid_post", "blocks.2.hook_mlp_out"],
)
def test_split_and_whole_windows_agree(monkeypatch, arch, hook):
    text = text_of(arch, hook=hook)
    split = divergences(text, 6, 1 << 25)
    monkeypatch.setattr(HFModel, "splits", lambda self: False)
    whole = divergences(text, 6, 1 << 25)
    assert whole.min() > 1e-4
    torch.testing.assert_close(split, whole, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("following", [0, 6, 100])
def test_pieces_change_no_number(following):
    text = text_of("gpt2")
    found = [divergences(text, following, budget) for budget in (1, 1 << 18, 1 << 25)]
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, rtol=1e-3, atol=1e-6)


def test_a_window_is_read_before_its_position_once(monkeypatch):
    """Three changes of one position: the blocks above the hook see what precedes it a single time."""
    text = text_of("gpt2")
    seen: list[int] = []
    block = text.lm.model.transformer.h[3]  # pyright: ignore
    block.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[1]))
    monkeypatch.setattr(HFModel, "splits", lambda self: True)
    delta = torch.randn(3, 1, 32, generator=torch.Generator().manual_seed(3))
    for found in reactions(text, torch.tensor([20]), delta, 3):
        assert found.changed.shape == (3, 1, 4, 258)
    # the size of the vocabulary, the prefix, all versions of the tail at once
    assert seen == [1, 20, 4]


def test_sets_of_tokens_agree(monkeypatch):
    text = text_of("gemma2")
    delta = torch.randn(2, len(PLACES), 32, generator=torch.Generator().manual_seed(3))
    members = torch.tensor([3, 9])
    split = set_effects(text, PLACES, delta, members)
    monkeypatch.setattr(HFModel, "splits", lambda self: False)
    whole = set_effects(text, PLACES, delta, members)
    for name in ("clean", "changed", "kl"):
        torch.testing.assert_close(getattr(split, name), getattr(whole, name), rtol=1e-3, atol=1e-5)
