"""Atomic files, canonical json, content ids, tensors and json side by side.

Everything saelab writes goes through this file: a file is complete under its final name or it is
not there at all, so a killed process or a full disk never leaves a half-written result.
"""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor


class CorruptFile(ValueError):
    """A file that saelab wrote (or was given) cannot be read back; the message names it and says
    what to do.
    """


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling folder that becomes `path` when the block ends without an error.

    An existing `path` is replaced as a whole. On an error the temporary folder is removed and
    `path` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            os.replace(path, old / path.name)
            os.replace(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` under `path` atomically (temporary file, fsync, rename)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 atomically."""
    write_bytes(path, text.encode())


def plain(value: Any) -> Any:
    """`value` with every non-finite float replaced by None, so that it is valid json and undefined
    is null.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def canonical_json(value: Any) -> str:
    """The one json text of a value: sorted keys, no spaces, undefined numbers null."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_id(value: Any, digits: int = 12) -> str:
    """Hash of the canonical json of `value`: equal content, equal id, whatever the order of its
    keys.
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:digits]


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable json, atomically; non-finite numbers become null."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a json file. Raises `FileNotFoundError` or `CorruptFile`, both naming the file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptFile(
            f"{path} is not valid json ({error}); restore it or remove it and run again"
        ) from error


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None
) -> None:
    """Write named tensors, and `meta` as json in the same safetensors file, atomically."""
    header = None if meta is None else {"json": canonical_json(meta)}
    write_bytes(
        path,
        save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata=header),
    )


def read_tensors(path: Path, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """Read a safetensors file. Raises `FileNotFoundError` or `CorruptFile`, both naming the
    file.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no file {path}")
    try:
        return load_file(str(path), device=str(device))
    except SafetensorError as error:
        raise CorruptFile(
            f"{path} is truncated or not safetensors ({error}); delete it and run again"
        ) from error


def check_disk(path: Path, needs: str, needed: int, *, there: int = 0) -> None:
    """Refuse to begin what does not fit on the disk that `path` is, or will be, on.

    `needs` opens the message (`the cache needs`), `needed` are the bytes in all, `there` those of
    them that are written already. Raises `OSError` (no space).
    """
    place = Path(path)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free + there
    if needed > free:
        text = f"{needs} {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free"
        raise OSError(errno.ENOSPC, text, str(path))


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_line(path: Path, value: Any) -> None:
    """Append one json line; a reader that finds an unfinished last line ignores it (see
    `read_lines`).
    """
    with open(path, "a", encoding="utf-8") as file:
        file.write(canonical_json(value) + "\n")


def read_lines(path: Path) -> list[Any]:
    """The complete json lines of a file; an unfinished last line (a killed writer) is left out."""
    if not Path(path).exists():
        return []
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            rows.append(json.loads(line))
    return rows
