"""Corpora as documents: the embedded one, a local txt / jsonl / parquet file, a Hugging Face
dataset.

Documents of a txt file are what lies between `<|endoftext|>` marks; a file without any is cut into
pieces of whole lines, each ended by the first blank line after 2,000 characters (or the first line
end after 8,000).
"""

import codecs
import functools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from saelab.runs import Source
from saelab.store import content_id, file_hash
from saelab.text.stdlib import Split, stdlib_corpus

EMBEDDED_CORPUS = "stdlib"
SUFFIXES = (".txt", ".jsonl", ".parquet")
MARK = "<|endoftext|>"
PIECE, LONG_PIECE = 2_000, 8_000  # characters
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Document:
    """One document: its number in reading order, its name (a path, or "" where it has none), its
    text.
    """

    index: int
    name: str
    text: str

    @property
    def hash(self) -> int:
        """A number of index and text, by which a document is assigned to a split."""
        return int(content_id([self.index, self.text], 8), 16)


def check_corpus(source: Source) -> None:
    """Raise `FileNotFoundError` or `ValueError` unless the corpus can be read and holds text; reads
    one document.
    """
    if not any(document.text.strip() for document in read_documents(source)):
        raise ValueError(f"corpus {source.corpus} holds no text")


def corpus_hash(source: Source) -> str:
    """16 hexadecimal digits of the corpus: its files' content; for a Hugging Face dataset only its
    name.
    """
    if source.corpus == EMBEDDED_CORPUS:
        return stdlib_corpus().hash
    if source.corpus.startswith("hf:"):
        return content_id([source.corpus, source.text_column], 16)
    return file_hash(_file(source.corpus))[:16]


def read_documents(source: Source, split: Split | None = None) -> Iterator[Document]:
    """The documents of `source.corpus` in order, blank ones left out.

    Only the embedded corpus has splits of its own: its training files come in the order of
    `source.seed`, its held-out files in one fixed order. Raises `FileNotFoundError` or `ValueError`
    naming the file, and the line where there is one.
    """
    if source.corpus == EMBEDDED_CORPUS:
        named = _embedded(source.seed, split or "train")
    else:
        named = (("", text) for text in _texts(source.corpus, source.text_column))
    solid = ((name, text) for name, text in named if text.strip())
    for index, (name, text) in enumerate(solid):
        yield Document(index, name, text)


def _texts(corpus: str, column: str) -> Iterator[str]:
    """The texts of a file or a dataset, in order."""
    if corpus.startswith("hf:"):
        return _hub(corpus, column)
    path = _file(corpus)
    if path.suffix == ".txt":
        return _txt(path)
    return _jsonl(path, column) if path.suffix == ".jsonl" else _parquet(path, column)


def _file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir() or (path.suffix not in SUFFIXES and path.exists()):
        raise ValueError(
            f"corpus {name}: give a file that ends in {', '.join(SUFFIXES)}; this one is no such "
            "file"
        )
    if not path.exists():
        raise FileNotFoundError(
            f"no corpus {name}; give {EMBEDDED_CORPUS}, a {' / '.join(SUFFIXES)} file or "
            "hf:<dataset>[:<config>]"
        )
    if path.stat().st_size == 0:
        raise ValueError(f"corpus {name} is empty (0 bytes)")
    return path


def _embedded(seed: int, split: Split) -> Iterator[tuple[str, str]]:
    files = list(stdlib_corpus().split(split))
    random.Random(seed if split == "train" else 0).shuffle(files)
    return ((file.path, file.text) for file in files)


def _txt(path: Path) -> Iterator[str]:
    status = path.stat()
    marked = _has_mark(path, status.st_mtime_ns, status.st_size)
    piece: list[str] = []
    size = 0
    with path.open(encoding="utf-8-sig") as file:
        while line := file.readline(MEBIBYTE):
            if marked and MARK in line:
                *ended, line = line.split(MARK)
                yield "".join(piece) + ended[0]
                yield from ended[1:]
                piece = []
            piece.append(line)
            size += len(line)
            if not marked and ((size >= PIECE and not line.strip()) or size >= LONG_PIECE):
                yield "".join(piece)
                piece, size = [], 0
    yield "".join(piece)


@functools.cache
def _has_mark(path: Path, mtime: int, size: int) -> bool:
    """Whether a text file has document marks; reads all of it, and raises `ValueError` where it is
    not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    done, tail, marked = 0, "", False
    with path.open("rb") as file:
        while True:
            chunk = file.read(MEBIBYTE)
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"corpus {path} is not UTF-8: {error.reason} at byte "
                    f"{done - pending + error.start:,}; convert it first"
                ) from error
            marked = marked or MARK in tail + text
            tail, done = text[-len(MARK) :], done + len(chunk)
            if not chunk:
                return marked


def _jsonl(path: Path, column: str) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise ValueError(
                    f"corpus {path}, line {number}: not a line of UTF-8 json ({error})"
                ) from error
            if not isinstance(row, dict) or not isinstance(row.get(column), str):
                raise ValueError(
                    f"corpus {path}, line {number}: {_lacking(row, column)} (see text_column)"
                )
            yield row[column]


def _lacking(row: object, column: str) -> str:
    """What is wrong with a row that has no text in `column`."""
    if not isinstance(row, dict):
        return f"it is {type(row).__name__}, not an object with a column {column!r}"
    if column in row:
        return f"column {column!r} holds {type(row[column]).__name__}, not text"
    return f"there is no column {column!r}; its columns are {', '.join(row) or 'none'}"


def _parquet(path: Path, column: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"corpus {path} is no parquet file ({error})") from error
    if column not in table.schema_arrow.names:
        raise ValueError(
            f"corpus {path} has no column {column!r}; its columns are "
            f"{', '.join(table.schema_arrow.names)}"
        )
    kind = table.schema_arrow.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ValueError(f"corpus {path}: column {column!r} is {kind}, not text (see text_column)")
    for batch in table.iter_batches(batch_size=256, columns=[column]):
        yield from (text for text in batch.column(0).to_pylist() if text is not None)


def _hub(corpus: str, column: str) -> Iterator[str]:
    import datasets

    name, _, config = corpus.removeprefix("hf:").partition(":")
    try:
        rows = datasets.load_dataset(name, config or None, split="train", streaming=True)
    except (OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"cannot read dataset {name!r} ({first}); look at "
            f"https://huggingface.co/datasets/{name}, and put an access token "
            "into the variable HF_TOKEN if it asks for one"
        ) from error
    for row in rows:
        if column not in row:
            raise ValueError(
                f"dataset {name!r} has no column {column!r}; its columns are {', '.join(row)} "
                "(see text_column)"
            )
        yield row[column]
