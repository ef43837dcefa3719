import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import tiny_checkpoint, tiny_model
from saelab.lm import weights
from saelab.lm.model import load_model
from saelab.types import Hook, LanguageModel

TOKENS = torch.randint(2, 258, (2, 16), generator=torch.Generator().manual_seed(1))


def test_a_folder_loads_frozen_with_its_facts(tmp_path):
    lm = load_model(str(tiny_checkpoint(tmp_path / "m", "llama")))
    assert isinstance(lm, LanguageModel)
    assert lm.hook == Hook(1)
    assert (lm.d_in, lm.n_layers) == (32, 4)
    assert not any(p.requires_grad for p in lm.model.parameters())
    assert not lm.model.training
    assert lm.facts["parameters"] == 53_664
    assert lm.facts["architecture"] == "LlamaForCausalLM"
    assert len(lm.weights_hash) == 16
    assert lm.unembed().shape == (32, 258)
    torch.testing.assert_close(lm.unembed(), lm.model.get_output_embeddings().weight.T)  # pyright: ignore


def test_decode_keeps_leading_spaces(tmp_path):
    lm = load_model(str(tiny_checkpoint(tmp_path / "m", "llama")))
    ids = lm.tokenizer("a b\n", add_special_tokens=False)["input_ids"]
    assert lm.decode(ids) == ["a", " ", "b", "\n"]
    assert lm.decode(torch.tensor([0])) == ["<|bos|>"]


def test_half_precision_weights_are_read_as_float32(tmp_path):
    folder = tmp_path / "m"
    tiny_checkpoint(folder, "llama")
    half = {name: t.half() for name, t in load_file(folder / "model.safetensors").items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    x, _ = load_model(str(folder)).capture(TOKENS)
    assert x.dtype == torch.float32
    assert load_model(str(folder), dtype="bfloat16").capture(TOKENS)[0].dtype == torch.bfloat16


def _without(folder, *names):
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {n: t for n, t in tensors.items() if n not in names},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


@pytest.mark.parametrize("stored", ["lm_head.weight", "model.embed_tokens.weight"])
def test_a_tied_embedding_stored_once_is_found(tmp_path, stored):
    folder = tiny_checkpoint(tmp_path / "m", "llama", tie_word_embeddings=True)
    tensors = load_file(folder / "model.safetensors")
    embedding = tensors.pop("model.embed_tokens.weight", tensors.get("lm_head.weight"))
    tensors.pop("lm_head.weight", None)
    assert embedding is not None
    save_file(
        tensors | {stored: embedding}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    torch.testing.assert_close(
        load_model(str(folder)).logits(TOKENS),
        tiny_model("llama", tie_word_embeddings=True)(TOKENS).logits,
    )


def test_missing_weights_are_named_and_never_random(tmp_path):
    folder = tiny_checkpoint(tmp_path / "m", "llama")
    _without(folder, "model.layers.2.mlp.up_proj.weight")
    with pytest.raises(
        ValueError, match=r"lacks weights .* model\.layers\.2\.mlp\.up_proj\.weight"
    ):
        load_model(str(folder))
    untied = tiny_checkpoint(tmp_path / "n", "llama", tie_word_embeddings=False)
    _without(untied, "lm_head.weight")
    with pytest.raises(ValueError, match=r"lacks weights .* lm_head\.weight"):
        load_model(str(untied))


def test_unusable_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model folder .*nowhere"):
        load_model(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_model(str(tmp_path))
    folder = tiny_checkpoint(tmp_path / "m", "llama")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="never unpickles"):
        load_model(str(folder))
    (folder / "model.safetensors").write_bytes((folder / "pytorch_model.bin").read_bytes()[:2000])
    with pytest.raises(ValueError, match="truncated"):
        load_model(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot read the model in"):
        load_model(str(folder))
    with pytest.raises(ValueError, match="dtype 'float8' is unknown"):
        load_model(str(folder), dtype="float8")


def test_a_gated_or_missing_model_names_page_and_variable(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret-value")

    def refuse(*_, **__):
        raise OSError("You are trying to access a gated repo.\nsecret-value")

    monkeypatch.setattr(weights.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(weights.ModelUnavailable) as caught:
        load_model("google/gemma-2-2b")
    text = str(caught.value)
    assert "https://huggingface.co/google/gemma-2-2b" in text
    assert "HF_TOKEN (it is set)" in text
    assert "secret-value" not in text


def test_a_site_that_does_not_add_up_is_refused(tmp_path):
    folder = tiny_checkpoint(tmp_path / "m", "llama")
    config = json.loads((folder / "config.json").read_text())
    granite = {
        "model_type": "granite",
        "architectures": ["GraniteForCausalLM"],
        "residual_multiplier": 0.5,
    }
    (folder / "config.json").write_text(json.dumps(config | granite))
    load_model(str(folder), "layers.1")
    with pytest.raises(
        ValueError, match="adds something else than the outputs of attention and MLP"
    ):
        load_model(str(folder), "layers.1.mlp")


def test_first_broken_names_the_first_layer(tmp_path):
    lm = load_model(str(tiny_checkpoint(tmp_path / "m", "llama")), "layers.3")
    assert lm.first_broken(TOKENS) is None
    with torch.no_grad():
        lm.model.get_parameter("model.layers.2.mlp.up_proj.weight")[0, 0] = float("nan")
    assert lm.first_broken(TOKENS) == "layer 2 (model.layers.2)"
