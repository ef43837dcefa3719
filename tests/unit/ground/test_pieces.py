"""Pieces of text: in order, of one document, spread as asked, and refused where there are none."""

import itertools
from dataclasses import replace

import pytest
import torch

from helpers import byte_tokenizer, tiny_corpus, tiny_model
from saelab.ground.cache import CachedStream, plan_cache, write_cache
from saelab.ground.stream import ActivationStream
from saelab.ground.views import Block
from saelab.lm.model import wrap
from saelab.runs import Source, WorldSource
from saelab.synth.worlds import build_world
from saelab.text.windows import load_windows
from saelab.types import Cursor, Pieces, Tokens, Windows

NEAR, COMB = Pieces(4), Pieces(4, every=3)


@pytest.fixture(scope="module")
def stream(tmp_path_factory) -> ActivationStream:
    lm = wrap(tiny_model("llama").requires_grad_(False), byte_tokenizer(), "tiny")
    corpus = str(tiny_corpus(tmp_path_factory.mktemp("text") / "a.txt"))
    source = Source(
        corpus=corpus, context=32, batch=100, buffer=1_000, lm_batch=8, tokens=4_000, model="tiny"
    )
    return ActivationStream(lm, load_windows(source, lm, "train"), source)


def pieces(stream, kind, n=8):
    batches = stream.batches(Tokens, Cursor(), (kind,))
    return [views.sides[kind] for views, _ in itertools.islice(batches, n)]


@pytest.mark.parametrize("kind", [NEAR, COMB, replace(COMB, sliding=False)])
def test_a_piece_is_of_one_document_in_order(stream, kind, monkeypatch):
    block = stream.block(0, 0)
    place = torch.arange(block.tokens.numel()).view(*block.tokens.shape, 1).float()
    block = replace(block, x=place.expand(block.x.shape))
    monkeypatch.setattr(stream, "block", lambda epoch, number: block)
    seen = []
    for batch in pieces(stream, kind, n=4):
        assert isinstance(batch, Windows) and batch.x.shape[:2] == (100 // 4, 4)
        at = batch.x[..., 0].long()  # what the model saw there
        assert (at.diff(dim=1) == kind.every).all() and (batch.pos.diff(dim=1) == kind.every).all()
        assert torch.equal(block.tokens.flatten()[at], batch.tokens)
        assert batch.keep.all() and (batch.doc == batch.doc[:, :1]).all()
        seen += at[:, 0].tolist()
    assert seen != sorted(seen), "pieces come in the order of the text"
    if kind.sliding:
        gaps = torch.tensor(sorted(set(seen))).diff()
        assert (gaps < kind.span).any(), "no two pieces overlap"
    else:
        assert all((place % 32 - 1) % kind.span == 0 for place in seen)


def test_pieces_do_not_depend_on_the_other_views_and_a_cache_gives_the_same(stream, tmp_path):
    list(write_cache(stream, plan_cache(stream, tmp_path, 1_000)))
    disk = CachedStream(tmp_path, stream.source, stream.lm)
    alone, both = pieces(stream, COMB), stream.batches(Tokens, Cursor(), (Windows, COMB, NEAR))
    for one, (views, _), cached in zip(alone, both, pieces(disk, COMB), strict=False):
        assert torch.equal(one.x, views.sides[COMB].x) and torch.equal(one.x, cached.x)
    assert not torch.equal(alone[0].x, alone[1].x)


def test_a_piece_that_fits_no_window_or_no_document_is_refused(stream, tmp_path):
    long = Pieces(9, every=4)
    with pytest.raises(ValueError, match="span 33, and windows of context 32 keep 31 at most"):
        pieces(stream, long)
    block = stream.block(0, 0)
    each = torch.arange(block.doc.numel()).view(block.doc.shape)
    with pytest.raises(
        ValueError, match=r"spans 10, and of \d+ documents in a buffer load 0 have so many kept"
    ):
        Block(replace(block, doc=each), stream.source, (0, 0)).view(COMB, 0)


def test_a_world_without_order_has_no_pieces_and_one_with_order_gives_its_windows():
    flat = build_world(WorldSource("s2", {}, tokens=1_000, batch=100))
    with pytest.raises(ValueError, match="no windows: its activations have no order"):
        pieces(flat, NEAR)
    ordered = build_world(WorldSource("s3", {}, tokens=1_000, batch=100))
    views, _ = next(ordered.batches(Tokens, Cursor(), (NEAR,)))
    assert views.sides[NEAR] is views.main and views.main.pos.diff(dim=1).unique().numel() > 5
