"""The embedded default text: the Python standard library's own source, split into train and
held-out files.

Nothing is downloaded: the files are those of the running interpreter. A file is held out when
`sha256(relative path)[:8] mod 20 == 0`, a rule of the path alone, so it is the same on every
machine.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Split = Literal["train", "held_out"]
HELD_OUT_ONE_IN = 20
MIN_BYTES = 64
# encodings: character tables
EXCLUDED_FOLDERS = ("site-packages", "dist-packages", "__pycache__", "encodings")


@dataclass(frozen=True)
class SourceFile:
    """One file of the library: its path relative to the library's root (with `/`) and its text."""

    path: str
    text: str

    @property
    def held_out(self) -> bool:
        """Whether the file belongs to the held-out split: a rule of its path alone."""
        return int(hashlib.sha256(self.path.encode()).hexdigest()[:8], 16) % HELD_OUT_ONE_IN == 0


@dataclass(frozen=True)
class StdlibCorpus:
    """The library's files of both splits, in path order, and what was left out."""

    train: tuple[SourceFile, ...]
    held_out: tuple[SourceFile, ...]
    dropped: dict[str, int]

    def split(self, name: Split) -> tuple[SourceFile, ...]:
        """The files of one split."""
        return self.train if name == "train" else self.held_out

    @property
    def hash(self) -> str:
        """sha256 over paths and texts of both splits: the identity of the corpus."""
        digest = hashlib.sha256()
        for file in sorted(self.train + self.held_out, key=lambda f: f.path):
            digest.update(f"{file.path}\0{len(file.text)}\0".encode() + file.text.encode())
        return digest.hexdigest()[:16]


@cache
def stdlib_corpus(root: str | None = None) -> StdlibCorpus:
    """Read the library of the running interpreter (or the tree under `root`).

    Left out: site-packages, `encodings/` (tables), files that are not UTF-8, under 64 bytes, or
    byte-equal to an earlier one. Raises `FileNotFoundError` when no Python source is found there.
    """
    base = Path(root or os.path.dirname(os.__file__))
    dropped = {"not_utf8": 0, "small": 0, "duplicate": 0}
    seen: set[bytes] = set()
    files: list[SourceFile] = []
    for path in _python_files(base):
        data = path.read_bytes()
        digest = hashlib.sha256(data).digest()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            dropped["not_utf8"] += 1
            continue
        if len(data) < MIN_BYTES:
            dropped["small"] += 1
        elif digest in seen:
            dropped["duplicate"] += 1
        else:
            seen.add(digest)
            files.append(SourceFile(path.relative_to(base).as_posix(), text))
    if not files:
        raise FileNotFoundError(
            f"no Python source under {base}: the embedded corpus needs the standard library's files"
        )
    return StdlibCorpus(
        train=tuple(f for f in files if not f.held_out),
        held_out=tuple(f for f in files if f.held_out),
        dropped=dropped,
    )


def _python_files(base: Path) -> list[Path]:
    paths = []
    for folder, subfolders, names in os.walk(base):
        subfolders[:] = [name for name in subfolders if name not in EXCLUDED_FOLDERS]
        paths += [Path(folder) / name for name in names if name.endswith(".py")]
    return sorted(paths, key=lambda path: path.relative_to(base).as_posix())
