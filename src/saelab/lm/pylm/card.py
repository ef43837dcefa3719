"""The embedded model's held-out score, the compressors and counts it is compared with, and the
folder it ships in.
"""

import bz2
import lzma
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from saelab.lm.pylm.recipe import BOS, Recipe, encode_files
from saelab.store import atomic_folder, write_bytes, write_json, write_text
from saelab.text.stdlib import SourceFile, stdlib_corpus


@dataclass(frozen=True)
class HeldOut:
    """Score of a language model on text: nats per token and bits per byte (total bits / bytes of
    the same text).
    """

    nats_per_token: float
    bits_per_byte: float
    tokens: int
    bytes: int


def held_out_bits(
    model: LlamaForCausalLM, tokenizer: Tokenizer, files: Sequence[SourceFile]
) -> HeldOut:
    """Score a language model on `files`: windows of 255 tokens, each after a BOS, nothing carried
    over between windows.
    """
    context = 256
    rows: list[np.ndarray] = []
    for ids in encode_files(tokenizer, tuple(files)):
        rows += [ids[i : i + context - 1].astype(np.int64) for i in range(0, len(ids), context - 1)]
    nats, count = 0.0, 0
    model.eval()
    with torch.no_grad():
        for i in range(0, len(rows), 32):
            chunk = rows[i : i + 32]
            tokens = torch.zeros(len(chunk), context, dtype=torch.long)
            target = torch.full((len(chunk), context), -100)
            for j, row in enumerate(chunk):
                tokens[j, 1 : len(row) + 1] = torch.from_numpy(row)
                target[j, : len(row)] = torch.from_numpy(row)
            logits = model(input_ids=tokens.to(model.device)).logits.float().flatten(0, 1)
            nats += F.cross_entropy(
                logits, target.flatten().to(model.device), reduction="sum"
            ).item()
            count += sum(map(len, chunk))
    model.train()
    size = sum(len(file.text.encode()) for file in files)
    return HeldOut(nats / count, nats / math.log(2) / size, count, size)


def reference_bits(tokenizer: Tokenizer) -> dict[str, float]:
    """Bits per byte of simple references on the same held-out bytes.

    `unigram`, `bigram` (interpolated Kneser-Ney) are counted on the training split; `xz_primed` is
    size(xz(train + held out)) - size(xz(train)) with a dictionary that spans both.
    """
    corpus = stdlib_corpus()
    train = "".join(file.text for file in corpus.train).encode()
    held = "".join(file.text for file in corpus.held_out).encode()
    to_bits = 8 / len(held)
    # 64 MiB, as `xz -9e`: the whole training text stays in the window
    best = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26}

    def xz(data: bytes) -> int:
        return len(lzma.compress(data, filters=[best]))

    return _count_models(tokenizer) | {
        "bzip2 -9": len(bz2.compress(held, 9)) * to_bits,
        "xz -9e": xz(held) * to_bits,
        "xz -9e primed with the training text": (xz(train + held) - xz(train)) * to_bits,
    }


def _count_models(tokenizer: Tokenizer) -> dict[str, float]:
    corpus = stdlib_corpus()
    train = [[0, *ids.tolist()] for ids in encode_files(tokenizer, corpus.train)]
    held = [[0, *ids.tolist()] for ids in encode_files(tokenizer, corpus.held_out)]
    size = sum(len(file.text.encode()) for file in corpus.held_out)
    vocab = tokenizer.get_vocab_size()
    single = Counter(token for row in train for token in row[1:])
    total = sum(single.values())
    unigram = np.array([(single[t] + 0.5) / (total + 0.5 * vocab) for t in range(vocab)])
    pairs = Counter(pair for row in train for pair in pairwise(row))
    once, twice = (sum(1 for n in pairs.values() if n == i) for i in (1, 2))
    discount = once / (once + 2 * twice)  # Ney, Essen & Kneser 1994
    left = Counter(b for _, b in pairs)  # distinct left contexts of each token
    follow, mass = Counter(a for a, _ in pairs), Counter()
    for (a, _), n in pairs.items():
        mass[a] += n
    continuation = np.array([(left[t] + 0.5) / (len(pairs) + 0.5 * vocab) for t in range(vocab)])

    def bigram(a: int, b: int) -> float:
        if not mass[a]:
            return float(continuation[b])
        direct = max(pairs.get((a, b), 0) - discount, 0) / mass[a]
        return direct + discount * follow[a] / mass[a] * float(continuation[b])

    single_bits = -sum(math.log2(unigram[t]) for row in held for t in row[1:])
    pair_bits = -sum(math.log2(bigram(a, b)) for row in held for a, b in pairwise(row))
    return {
        "unigram tokens": single_bits / size,
        "bigram tokens, interpolated Kneser-Ney": pair_bits / size,
    }


def write_folder(
    folder: Path,
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    recipe: Recipe,
    curve: list[dict[str, Any]],
) -> None:
    """Write the shipped Hugging Face folder: fp16 weights, tokenizer, card, held-out paths, facts
    as json.

    The held-out score is taken from the weights as shipped (rounded to fp16).
    """
    corpus = stdlib_corpus()
    half = {}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name != "lm_head.weight":
                half[name] = tensor.half()
                tensor.copy_(half[name].float())
    facts = {
        "corpus_hash": corpus.hash,
        "files": {
            "train": len(corpus.train),
            "held_out": len(corpus.held_out),
            "dropped": corpus.dropped,
        },
        "recipe": recipe.as_dict(),
        "tokens_seen": recipe.tokens,
        "parameters": model.num_parameters(),
        "held_out": asdict(held_out_bits(model, tokenizer, corpus.held_out)),
        "references_bits_per_byte": reference_bits(tokenizer),
        "curve": curve,
        "held_out_paths": [file.path for file in corpus.held_out],
    }
    with atomic_folder(folder) as temporary:
        config = model.config.to_dict() | {
            "dtype": "float16",
            "architectures": ["LlamaForCausalLM"],
        }
        write_json(
            temporary / "config.json",
            {k: v for k, v in config.items() if v is not None and k != "_name_or_path"},
        )
        write_bytes(temporary / "model.safetensors", save(half, metadata={"format": "pt"}))
        write_text(temporary / "tokenizer.json", tokenizer.to_str())
        special = {"bos_token": BOS, "eos_token": BOS, "model_max_length": 512}
        write_json(
            temporary / "tokenizer_config.json",
            special | {"tokenizer_class": "PreTrainedTokenizerFast"},
        )
        write_json(temporary / "facts.json", facts)
        write_text(temporary / "README.md", card_text(facts))


def card_text(facts: dict[str, Any]) -> str:
    """The model card, every figure from `facts`."""
    held, recipe, bits = facts["held_out"], facts["recipe"], facts["references_bits_per_byte"]
    ours = held["bits_per_byte"]
    rows = [
        f"| {name} | {value:.3f} | {ours / value - 1:+.1%} |"
        for name, value in sorted(bits.items(), key=lambda item: -item[1])
    ]
    shape = (
        f"{recipe['layers']} layers, width {recipe['width']}, context {recipe['context']}, "
        f"vocabulary {recipe['vocab']:,}"
    )
    files = facts["files"]
    left_out = ", ".join(
        f"{count} files ({why.replace('_', ' ')})" for why, count in files["dropped"].items()
    )
    settings = ", ".join(f"{key} {value}" for key, value in recipe.items())
    curve = [f"| {row['tokens'] / 1e6:.1f} | {row['probe_bpb']:.3f} |" for row in facts["curve"]]
    return f"""# pylm: the language model embedded in saelab

A Llama of {facts["parameters"]:,} parameters ({shape}) trained on the source of the Python \
standard library, by
`python -m saelab.lm.pylm.train --out runs/pylm`. It exists so that sparse autoencoders can be \
tried on a real language model
without a network. It is no code assistant: its samples look like Python and mean little. \
Weights are fp16.

- corpus: {files["train"]} training files, {files["held_out"]} held-out files, \
hash `{facts["corpus_hash"]}`; a file is held
  out when `sha256(path)[:8] mod 20 == 0`; left out: `encodings/`, and {left_out}
- tokens seen: {facts["tokens_seen"]:,}
- recipe: {settings}
- held out: {held["nats_per_token"]:.4f} nats per token, **{ours:.4f} bits per byte**
  ({held["tokens"]:,} tokens, {held["bytes"]:,} bytes, 255-token windows)

On the same held-out bytes:

| reference | bits per byte | pylm against it |
|---|---|---|
{chr(10).join(rows)}

Some held-out lines also occur in training files (library code repeats itself), which helps \
every row, primed xz most.
The held-out claim is for the interpreter whose library has this corpus hash: another Python \
version's files overlap with
training.

| million tokens | bits per byte on 6 held-out files |
|---|---|
{chr(10).join(curve)}
"""
