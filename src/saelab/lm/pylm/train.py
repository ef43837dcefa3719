"""Train `pylm` on the standard library of the running interpreter, resumably.

    python -m saelab.lm.pylm.train --out runs/pylm             # train, or go on
    python -m saelab.lm.pylm.train --out runs/pylm --steps 20  # a quick try

It ends by writing the model's folder and card. Killed at any time, the same command goes on from
the last checkpoint with the data and optimizer state it had.
"""

import argparse
import dataclasses
import logging
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from saelab.lm.pylm.card import held_out_bits, write_folder
from saelab.lm.pylm.recipe import (
    Batches,
    Recipe,
    build_model,
    build_optimizers,
    encode_files,
    train_tokenizer,
)
from saelab.store import (
    append_line,
    read_json,
    read_lines,
    read_tensors,
    write_json,
    write_tensors,
    write_text,
)
from saelab.text.stdlib import stdlib_corpus

log = logging.getLogger("saelab.pylm")
CHECKPOINT_EVERY = 128
PROBE_EVERY = 512  # steps between held-out probes on PROBE_FILES files
PROBE_FILES = 6


def train(out: Path, recipe: Recipe) -> LlamaForCausalLM:
    """Train by `recipe` into folder `out` and return the model; goes on from a checkpoint found
    there.

    Raises `ValueError` when `out` holds a run of another recipe or another corpus.
    """
    corpus = stdlib_corpus()
    identity = {"recipe": recipe.as_dict(), "corpus": corpus.hash}
    out.mkdir(parents=True, exist_ok=True)
    if (out / "run.json").exists() and read_json(out / "run.json") != identity:
        raise ValueError(
            f"{out} holds a run of another recipe or corpus; choose another --out or remove it"
        )
    write_json(out / "run.json", identity)
    tokenizer = _tokenizer(out, recipe)
    batches = Batches(encode_files(tokenizer, corpus.train), recipe)
    model = build_model(recipe)
    optimizers = build_optimizers(model, recipe)
    step = _load_checkpoint(out, model, optimizers)
    log.info("%s parameters, from step %d of %d", f"{model.num_parameters():,}", step, recipe.steps)
    probe = corpus.held_out[:PROBE_FILES]
    started, first = time.monotonic(), step
    for tokens in batches(step):
        if step >= recipe.steps:
            break
        loss = _step(model, optimizers, tokens, recipe.scale(step))
        step += 1
        if step % 32 == 0:
            rate = (step - first) * tokens.numel() / (time.monotonic() - started)
            log.info("step %d  loss %.3f  %.0f tokens/s", step, loss, rate)
        if step % PROBE_EVERY == 0 or step == recipe.steps:
            bits = held_out_bits(model, tokenizer, probe).bits_per_byte
            append_line(
                out / "curve.jsonl",
                {"step": step, "tokens": step * tokens.numel(), "probe_bpb": bits},
            )
            log.info("step %d  held-out probe %.4f bits per byte", step, bits)
        if step % CHECKPOINT_EVERY == 0 or step == recipe.steps:
            _save_checkpoint(out, model, optimizers, step)
    return model


def _step(
    model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], tokens: Tensor, scale: float
) -> float:
    device = model.device.type
    with torch.autocast(device, torch.bfloat16):
        logits = model(input_ids=tokens.to(model.device)).logits[:, :-1].flatten(0, 1)
    loss = F.cross_entropy(logits.float(), tokens[:, 1:].flatten().to(model.device))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("base_lr", group["lr"])
            group["lr"] = group["base_lr"] * scale
        optimizer.step()
    model.zero_grad(set_to_none=True)
    value = loss.item()
    if value != value:
        raise FloatingPointError(
            "the loss of pylm became NaN; lower lr_muon or lr_adam in the recipe"
        )
    return value


def _tokenizer(out: Path, recipe: Recipe) -> Tokenizer:
    path = out / "tokenizer.json"
    if not path.exists():
        log.info("training the tokenizer")
        write_text(path, train_tokenizer(stdlib_corpus().train, recipe.vocab).to_str())
    return Tokenizer.from_file(str(path))


def _save_checkpoint(
    out: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], step: int
) -> None:
    tensors: dict[str, Tensor] = {f"model.{name}": p for name, p in model.named_parameters()}
    for i, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{i}.{index}.{key}": torch.as_tensor(value)
                for key, value in state.items()
            }
    tensors["step"] = torch.tensor(step)
    write_tensors(out / "checkpoint.safetensors", tensors)


def _load_checkpoint(
    out: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer]
) -> int:
    if not (out / "checkpoint.safetensors").exists():
        return 0
    tensors = read_tensors(out / "checkpoint.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
    for i, optimizer in enumerate(optimizers):
        whole = optimizer.state_dict()
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"optimizer.{i}."):
                _, _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
    return int(tensors["step"])


def main() -> None:
    """The command line: `--out`, and one flag per field of `Recipe`."""
    parser = argparse.ArgumentParser(
        description="train the embedded language model pylm", allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, required=True)
    for field in dataclasses.fields(Recipe):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    arguments = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    out = arguments.pop("out")
    recipe = Recipe(**arguments)
    model = train(out, recipe)
    write_folder(
        out / "pylm",
        model,
        Tokenizer.from_file(str(out / "tokenizer.json")),
        recipe,
        read_lines(out / "curve.jsonl"),
    )
    log.info("wrote %s", out / "pylm")


if __name__ == "__main__":
    main()
