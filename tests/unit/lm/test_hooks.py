import pytest

from helpers import ARCHITECTURES, tiny_model
from saelab.lm.hooks import layout_of, parse_hook
from saelab.types import SITES, Hook

PATHS = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}
LLAMA = layout_of(tiny_model("llama").config)
GEMMA2 = layout_of(tiny_model("gemma2").config)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_config_alone_and_model_agree_on_every_spelling(arch):
    model = tiny_model(arch)
    layout = layout_of(model.config)
    assert layout == layout_of(model)
    stem = PATHS.get(arch, "model.layers")
    assert layout.blocks == stem
    for layer in range(4):
        for site in SITES:
            hook = Hook(layer, site)
            assert parse_hook(hook.name, layout) == hook
            if site != "resid_pre":  # a path names an output
                assert parse_hook(layout.path(hook), layout) == hook
        assert parse_hook(f"{stem}.{layer}", layout) == Hook(layer)
        assert parse_hook(f"{stem.partition('.')[2]}.{layer}", layout) == Hook(layer)
        assert parse_hook(f"layers.{layer}", layout) == Hook(layer)
    assert parse_hook("middle", layout) == Hook(1)


def test_middle_ends_the_first_half():
    for layers, middle in ((1, 0), (2, 0), (3, 0), (4, 1), (6, 2)):
        assert parse_hook("middle", tiny_model("llama", num_hidden_layers=layers).config) == Hook(
            middle
        )


def test_sublayer_paths():
    assert parse_hook("layers.2.mlp", LLAMA) == Hook(2, "mlp_out")
    assert parse_hook("model.layers.2.self_attn", LLAMA) == Hook(2, "attn_out")
    assert parse_hook("h.2.mlp", layout_of(tiny_model("gpt2").config)) == Hook(2, "mlp_out")


def test_gemma_2_is_never_taken_for_gemma_1():
    gemma1 = layout_of(tiny_model("gemma").config)
    assert GEMMA2.path(Hook(1, "mlp_out")) == "model.layers.1.post_feedforward_layernorm"
    assert gemma1.path(Hook(1, "mlp_out")) == "model.layers.1.mlp"
    with pytest.raises(
        ValueError, match=r"normalises the output of mlp .* layers\.1\.post_feedforward_layernorm"
    ):
        parse_hook("layers.1.mlp", GEMMA2)
    # in Llama this norm feeds the MLP: its output is never added
    with pytest.raises(ValueError, match="unknown hook"):
        parse_hook("layers.1.post_attention_layernorm", LLAMA)


@pytest.mark.parametrize("spelling", ["blocks.4.hook_resid_post", "layers.4", "model.layers.99"])
def test_a_layer_out_of_range_names_the_range(spelling):
    with pytest.raises(ValueError, match="out of range; this llama has layers 0 to 3"):
        parse_hook(spelling, LLAMA)


@pytest.mark.parametrize(
    ("spelling", "nearest"),
    [
        ("blocks.2.hook_resid_pos", "blocks.2.hook_resid_post"),
        ("layer.2", "layers.2"),
        ("midle", "middle"),
    ],
)
def test_an_unknown_spelling_names_the_nearest(spelling, nearest):
    with pytest.raises(ValueError, match=f"did you mean '{nearest}'"):
        parse_hook(spelling, LLAMA)


def test_a_layer_counted_from_the_end_is_told_its_number():
    with pytest.raises(ValueError, match=r"layers 0 to \d+, so the last one is layers\.\d+$"):
        parse_hook("layers.-1", layout_of(tiny_model("llama")))
