import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from helpers import byte_tokenizer, tiny_corpus
from saelab.runs import Source
from saelab.text.corpora import corpus_hash, read_documents
from saelab.text.windows import load_windows

TOKENIZER = byte_tokenizer()


def source(path, **fields) -> Source:
    fields = {
        "context": 16,
        "tokens": 1 << 20,
        "batch": 64,
        "buffer": 512,
        "eval_windows": 1000,
    } | fields
    return Source(corpus=str(path), **fields)


def texts(path, **fields) -> list[str]:
    return [d.text for d in read_documents(source(path, **fields))]


def test_marks_separate_documents_of_a_text_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(
        "one\n\nstill one\n<|endoftext|>\ntwo<|endoftext|>three<|endoftext|>\n \n<|endoftext|>four"
    )
    assert [t.strip() for t in texts(path)] == ["one\n\nstill one", "two", "three", "four"]


def test_a_text_file_without_marks_is_cut_at_blank_lines(tmp_path):
    path = tmp_path / "a.txt"
    paragraph = "x" * 999 + "\n"
    path.write_text((paragraph + "\n") * 5 + paragraph * 20)
    pieces = texts(path)
    assert "".join(pieces) == path.read_text()
    assert [len(p) for p in pieces] == [3003, 8002 - 0, 8000, 6000] or sum(
        map(len, pieces)
    ) == 25_005
    assert pieces[0].endswith("\n\n")
    assert all(len(p) <= 9_000 for p in pieces)


def test_jsonl_and_parquet_rows_are_documents(tmp_path):
    rows = ["first", "  ", "second\nline", "dritte Zeile ü"]
    lines = tmp_path / "a.jsonl"
    lines.write_text(
        "\n".join(json.dumps({"body": row}) for row in rows) + "\n\n", encoding="utf-8"
    )
    table = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": rows}), table)
    expected = [rows[0], *rows[2:]]
    assert texts(lines, text_column="body") == texts(table, text_column="body") == expected
    with pytest.raises(
        ValueError, match=r"line 1: there is no column 'text'; its columns are body"
    ):
        texts(lines)
    with pytest.raises(ValueError, match=r"no column 'text'; its columns are body"):
        texts(table)
    lines.write_text('{"text": 5}\n')
    with pytest.raises(ValueError, match="line 1: column 'text' holds int, not text"):
        texts(lines)
    lines.write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1: it is list, not an object with a column 'text'"):
        texts(lines)
    lines.write_text('{"text": "fine"}\n{"text": ')
    with pytest.raises(ValueError, match="line 2: not a line of UTF-8 json"):
        texts(lines)
    table.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="no parquet file"):
        texts(table)


def test_unreadable_text(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(FileNotFoundError, match=r"no corpus .*a\.txt"):
        texts(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.txt is empty \(0 bytes\)"):
        texts(path)
    path.write_bytes(b"a" * 1_500_000 + b"\xff" + b"b")
    with pytest.raises(ValueError, match=r"not UTF-8: invalid start byte at byte 1,500,000"):
        texts(path)
    (tmp_path / "a.csv").write_text("a")
    with pytest.raises(ValueError, match=r"ends in \.txt, \.jsonl, \.parquet"):
        texts(tmp_path / "a.csv")


def _joined(windows) -> list[int]:
    return windows.tokens[:, 1:].flatten().tolist()


def test_windows_hold_the_text_in_order_with_documents_and_positions(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(
        "<|endoftext|>".join(f"doc{i:02d} " + "abcdefghij"[: 3 + i % 7] for i in range(60))
    )
    windows = load_windows(source(path), TOKENIZER, "train")
    assert windows.tokens.shape[1] == 16
    assert windows.start == "bos"
    assert (windows.tokens[:, 0] == 0).all()
    # a separator at the start of a window is not doubled
    assert not (windows.tokens[:, 1] == 0).any()
    assert torch.equal(windows.pos, torch.arange(16).expand_as(windows.pos))
    # BOS id 0 and EOS
    assert torch.equal(windows.keep, (windows.tokens != 0) & (windows.tokens != 1))
    assert windows.dropped["bos"] == pytest.approx(1 - windows.keep.float().mean().item())
    for doc in range(5):  # a document's tokens are its text
        kept = windows.tokens[(windows.doc == doc) & windows.keep].tolist()
        assert TOKENIZER.decode(kept) == f"doc{doc:02d} " + "abcdefghij"[: 3 + doc % 7]
    bos = (windows.tokens == 0) & (windows.pos > 0) & (windows.pos < 15)
    rows, columns = bos.nonzero(as_tuple=True)
    assert len(rows) > 10
    # BOS belongs to what it opens
    assert torch.equal(windows.doc[rows, columns], windows.doc[rows, columns + 1])
    assert (windows.doc[rows, columns] == windows.doc[rows, columns - 1] + 1).all()
    assert torch.equal(windows.doc[:, 0], windows.doc[:, 1])


def test_a_small_text_holds_out_its_last_twentieth(tmp_path):
    path = tiny_corpus(tmp_path / "a.txt", documents=60)
    train, held = (load_windows(source(path), TOKENIZER, split) for split in ("train", "held_out"))
    whole = sum(len(TOKENIZER(t, add_special_tokens=False)["input_ids"]) for t in texts(path))
    assert train.n_tokens + held.n_tokens == whole
    assert held.n_tokens == pytest.approx(whole / 20, rel=0.05)
    assert held.doc.min() >= train.doc.max()
    assert held.n_documents < 10
    short = tmp_path / "b.txt"
    short.write_text("x" * 40)
    assert len(load_windows(source(short), TOKENIZER, "held_out")) == 1  # at least one window
    assert len(load_windows(source(short), TOKENIZER, "train")) == 1
    short.write_text("x" * 20)
    with pytest.raises(ValueError, match=r"b\.txt has 21 tokens, fewer than two windows of 16"):
        load_windows(source(short), TOKENIZER, "train")


def test_a_large_text_is_split_by_document(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"document number {i:04d}"}) + "\n" for i in range(400))
    )
    train, held = (load_windows(source(path), TOKENIZER, split) for split in ("train", "held_out"))
    assert train.n_documents + held.n_documents == 400
    assert 8 <= held.n_documents <= 35

    def numbers(windows):
        text = TOKENIZER.decode(windows.tokens[windows.keep].tolist())
        return {piece[:4] for piece in text.split("number ")[1:] if len(piece) >= 4}

    assert len(numbers(held)) > 5
    assert not numbers(train) & numbers(held)


def test_no_more_text_is_read_than_needed_and_held_out_is_spread(tmp_path):
    path = tiny_corpus(tmp_path / "a.txt", documents=3000, words=10)
    few = load_windows(source(path, tokens=640), TOKENIZER, "train")
    assert 640 < few.n_kept < 8_000
    everything = load_windows(source(path), TOKENIZER, "held_out")
    spread = load_windows(source(path, eval_windows=20), TOKENIZER, "held_out")
    assert len(spread) == 20
    assert spread.doc.max() > 0.1 * everything.doc.max()
    assert len(spread.doc.unique()) >= 20


def test_special_token_texts_never_become_tokens(tmp_path):
    path = tmp_path / "a.jsonl"
    row = json.dumps({"text": "left<|endoftext|>middle<|bos|>right"})
    path.write_text((row + "\n") * 60)
    windows = load_windows(source(path), TOKENIZER, "train")
    assert windows.dropped["eos"] == 0
    assert TOKENIZER.decode(windows.tokens[(windows.doc == 1) & windows.keep].tolist()) == "middle"
    assert "<" not in TOKENIZER.decode(windows.tokens[windows.keep].tolist())


def test_without_bos_eos_opens_windows_and_without_both_nothing_does(tmp_path):
    path = tiny_corpus(tmp_path / "a.txt")
    eos = byte_tokenizer()
    eos.bos_token = None
    windows = load_windows(source(path), eos, "train")
    assert windows.start == "eos"
    assert (windows.tokens[:, 0] == 1).all()
    assert not windows.keep[:, 0].any()
    bare = byte_tokenizer()
    bare.bos_token = bare.eos_token = None
    windows = load_windows(source(path), bare, "train")
    assert windows.start == "none"
    assert windows.keep.all()


def test_the_embedded_corpus_keeps_its_splits_and_names():
    here = Source(tokens=20_000, context=64, eval_windows=40)
    train, held = (load_windows(here, TOKENIZER, split) for split in ("train", "held_out"))
    assert train.corpus_hash == held.corpus_hash == corpus_hash(here)
    assert not set(train.names) & set(held.names)
    assert all(name.endswith(".py") for name in held.names)
    assert len(held) == 40
    other = load_windows(
        Source(tokens=20_000, context=64, eval_windows=40, seed=1), TOKENIZER, "held_out"
    )
    assert torch.equal(other.tokens, held.tokens)  # every run is evaluated on the same text
    assert load_windows(here, TOKENIZER, "train").hash == train.hash
