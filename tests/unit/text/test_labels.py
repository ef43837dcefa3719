"""Labels of Python source against sources of a few lines, and labels from files."""

import ast
import inspect
import json
import re
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from helpers import byte_tokenizer
from saelab.runs import Source
from saelab.text.labels import labelled as labels_module
from saelab.text.labels.files import read_labels
from saelab.text.labels.labelled import (
    HIERARCHY,
    Concept,
    at_windows,
    label_tokens,
    labelled_windows,
    stdlib_labels,
)
from saelab.text.labels.python import FAMILIES, VALUES, python_labels
from saelab.text.labels.sets import balanced, cells, labelled, spans, split_by_file
from saelab.text.stdlib import SourceFile, StdlibCorpus
from saelab.text.windows import load_windows

TOKENIZER = byte_tokenizer()
SOURCE = '''"""Module text."""
import os.path as p


class Box(object):
    """Doc."""

    def get(self, key=None, *rest):  # ä note
        name = self.data[key]
        return name.lower(print("é", sep=sign))
'''


def label(source: str, family: str, needle: str, occurrence: int = 0) -> str:
    """The one label that all characters of an occurrence of `needle` have."""
    start = [m.start() for m in re.finditer(re.escape(needle), source)][occurrence]
    found = python_labels(source)[start : start + len(needle), FAMILIES.index(family)]
    assert len(set(found.tolist())) == 1, f"{needle!r} has several labels"
    return VALUES[family][found[0]]


@pytest.mark.parametrize(
    ("family", "needle", "occurrence", "value"),
    [
        ("token_type", "class", 0, "keyword"),
        ("token_type", "Box", 0, "name"),
        ("token_type", '"""Doc."""', 0, "docstring"),
        ("token_type", '"é"', 0, "string"),
        ("token_type", "# ä note", 0, "comment"),
        ("token_type", "(", 0, "bracket"),
        ("token_type", "=", 0, "op"),
        ("in_docstring", '"""Module text."""', 0, "yes"),
        ("in_docstring", '"é"', 0, "no"),
        ("in_string", '"é"', 0, "yes"),
        ("in_string", '"""Doc."""', 0, "yes"),
        ("in_comment", "# ä note", 0, "yes"),
        ("in_comment", "key=None", 0, "no"),
        ("indentation", "class", 0, "0"),
        ("indentation", "def", 0, "1"),
        ("indentation", "return", 0, "2"),
        ("brackets", "name.lower", 0, "0"),
        ("brackets", '"é"', 0, "2"),
        ("brackets", "]", 0, "1"),
        ("role", "Box", 0, "class_name"),
        ("role", "object", 0, "builtin"),
        ("role", "get", 0, "function_name"),
        ("role", "self", 0, "self"),
        ("role", "self", 1, "self"),
        ("role", "key", 0, "parameter"),
        ("role", "rest", 0, "parameter"),
        ("role", "name", 0, "store"),
        ("role", "name", 1, "load"),
        ("role", "data", 0, "attribute"),
        ("role", "lower", 0, "method_call"),
        ("role", "print", 0, "builtin_call"),
        ("role", "sep", 0, "keyword_argument"),
        ("role", "sign", 0, "load"),
        ("role", "os", 0, "imported_name"),
        ("role", "return", 0, "none"),
        ("construct", "import os.path as p", 0, "import"),
        ("construct", "name =", 0, "assign"),
        ("construct", "key]", 0, "subscript"),
        ("construct", "return", 0, "return"),
        ("construct", '"é"', 0, "call"),
        ("scope", "import", 0, "module"),
        ("scope", '"""Doc."""', 0, "class"),
        ("scope", "return name", 0, "method"),
    ],
)
def test_every_family(family, needle, occurrence, value):
    assert label(SOURCE, family, needle, occurrence) == value


def test_bytes_are_not_characters():
    """Before `after` the line holds 2-, 3- and 4-byte characters; ast counts them as bytes."""
    source = 'f("äöü€😀", key).after = top(ünder, inner)\n'
    assert label(source, "role", "key") == "load"
    assert label(source, "role", "after") == "attribute"
    assert label(source, "role", "top") == "call"
    assert label(source, "role", "ünder") == label(source, "role", "inner") == "load"


def test_a_name_inside_its_own_keyword():
    assert label("def e(a):\n    pass\n", "role", "e", 1) == "function_name"
    assert label("async def a(): pass\n", "role", "a", 1) == "function_name"
    assert label("async def a(): pass\n", "role", "async") == "none"


def test_line_ends_and_form_feeds_move_nothing():
    lines = "x = 1\n\f\ndef run(a):\n    return a.end\n"
    for text in (lines, lines.replace("\n", "\r\n"), lines.replace("\n", "\r"), "\ufeff" + lines):
        assert len(python_labels(text)) == len(text)
        assert label(text, "role", "run") == "function_name"
        assert label(text, "role", "end") == "attribute"
        assert label(text, "role", "a", 0) == "parameter"


def test_multi_line_constructs():
    source = "value = call(\n    first,\n    [one,\n     two],\n)\ns = '''a\n# no comment\n'''\n"
    assert label(source, "construct", "first") == "call"
    assert label(source, "construct", "two") == "list"
    assert (label(source, "brackets", "two"), label(source, "indentation", "two")) == ("2", "0")
    assert label(source, "in_string", "# no comment") == "yes"
    assert label(source, "in_comment", "# no comment") == "no"


def test_f_strings_are_strings_in_every_version():
    source = "a = f'{x!r:>{width}} {y.z(3)}' + b\n"
    assert label(source, "in_string", "f'{x!r:>{width}} {y.z(3)}'") == "yes"
    assert label(source, "in_string", "b") == "no"
    assert label(source, "role", "b") == "load"
    inside = label(source, "role", "width")
    assert inside == ("load" if sys.version_info >= (3, 12) else "none")


def test_what_does_not_parse_is_refused_with_the_reason():
    for text in ("def f(:\n", "x = (\n", "print 'two'\n", "if x:\ny\n", "\0"):
        with pytest.raises(ValueError, match=r"Error: "):
            python_labels(text)
    python_labels("x = '\\d'\n")  # an invalid escape warns nobody


@pytest.fixture
def library(monkeypatch):
    """A library of 12 held-out files, one of which does not parse, with the byte tokenizer."""
    texts = [f"# file {i}\n" + SOURCE.replace("Box", f"Box{i}") for i in range(11)]
    files = [
        SourceFile(f"{'test' if i % 2 else 'json'}/m{i}.py", text) for i, text in enumerate(texts)
    ]
    files += [SourceFile("old.py", "print 'two'\n" * 9)]
    corpus = StdlibCorpus((), tuple(files), {})
    monkeypatch.setattr("saelab.text.corpora.stdlib_corpus", lambda: corpus)
    monkeypatch.setattr(labels_module, "stdlib_corpus", lambda: corpus)
    return corpus


def test_tokens_of_windows_find_their_labels(library):
    corpus = stdlib_labels("held_out", TOKENIZER)
    labels = label_tokens(corpus, TOKENIZER)
    assert list(corpus.problems) == ["old.py"] and "SyntaxError" in corpus.problems["old.py"]
    windows = load_windows(Source(context=32, eval_windows=1000), TOKENIZER, "held_out")
    place = at_windows(labels, windows)
    assert place.shape == windows.tokens.shape and (place[:, 0] == -1).all()
    assert torch.equal(labels.tokens[place[windows.keep]], windows.tokens[windows.keep])
    comment = labels.holds(Concept("in_comment", ("yes",)))[place[windows.keep]] == 1
    shown = bytes(TOKENIZER.decode(windows.tokens[windows.keep][comment]), "utf-8")
    assert shown.startswith(b"# file") and b"class" not in shown
    with pytest.raises(ValueError, match="do not show the labelled text"):
        at_windows(labels, replace(windows, at=windows.at + 1))


def test_files_families_and_missing_files(library):
    labels = label_tokens(stdlib_labels("held_out", TOKENIZER), TOKENIZER)
    assert labels.counts("module_family")["json"] > 0
    unparsed = labels.doc == labels.names.index("old.py")
    assert (labels.of("scope")[unparsed] == -1).all() and (labels.of("file")[unparsed] >= 0).all()
    assert (labels.holds(Concept("scope", ("class",)))[unparsed] == -1).all()
    assert sum(labels.counts("file").values()) == len(labels.tokens)
    assert "ast.py" in labels_module.missing_files()
    for parent, child in HIERARCHY:
        inside = labels.holds(child) == 1
        assert (labels.holds(parent)[inside] == 1).all(), f"{child.name} outside {parent.name}"
    with pytest.raises(ValueError, match="no label family 'scopes'; there are token_type"):
        labels.of("scopes")
    with pytest.raises(ValueError, match="family scope has no value 'klass'; it has module"):
        labels.holds(Concept("scope", ("klass",)))


def test_a_token_takes_its_first_solid_character(library):
    class Pairs:  # a tokenizer of pairs of characters
        is_fast = True
        all_special_tokens = ()

        def __call__(self, text, **_):
            spans = [(i, min(i + 2, len(text))) for i in range(0, len(text), 2)]
            return {"input_ids": [7] * len(spans), "offset_mapping": spans}

    text = "x  = 1\n"  # "x ", " =", " 1", newline
    corpus = labels_module.LabelledCorpus(
        (labels_module.Family("token_type", VALUES["token_type"]),),
        (labels_module.LabelledText("a", text, python_labels(text)[:, :1]),),
    )
    found = label_tokens(corpus, Pairs()).of("token_type")
    assert [VALUES["token_type"][i] for i in found] == ["name", "op", "number", "newline"]
    with pytest.raises(ValueError, match="give a fast tokenizer"):
        label_tokens(corpus, object())


def rows_of(tmp_path, suffix):
    rows = {
        "body": ["good film", "bad, film", " ", "so\nso"],
        "mood": ["pos", "neg", "neg", None],
        "stars": [5, 1, 1, 3],
    }
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table(rows), path)
    elif suffix == ".jsonl":
        path.write_text(
            "".join(json.dumps({k: v[i] for k, v in rows.items()}) + "\n" for i in range(4))
        )
    else:
        mark = "," if suffix == ".csv" else "\t"
        lines = [mark.join(rows)] + [
            mark.join([f'"{rows["body"][i]}"', rows["mood"][i] or "", str(rows["stars"][i])])
            for i in range(4)
        ]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_labels_from_files(tmp_path, suffix):
    corpus = read_labels(rows_of(tmp_path, suffix), text="body", labels=["mood", "stars"])
    assert [(f.name, f.values) for f in corpus.families] == [
        ("mood", ("neg", "pos")),
        ("stars", ("1", "3", "5")),
    ]
    assert [t.text for t in corpus.texts] == ["good film", "bad, film", "so\nso"]
    labels = label_tokens(corpus, TOKENIZER)
    assert labels.counts("mood") == {"neg": 9, "pos": 9}
    assert labels.of("mood")[-1] == -1 and labels.of("stars")[-1] == 1
    windows = labelled_windows(labels, TOKENIZER, context=6)  # 5 bytes of text each
    assert len(windows) == 2 + 2 + 1 and windows.keep.sum() == 9 + 9 + 5
    assert TOKENIZER.decode(windows.tokens[1][windows.keep[1]]) == "film"
    place = at_windows(labels, windows)
    assert torch.equal(place[windows.keep], torch.arange(23))


def test_bad_label_files(tmp_path):
    path = rows_of(tmp_path, ".csv")
    with pytest.raises(ValueError, match="no column 'text'; its columns are body, mood, stars"):
        read_labels(path, text="text", labels=["mood"])
    with pytest.raises(ValueError, match="no label column was given; its columns are body"):
        read_labels(path, text="body", labels=[])
    with pytest.raises(ValueError, match=r"must end in one of \.csv, \.tsv, \.jsonl, \.parquet"):
        read_labels(tmp_path / "a.xlsx", text="body", labels=["mood"])
    with pytest.raises(FileNotFoundError, match="no label file"):
        read_labels(tmp_path / "none.csv", text="body", labels=["mood"])
    (tmp_path / "b.jsonl").write_text('{"body": ')
    with pytest.raises(ValueError, match="cannot be read as jsonl"):
        read_labels(tmp_path / "b.jsonl", text="body", labels=["mood"])


def test_rows_of_one_file_stay_together(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label,book\n" + "".join(f"t{i},{i % 2},b{i % 3}\n" for i in range(12)))
    labels = label_tokens(read_labels(path, text="text", labels=["label"], file="book"), TOKENIZER)
    assert labels.file.unique().tolist() == [0, 1, 2]
    train = split_by_file(labels.file, seed=3)
    assert all(
        len(train[labels.file == f].unique()) == 1 for f in range(3)
    ) and 0 < train.sum() < len(train)
    with pytest.raises(ValueError, match="1 file cannot be split"):
        split_by_file(torch.zeros(5))


def test_split_shares_the_tokens():
    file = torch.arange(40).repeat_interleave(torch.arange(1, 41))
    train = split_by_file(file, seed=0)
    assert 0.4 < train.float().mean() < 0.6
    assert torch.equal(train, split_by_file(file, seed=0)) and not torch.equal(
        train, split_by_file(file, seed=1)
    )


def tokens_with(values: list[list[int]], doc: list[int]) -> labels_module.TokenLabels:
    families = tuple(labels_module.Family(name, ("no", "yes")) for name in "ab")
    array = torch.from_numpy(np.array(values, np.int16))
    return labels_module.TokenLabels(
        families, array, torch.arange(len(doc)), torch.tensor(doc), ("x", "y"), {}
    )


def test_spans_cells_and_pairs():
    labels = tokens_with(
        [[1, 0], [1, 1], [0, 1], [0, 1], [0, -1], [-1, 0], [1, 0]], [0, 0, 0, 0, 1, 1, 1]
    )
    found = spans(labels, "a")
    assert torch.stack([found.start, found.end, found.value, found.doc]).T.tolist() == [
        [0, 2, 1, 0],
        [2, 4, 0, 0],
        [4, 5, 0, 1],
        [6, 7, 1, 1],
    ]
    x = torch.arange(14.0).view(7, 2)
    assert found.mean(x).tolist() == [[1, 2], [5, 6], [8, 9], [12, 13]]
    assert cells(labels, "a", "b").tolist() == [[0, 2], [2, 1]]
    probe = labelled(x, labels, ("b", "a"))
    assert probe.names == ("b", "a") and probe.labels[4].tolist() == [-1, 0]
    with pytest.raises(ValueError, match="3 activations for 7 labelled tokens"):
        labelled(x[:3], labels, ("a",))
    with pytest.raises(ValueError, match=r"two factors at \(0, 0\)"):
        balanced(labels.of("a"), labels.of("b"))
    a, b = torch.tensor([0, 0, 0, 1, 1, 1, 1, -1]), torch.tensor([0, 0, 1, 0, 1, 1, 1, 1])
    chosen = balanced(a, b)
    assert sorted(zip(a[chosen].tolist(), b[chosen].tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]


def test_every_function_of_a_library_file_is_named_once():
    text = inspect.getsource(ast)
    functions = sum(
        isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(ast.parse(text))
    )
    role = python_labels(text)[:, FAMILIES.index("role")] == VALUES["role"].index("function_name")
    starts = role & ~np.concatenate([[False], role[:-1]])
    assert starts.sum() == functions > 100
