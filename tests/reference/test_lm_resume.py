"""Capture and resume against the model's own forward, for every architecture and site."""

import pytest
import torch

from helpers import ARCHITECTURES, byte_tokenizer, tiny_model
from saelab.lm.model import HFModel, wrap
from saelab.types import SITES, Hook

TUPLES = {
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 4,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 2]],
    }
}
TOKENS = torch.randint(2, 258, (3, 20), generator=torch.Generator().manual_seed(1))


def build(arch: str, **fields) -> HFModel:
    model = tiny_model(arch, **fields).requires_grad_(False)
    return wrap(model, byte_tokenizer(), arch)


@pytest.fixture(scope="module", params=[*ARCHITECTURES, "gpt_neo"])
def lm(request) -> HFModel:
    return build(request.param, **TUPLES.get(request.param, {}))


@pytest.mark.parametrize("site", SITES)
def test_resuming_what_was_captured_gives_the_models_own_logits(lm, site):
    own = lm.logits(TOKENS)
    for layer in range(4):
        here = lm.at(Hook(layer, site))
        x, state = here.capture(TOKENS)
        assert x.shape == (3, 20, 32)
        torch.testing.assert_close(here.resume(x, state), own, rtol=0, atol=1e-5)
        torch.testing.assert_close(here.resume(x, state, 17), own[:, 17:], rtol=0, atol=1e-5)
        changed = here.resume(
            x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0)), state
        )
        assert (changed - own).abs().max() > 0.05, (
            f"layer {layer}: what is put in does not reach the logits"
        )
    torch.testing.assert_close(lm.logits(TOKENS), own, rtol=0, atol=0)  # no hook left behind


def test_the_residual_stream_is_the_models_hidden_states(lm):
    hidden = lm.model(input_ids=TOKENS, output_hidden_states=True).hidden_states
    for layer in range(4):
        assert torch.equal(lm.at(Hook(layer, "resid_pre")).capture(TOKENS)[0], hidden[layer])
        if layer < 3:  # the last entry is taken after the final norm
            assert torch.equal(lm.at(Hook(layer)).capture(TOKENS)[0], hidden[layer + 1])


def test_the_block_adds_attention_and_mlp(lm):
    for layer in range(4):
        x = {site: lm.at(Hook(layer, site)).capture(TOKENS)[0] for site in SITES}
        torch.testing.assert_close(
            x["resid_post"] - x["resid_pre"], x["attn_out"] + x["mlp_out"], rtol=1e-4, atol=1e-4
        )


def test_sequential_and_parallel_residuals_of_gpt_neox():
    for parallel in (True, False):
        lm = build("gpt_neox", use_parallel_residual=parallel)
        here = lm.at(Hook(1, "attn_out"))
        x, state = here.capture(TOKENS)
        torch.testing.assert_close(here.resume(x, state), lm.logits(TOKENS), rtol=0, atol=1e-5)
        # zero attention in block 1, by hand: parallel feeds the MLP from the block's input either
        # way
        before = lm.at(Hook(1, "resid_pre")).capture(TOKENS)[0]
        block = lm.blocks[1]
        by_hand = before + block.mlp(block.post_attention_layernorm(before))  # pyright: ignore
        top = lm.at(Hook(1))
        expected = top.resume(by_hand, top.capture(TOKENS)[1])
        torch.testing.assert_close(
            here.resume(torch.zeros_like(x), state), expected, rtol=0, atol=1e-5
        )


def test_gemma_2_reads_what_is_added_and_gemma_1_the_sublayer_itself():
    for arch, normed in (("gemma2", True), ("gemma", False)):
        lm = build(arch)
        seen = {}
        block = lm.blocks[2]
        handle = block.mlp.register_forward_hook(
            lambda _, args, output, seen=seen: seen.update(raw=output)
        )  # pyright: ignore
        added = lm.at(Hook(2, "mlp_out")).capture(TOKENS)[0]
        handle.remove()
        expected = block.post_feedforward_layernorm(seen["raw"]) if normed else seen["raw"]  # pyright: ignore
        torch.testing.assert_close(added, expected)
        assert normed == (not torch.allclose(added, seen["raw"]))


def test_only_the_needed_layers_run(lm):
    calls: list[int] = []
    resid, mlp = lm.at(Hook(1)), lm.at(Hook(2, "mlp_out"))
    handles = [
        part.register_forward_hook(lambda *_, i=i: calls.append(i))
        for i, block in enumerate(lm.blocks)
        for part in [block.get_submodule(lm.layout.attn)]
    ]
    x, state = resid.capture(TOKENS)
    assert calls == [0, 1]
    calls.clear()
    resid.resume(x, state)
    assert calls == [2, 3]
    calls.clear()
    x, state = mlp.capture(TOKENS)
    assert calls == [0, 1, 2]
    calls.clear()
    mlp.resume(x, state)
    assert calls == [2, 3]
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("site", SITES)
def test_resume_is_differentiable_in_x(site):
    lm = build("gemma2").at(Hook(1, site))
    lm.model.double()
    x, state = lm.capture(TOKENS[:1, :5])
    x = x.clone().requires_grad_()
    direction = torch.randn(
        x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )

    def loss(at):
        return lm.loss(lm.resume(at, state), state.tokens).double().mean()

    (gradient,) = torch.autograd.grad(loss(x), x)
    step = 1e-4  # the loss is in float32
    with torch.no_grad():
        numeric = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(numeric.item(), rel=0.02, abs=2e-3)


def test_loss_is_next_token_cross_entropy_in_nats():
    lm = build("llama")
    logits = torch.full((1, 3, 258), 0.0)
    logits[0, 0, 7] = 5.0
    loss = lm.loss(logits, torch.tensor([[3, 7, 9]]))
    assert loss.shape == (1, 2)
    log_z = torch.tensor(257 + torch.e**5).log().item()
    assert loss[0].tolist() == pytest.approx(
        [log_z - 5.0, torch.tensor(258.0).log().item()], abs=1e-5
    )


@pytest.mark.parametrize("site", SITES)
def test_a_split_window_goes_on_as_the_whole_one(lm, site):
    noise = torch.randn(3, 32, generator=torch.Generator().manual_seed(2))
    for layer in range(4):
        here = lm.at(Hook(layer, site))
        assert here.splits()
        x, state = here.capture(TOKENS)
        for at in (0, 1, 11, 19):  # gemma2 and gpt_neo see 8 positions in some layers
            changed = x.clone()
            changed[:, at] += noise
            tail = here.tail(x, state, at)
            for _ in range(2):  # what was kept is not used up
                both = tail(torch.cat([x, changed])[:, at:])
                whole = torch.cat([here.resume(x, state, at), here.resume(changed, state, at)])
                torch.testing.assert_close(both, whole, rtol=0, atol=3e-5)


def test_a_model_that_cannot_split_says_so(monkeypatch):
    assert build("gpt2").splits()
    lm = build("gpt2")
    own = lm.model.transformer.h[2].attn.forward  # pyright: ignore
    names = ("cache", "past_key_values")  # of one argument, in new and in older transformers

    def ignoring(*args, **kwargs):
        return own(*args, **(kwargs | {name: None for name in names if name in kwargs}))

    monkeypatch.setattr(lm.model.transformer.h[2].attn, "forward", ignoring)  # pyright: ignore
    assert not lm.splits()


def test_logits_of_some_positions_without_the_models_help(monkeypatch):
    """An architecture that gives logits everywhere, whatever is asked: the last ones are taken."""
    lm = build("gpt2")
    x, state = lm.capture(TOKENS)
    expected = lm.resume(x, state)[:, 13:]
    own = lm.model.forward

    def forward(input_ids, **kwargs):
        return own(
            input_ids=input_ids,
            **{key: value for key, value in kwargs.items() if key != "logits_to_keep"},
        )

    monkeypatch.setattr(lm.model, "forward", forward)
    assert torch.equal(build("gpt2").resume(x, state)[:, 13:], expected) and torch.equal(
        lm.resume(x, state, 13), expected
    )
