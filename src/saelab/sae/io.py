"""One SAE, one folder: `sae.json` (what it is), `sae.safetensors` (its tensors). No pickle."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saelab.sae.activations import Activation, BatchTopK, Gated, Priced, ReLU, TopK, Trimmed
from saelab.sae.jump_relu import JumpReLU
from saelab.sae.module import SAE
from saelab.store import (
    CorruptFile,
    atomic_folder,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
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


def save_sae(sae: SAE, folder: Path, meta: Mapping[str, Any]) -> None:
    """Write `sae` (in the model's units) under `folder`, with `meta` (run, health, versions)."""
    config = {
        "format": FORMAT,
        "d_in": sae.d_in,
        "n_latents": sae.n_latents,
        "activation": sae.act.name,
        "activation_config": sae.act.config(),
        "refine": sae.refine,
        "leave_one_out": sae.leave_one_out,
        "blocks": {name: [block.start, block.stop] for name, block in sae.blocks.items()},
        "hook": None if sae.hook is None else sae.hook.name,
        "meta": dict(meta),
    }
    with atomic_folder(folder) as temporary:
        write_json(temporary / "sae.json", config)
        write_tensors(temporary / "sae.safetensors", sae.state_dict())


def load_sae(folder: Path) -> SAE:
    """Read an SAE folder back.

    Raises `FileNotFoundError` when it is none, `CorruptFile` when one of its files is damaged or
    does not fit the other.
    """
    folder = Path(folder)
    if not (folder / "sae.json").exists():
        raise FileNotFoundError(
            f"{folder} is no SAE folder: it has no sae.json; give the `sae` folder of a run"
        )
    config = read_json(folder / "sae.json")
    tensors = read_tensors(folder / "sae.safetensors")
    try:
        act = _activation(config["activation"], config["n_latents"], config["activation_config"])
        blocks = {name: range(start, stop) for name, (start, stop) in config["blocks"].items()}
        hook = None if config["hook"] is None else Hook.from_name(config["hook"])
        # older folders have neither
        extra = {name: config.get(name, 0.0) for name in ("refine", "leave_one_out")}
        sae = SAE(config["d_in"], config["n_latents"], act, blocks=blocks, hook=hook, **extra)
        sae.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise CorruptFile(
            f"{folder}: sae.json and sae.safetensors do not describe one SAE ({error}); restore "
            "them"
        ) from error
    return sae.requires_grad_(False)


def _activation(name: str, n_latents: int, config: Mapping[str, float]) -> Activation:
    if name not in ACTIVATIONS:
        raise CorruptFile(
            f"unknown activation {name!r}; this saelab knows {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name](n_latents, config)
