"""Views of one stream of text: independent of each other, and true to the text they come from."""

import itertools
from dataclasses import replace

import pytest
import torch

from helpers import byte_tokenizer, tiny_corpus, tiny_model
from saelab.ground.cache import CachedStream, plan_cache, write_cache
from saelab.ground.stream import ActivationStream
from saelab.ground.views import OTHER, SAME, Block
from saelab.lm.model import HFModel, wrap
from saelab.runs import Source
from saelab.text.labels.python import VALUES
from saelab.text.windows import load_windows
from saelab.types import Cursor, Labelled, Pairs, Tokens, Windows

BRACKET = VALUES["token_type"].index("bracket")


@pytest.fixture(scope="module")
def lm() -> HFModel:
    return wrap(tiny_model("llama").requires_grad_(False), byte_tokenizer(), "tiny")


def a_stream(lm, corpus: str) -> ActivationStream:
    source = Source(
        corpus=corpus, context=32, batch=100, buffer=1_000, lm_batch=8, tokens=4_000, model="tiny"
    )
    return ActivationStream(lm, load_windows(source, lm, "train"), source)


@pytest.fixture(scope="module")
def stream(lm, tmp_path_factory) -> ActivationStream:
    return a_stream(lm, str(tiny_corpus(tmp_path_factory.mktemp("text") / "a.txt")))


@pytest.fixture(scope="module")
def embedded(lm) -> ActivationStream:
    with pytest.MonkeyPatch.context() as patch:
        # few files are read, so that few are labelled
        patch.setattr("saelab.text.windows.AT_ONCE", 4)
        return a_stream(lm, "stdlib")


def views(stream, main, n, sides=(), start=None):
    return [v for v, _ in itertools.islice(stream.batches(main, start or Cursor(), sides), n)]


def tensors(batch) -> dict[str, torch.Tensor]:
    if isinstance(batch, Pairs):
        both = {
            f"{i}.{k}": t for i in ("first", "second") for k, t in vars(getattr(batch, i)).items()
        }
        return {**both, "kind": batch.kind}
    return {name: t for name, t in vars(batch).items() if isinstance(t, torch.Tensor)}


def same(one, other) -> bool:
    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_view_does_not_depend_on_which_others_are_asked_for(embedded):
    n = 25  # more than two loads of the buffer
    every = views(embedded, Tokens, n, (Labelled, Pairs, Windows))
    for sides in ((Pairs,), (Labelled,), (Windows,), ()):
        some = views(embedded, Tokens, n, sides)
        for one, other in zip(every, some, strict=True):
            assert same(one.main, other.main) and other.sides.keys() == set(sides)
            assert all(same(one.sides[kind], other.sides[kind]) for kind in sides)
    ordered = views(embedded, Windows, 5, (Pairs, Labelled, Windows))
    for one, other in zip(every, ordered, strict=False):
        assert same(one.sides[Windows], other.main) and other.sides[Windows] is other.main
        assert same(one.sides[Pairs], other.sides[Pairs])
        assert same(one.sides[Labelled], other.sides[Labelled])
    assert not same(every[0].sides[Pairs], every[1].sides[Pairs])
    assert not same(every[0].sides[Labelled], every[1].sides[Labelled])


def test_equal_cursors_give_equal_views(embedded):
    sides = (Pairs, Labelled, Windows)
    whole = list(itertools.islice(embedded.batches(Tokens, Cursor(), sides), 25))
    for i in (3, 12, 20):
        again = next(embedded.batches(Tokens, whole[i][1], sides))[0]
        assert all(same(again.sides[kind], whole[i + 1][0].sides[kind]) for kind in sides)


def numbered(stream, monkeypatch) -> Windows:
    """The first block, in which every activation now is the number of its position."""
    block = stream.block(0, 0)
    place = torch.arange(block.tokens.numel()).view(*block.tokens.shape, 1).float()
    block = replace(block, x=place.expand(block.x.shape))
    monkeypatch.setattr(stream, "block", lambda epoch, number: block)
    return block


def test_pairs_are_stretches_of_one_document_or_of_two(stream, monkeypatch):
    block = numbered(stream, monkeypatch)
    for batch in (v.sides[Pairs] for v in views(stream, Tokens, 8, (Pairs,))):
        assert batch.kinds == ("same document", "other document") and batch.values is None
        assert batch.kind.tolist() == [SAME, OTHER, SAME] and batch.first.x.shape == (3, 16, 32)
        for i, kind in enumerate(batch.kind):
            docs = []
            for member in (batch.first, batch.second):
                keep = member.keep[i]
                docs.append(member.doc[i][keep].unique().tolist())
                assert keep.any() and (member.pos[i].diff() == 1).all()
                at = member.x[i, :, 0].long().tolist()
                assert at == list(
                    range(at[0], at[0] + 16)
                )  # in order, with the model's activations
                assert torch.equal(block.tokens.flatten()[at], member.tokens[i])
                assert not (keep & ~block.keep.flatten()[at]).any()
            assert all(len(doc) == 1 for doc in docs) and (docs[0] == docs[1]) == (kind == SAME)
            assert not torch.equal(batch.first.x[i], batch.second.x[i])


def test_pairs_need_two_documents_and_two_stretches_of_one(stream):
    block = stream.block(0, 0)
    one = replace(block, doc=torch.zeros_like(block.doc))
    with pytest.raises(ValueError, match=r"load of 31 windows makes no pairs: .* one document"):
        Block(one, stream.source, (0, 0)).view(Pairs, 0)
    each = block.doc.clone()
    each[:, :16], each[:, 16:] = torch.arange(62).view(2, 31, 1)
    with pytest.raises(ValueError, match="each from a document of its own; raise the buffer"):
        Block(replace(block, doc=each), stream.source, (0, 0)).view(Pairs, 0)


def test_a_cache_gives_the_live_streams_windows_and_pairs(stream, tmp_path):
    list(write_cache(stream, plan_cache(stream, tmp_path, 2_000)))
    disk = CachedStream(tmp_path, stream.source, stream.lm)
    live = views(stream, Tokens, 18, (Windows, Pairs))
    for one, other in zip(live, views(disk, Tokens, 18, (Windows, Pairs)), strict=True):
        assert all(same(one.sides[kind], other.sides[kind]) for kind in (Windows, Pairs))
    with pytest.raises(ValueError, match="holds no labels of tokens; train without a cache"):
        views(disk, Tokens, 1, (Labelled,))


def test_labels_of_text_are_those_of_its_tokens(embedded, monkeypatch):
    block = numbered(embedded, monkeypatch)
    files, brackets, others = {}, set(), set()
    for batch in (v.sides[Labelled] for v in views(embedded, Tokens, 8, (Labelled,))):
        assert batch.labels.shape == (100, len(batch.names)) and batch.x.shape == (100, 32)
        assert batch.names[0] == "token_type" and batch.names[-1] == "file"
        at = batch.x[:, 0].long()
        assert block.keep.flatten()[at].all()
        for i, labels in zip(at.tolist(), batch.labels.tolist(), strict=True):
            doc = int(block.doc.flatten()[i])
            assert files.setdefault(doc, labels[-1]) == labels[-1] >= 0
            token = embedded.lm.tokenizer.decode([int(block.tokens.flatten()[i])])
            (brackets if token in "()[]{}" else others).add(labels[0])
    assert len(set(files.values())) == len(files) > 1  # a file for each document
    assert len(others) > 3 and BRACKET in brackets and BRACKET not in others


def test_a_text_without_labels_says_so(stream):
    with pytest.raises(ValueError, match=r"a\.txt has no labels of tokens; read the embedded text"):
        views(stream, Tokens, 1, (Labelled,))
    assert stream.missing(Labelled) and not stream.missing(Pairs)
