"""Small real checkpoints and texts that tests write themselves, and commands on them: nothing is
downloaded.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from saelab.store import file_hash

BOS, EOS = "<|bos|>", "<|endoftext|>"
ARCHITECTURES = ("llama", "gpt2", "gpt_neox", "gemma", "gemma2", "qwen2")
_LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    # far from the identity, so that a skipped or doubled layer changes the logits
    "initializer_range": 0.2,
}
_FIELDS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA_LIKE,
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 128, "initializer_range": 0.2},
    "gpt_neox": {key: value for key, value in _LLAMA_LIKE.items() if key != "num_key_value_heads"},
    "gemma": _LLAMA_LIKE | {"head_dim": 8},
    "gemma2": _LLAMA_LIKE | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8},
    "qwen2": _LLAMA_LIKE,
}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte: BOS is id 0, EOS id 1, byte-level alphabet from id 2 on (258 ids)."""
    vocabulary = {
        token: i for i, token in enumerate([BOS, EOS, *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, 0)]
    )
    inner.add_special_tokens([BOS, EOS])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=BOS, eos_token=EOS)


def tiny_model(arch: str, **fields: Any) -> PreTrainedModel:
    """A random 4-layer model of width 32, context 128, vocabulary 258; `fields` override its
    config.
    """
    torch.manual_seed(0)
    ids = {"vocab_size": 258, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    config = CONFIG_MAPPING[arch](**(_FIELDS.get(arch, {}) | ids | fields))
    model = AutoModelForCausalLM.from_config(config)
    # norms and biases start as ones and zeros: a model that skips them would pass unseen
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def tiny_checkpoint(folder: Path, arch: str, **fields: Any) -> Path:
    """Write `tiny_model` and `byte_tokenizer` as an ordinary Hugging Face folder and return it."""
    folder = Path(folder)
    tiny_model(arch, **fields).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def tiny_corpus(path: Path, documents: int = 60, words: int = 40) -> Path:
    """Write a txt file of `documents` seeded random-word documents separated by lines of
    `<|endoftext|>`.
    """
    generator = torch.Generator().manual_seed(0)
    vocabulary = [
        "time",
        "light",
        "river",
        "stone",
        "walks",
        "under",
        "bright",
        "door",
        "seven",
        "green",
        "of",
        "the",
    ]
    texts = []
    for _ in range(documents):
        picks = torch.randint(len(vocabulary), (words,), generator=generator).tolist()
        texts.append(" ".join(vocabulary[i] for i in picks) + ".")
    path = Path(path)
    path.write_text(f"\n{EOS}\n".join(texts) + "\n", encoding="utf-8")
    return path


def tiny_place(folder: Path, documents: int = 200) -> Path:
    """Write a tiny Llama and a text into `folder`, for commands, and return it."""
    tiny_checkpoint(folder / "model", "llama")
    tiny_corpus(folder / "text.txt", documents=documents)
    return folder


def given(place: Path) -> list[str]:
    """The flags that name the model and the text of a `tiny_place`."""
    return ["--model", str(place / "model"), "--corpus", str(place / "text.txt")]


def small(**changes: Any) -> list[str]:
    """The flags of `saelab train` for an SAE that takes seconds: 39 steps on layer 1."""
    flags = {"hook": "layers.1", "l0": 8, "n_latents": 64, "batch": 512, "context": 64}
    flags |= {"warmup": 10, "tokens": 20_000} | changes
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def runs_of(out: Path) -> list[Path]:
    """The run folders of an output folder, by name."""
    return sorted((out / "runs").iterdir())


def weights(out: Path) -> dict[str, str]:
    """The hash of every run's weights, by the run's name."""
    return {run.name: file_hash(run / "sae" / "sae.safetensors") for run in runs_of(out)}
