"""Find and load a checkpoint safely: safetensors only, no remote code, and never a randomly
initialised layer.
"""

import importlib.resources
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as hf_logging

EMBEDDED_MODEL = "pylm"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class ModelUnavailable(ValueError):
    """A model that cannot be had: missing, gated, or not reachable."""


def locate(name: str) -> str:
    """The folder of a local or the embedded model, or the Hugging Face id itself.

    Raises `FileNotFoundError` for a folder that does not exist, `ValueError` for one without
    safetensors weights.
    """
    if name == EMBEDDED_MODEL:
        folder = Path(str(importlib.resources.files("saelab.lm.pylm") / "weights"))
        if not (folder / "config.json").exists():
            raise FileNotFoundError(
                f"the embedded model is not at {folder}; make it: python -m saelab.lm.pylm.train "
                "--out runs/pylm"
            )
        return str(folder)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", name):
            return name
        raise FileNotFoundError(
            f"no model folder {name}; give {EMBEDDED_MODEL}, an existing folder or a Hugging Face "
            "id such as EleutherAI/pythia-70m"
        )
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} holds no config.json, so it is no Hugging Face model folder")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"{folder} holds no .safetensors weights; saelab never unpickles: convert "
            "pytorch_model.bin with save_pretrained"
        )
    return str(folder)


def load_config(name: str) -> PreTrainedConfig:
    """The model's config, without its weights. Raises `ModelUnavailable`, or `ValueError` for an
    unreadable config.
    """
    with _reachable(name):
        return AutoConfig.from_pretrained(locate(name), trust_remote_code=False)


def load_weights(name: str, device: str, dtype: str) -> tuple[PreTrainedModel, Any]:
    """Model (frozen, in evaluation mode) and tokenizer. Raises `ValueError` naming weights that the
    checkpoint lacks.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    place = locate(name)
    local = Path(place).is_dir()
    with _reachable(name), _no_bars():
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            place,
            config=config,
            dtype=DTYPES[dtype],
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=local,
            output_loading_info=True,
        )
        model, info = loaded
        tokenizer = AutoTokenizer.from_pretrained(
            place, trust_remote_code=False, local_files_only=local
        )
    _complete(model, info, name)
    return model.to(device).eval().requires_grad_(False), tokenizer


def _complete(model: PreTrainedModel, info: dict[str, Any], name: str) -> None:
    """Tie an embedding that the checkpoint stores once; refuse any other weight that was not in
    it.
    """
    missing = set(info["missing_keys"])
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    tied = {
        key
        for key in missing
        if any(model.get_parameter(key) is end.weight for end in (embedding, head))
    }
    if len(tied) == 1 and model.config.get_text_config().tie_word_embeddings:
        lost, kept = (
            (embedding, head)
            if model.get_parameter(next(iter(tied))) is embedding.weight
            else (head, embedding)
        )
        lost.weight = kept.weight
        missing -= tied
    wrong = sorted(missing) + sorted(str(item) for item in info["mismatched_keys"])
    if wrong:
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ValueError(
            f"the checkpoint of {name} lacks weights its config asks for, or has them in another "
            f"shape: {shown}"
        )


@contextmanager
def _reachable(name: str) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise ValueError(
            f"the weights of {name} are truncated or not safetensors ({error}); get them again"
        ) from error
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        if Path(name).is_dir() or name == EMBEDDED_MODEL:
            raise ValueError(f"cannot read the model in {name}: {_first_line(error)}") from error
        state = "is set" if os.environ.get("HF_TOKEN") else "is not set"
        raise ModelUnavailable(
            f"cannot get model {name!r}: it is missing, gated or not reachable from here; look at "
            f"https://huggingface.co/{name}, accept its terms if it asks for that, and put an "
            "access token into the variable "
            f"HF_TOKEN (it {state})"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _no_bars() -> Iterator[None]:
    """No progress bars for the tensors of a checkpoint: they hide the lines that matter."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()
