"""Labels from a file: csv, tsv, jsonl or parquet with one text per row, and a mapping from columns
to their meaning.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saelab.text.labels.labelled import Family, LabelledCorpus, LabelledText

MAX_VALUES = 32_767  # of one column
READERS = (".csv", ".tsv", ".jsonl", ".parquet")


def read_labels(
    path: str | Path, *, text: str, labels: Sequence[str], file: str | None = None
) -> LabelledCorpus:
    """A labelled corpus from a table with one text per row; a row's labels hold for all of its
    characters.

    `text`: the column of the text; `labels`: the columns of the families, of any plain type (values
    are compared as text, an empty or missing one is unknown); `file`: the column by which splits go
    (rows of one source belong together), by default every row for itself. Rows without a text are
    left out. Raises `FileNotFoundError`, or `ValueError` naming the file and the columns it has.
    """
    path = Path(path).expanduser()
    columns = _columns(path)
    missing = [name for name in [text, *labels, *([file] if file else [])] if name not in columns]
    if missing or not labels:
        said = f"no column {missing[0]!r}" if missing else "no label column was given"
        raise ValueError(f"labels {path}: {said}; its columns are {', '.join(columns)}")
    keep = [i for i, value in enumerate(columns[text]) if value is not None and str(value).strip()]
    families, numbers = [], np.full((len(keep), len(labels)), -1, np.int16)
    for c, name in enumerate(labels):
        words = ["" if columns[name][i] is None else str(columns[name][i]) for i in keep]
        values = tuple(sorted(set(words) - {""}))
        if len(values) > MAX_VALUES:
            raise ValueError(
                f"labels {path}: column {name!r} has {len(values):,} values; at most "
                f"{MAX_VALUES:,} are allowed"
            )
        number_of = {value: i for i, value in enumerate(values)} | {"": -1}
        families.append(Family(name, values))
        numbers[:, c] = [number_of[word] for word in words]
    texts = []
    for row, i in enumerate(keep):
        content = str(columns[text][i])
        name = str(columns[file][i]) if file else f"row {i + 1}"
        texts.append(
            LabelledText(name, content, np.broadcast_to(numbers[row], (len(content), len(labels))))
        )
    return LabelledCorpus(tuple(families), tuple(texts))


def _columns(path: Path) -> dict[str, list[Any]]:
    """The file's columns by name."""
    import pyarrow as pa
    from pyarrow import csv, json, parquet

    if path.suffix not in READERS:
        raise ValueError(f"labels {path}: the file must end in one of {', '.join(READERS)}")
    if not path.exists():
        raise FileNotFoundError(f"no label file {path}")
    try:
        if path.suffix == ".parquet":
            table = parquet.read_table(path)
        elif path.suffix == ".jsonl":
            table = json.read_json(path)
        else:
            split = csv.ParseOptions(
                delimiter="\t" if path.suffix == ".tsv" else ",", newlines_in_values=True
            )
            table = csv.read_csv(path, parse_options=split)
    except pa.ArrowInvalid as error:
        raise ValueError(f"labels {path} cannot be read as {path.suffix[1:]}: {error}") from error
    return {name: table.column(name).to_pylist() for name in table.column_names}
