"""One SAE, one folder: `sae.json` (what it is), `sae.safetensors` (its tensors). No pickle."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from saelab.sae.activations import Activation, BatchTopK, Gated, Priced, ReLU, TopK, Trimmed
from saelab.sae.jump_relu import JumpReLU
from saelab.sae.module import SAE
from saelab.sae.own import CODE, KIND, OwnSAE, module_from
from saelab.store import (
    CorruptFile,
    atomic_folder,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
    write_text,
)
from saelab.types import Hook

FORMAT = 1
# by name: rebuilt from what was saved
ACTIVATIONS: Mapping[str, Callable[[int, Mapping[str, float]], Activation]] = {
    "relu": lambda n, config: ReLU(),
    "trimmed": lambda n, config: Trimmed(),
    "topk": lambda n, config: TopK(config["k"]),
    "batch_topk": lambda n, config: BatchTopK(config["k"]),
    "priced_batch_topk": lambda n, config: Priced(config["k"], n),
    "jump_relu": lambda n, config: JumpReLU(n, width=config["width"]),
    "gated": lambda n, config: Gated(n),
}


def save_sae(sae: SAE | OwnSAE, folder: Path, meta: Mapping[str, Any]) -> None:
    """Write `sae` (in the model's units) under `folder`, with `meta` (run, health, versions)."""
    tensors = sae.state_dict()
    config = {
        "format": FORMAT,
        "d_in": sae.d_in,
        "n_latents": sae.n_latents,
        **sae.config(),
        "blocks": {name: [block.start, block.stop] for name, block in sae.blocks.items()},
        "hook": None if sae.hook is None else sae.hook.name,
        "checksum": checksum(tensors),
        "meta": dict(meta),
    }
    with atomic_folder(folder) as temporary:
        write_json(temporary / "sae.json", config)
        write_tensors(temporary / "sae.safetensors", tensors)
        if sae.source:
            write_text(temporary / CODE, sae.source)


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of the tensors' names, shapes and bytes, in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_sae(folder: str | os.PathLike[str], *, module: OwnSAE | None = None) -> SAE:
    """Read an SAE back from its folder, or from the folder of its run.

    The tensors of an SAE of somebody's own class are put into `module`, a fresh one of that class;
    without one see `load_own_sae`. Raises `FileNotFoundError` when the folder is none,
    `CorruptFile` when one of its files is damaged, holds what no SAE has, or does not fit the
    other; `ValueError` for an SAE that only its own code can make.
    """

    def given(folder: Path, config: Mapping[str, Any]) -> OwnSAE:
        if module is not None:
            return module
        raise ValueError(
            f"{folder} holds an SAE of a class of its own, {config['class']}, and loading it runs "
            f"{folder / CODE}; read that file, then say saelab.load_own_sae(folder), or --run_code "
            "on the command line"
        )

    return _load(Path(folder), given)


def load_own_sae(folder: str | os.PathLike[str]) -> SAE:
    """`load_sae`, and an SAE of somebody's own class is made by the code beside its tensors.

    That code (`own.py`) runs with all your rights: read it first if you did not write it. Raises as
    `load_sae` does.
    """

    def made(folder: Path, config: Mapping[str, Any]) -> OwnSAE:
        written = module_from(folder, config["d_in"])
        module = getattr(written, "sae", written)  # of a Variant
        source = (folder / CODE).read_text(encoding="utf-8")
        return OwnSAE(module, config["d_in"], hook=_hook(config), source=source)

    return _load(Path(folder), made)


def _load(folder: Path, own: Callable[[Path, Mapping[str, Any]], OwnSAE]) -> SAE:
    if not (folder / "sae.json").exists() and (folder / "sae" / "sae.json").exists():
        folder = folder / "sae"
    if not (folder / "sae.json").exists():
        raise FileNotFoundError(
            f"{folder} is no SAE folder: it has no sae.json; give a run's folder or the `sae` "
            "folder in it"
        )
    config = read_json(folder / "sae.json")
    tensors = read_tensors(folder / "sae.safetensors")
    try:
        _check_tensors(folder, config, tensors)
        sae = own(folder, config) if config["activation"] == KIND else _sae(config)
        sae.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise CorruptFile(
            f"{folder}: sae.json and sae.safetensors do not describe one SAE ({error}); restore "
            "them"
        ) from error
    sae.meta = config.get("meta", {})
    # what is asked of an SAE beyond what `OwnSAE` has, its module answers
    return cast(SAE, sae.requires_grad_(False))


def _sae(config: Mapping[str, Any]) -> SAE:
    k = config["activation_config"].get("k", 1)
    if not k > 0:
        raise TypeError(f"k is {k}, and it must be above 0")
    act = _activation(config["activation"], config["n_latents"], config["activation_config"])
    blocks = {name: range(start, stop) for name, (start, stop) in config["blocks"].items()}
    # older folders have neither
    extra = {name: config.get(name, 0.0) for name in ("refine", "leave_one_out")}
    return SAE(config["d_in"], config["n_latents"], act, blocks=blocks, hook=_hook(config), **extra)


def _hook(config: Mapping[str, Any]) -> Hook | None:
    return None if config["hook"] is None else Hook.from_name(config["hook"])


def _check_tensors(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not those which were written, or hold numbers that no SAE has."""
    path = folder / "sae.safetensors"
    for name, tensor in tensors.items():
        wrong = (~tensor.isfinite()).nonzero()
        if len(wrong):
            row = f", row {int(wrong[0][0])}" if tensor.ndim > 1 else ""
            raise CorruptFile(
                f"{path}: {name}{row} is not finite; the SAE was damaged or never trained well, "
                "restore it or train again"
            )
    # older folders have none
    if "checksum" in config and config["checksum"] != checksum(tensors):
        raise CorruptFile(
            f"{path} does not hold the tensors that were saved with sae.json (another checksum); "
            "restore both files"
        )


def _activation(name: str, n_latents: int, config: Mapping[str, float]) -> Activation:
    if name not in ACTIVATIONS:
        raise CorruptFile(
            f"unknown activation {name!r}; this saelab knows {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name](n_latents, config)
