"""Texts of one's own are read as training read its own: same start, same mask, same activations."""

import pytest
import torch
from transformers.utils import logging

from helpers import tiny_checkpoint
from saelab.ground.read_texts import read_texts
from saelab.lm.model import load_model


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return load_model(str(tiny_checkpoint(tmp_path_factory.mktemp("model"), "llama")), "layers.1")


def test_every_token_of_a_text_once_and_no_bos(lm):
    texts = ["the river", "a", "seven bright stones under the door"]
    windows = read_texts(lm, texts, context=8, batch=2)
    lengths = [len(lm.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert [int((windows.keep & (windows.doc == i)).sum()) for i in range(3)] == lengths
    shown = [
        "".join(lm.decode(windows.tokens[(windows.doc == i) & windows.keep].tolist()))
        for i in range(3)
    ]
    assert [text.replace("Ġ", " ") for text in shown] == texts
    assert (windows.tokens[:, 0] == lm.tokenizer.bos_token_id).all() and not windows.keep[
        :, 0
    ].any()
    assert windows.x.shape == (*windows.tokens.shape, lm.d_in) and len(windows.flat) == sum(lengths)


def test_a_text_longer_than_the_model_reads_is_cut_without_a_warning(lm, monkeypatch, caplog):
    """It is cut into windows: what the tokenizer says of a whole text does not concern it."""
    monkeypatch.setattr(lm.tokenizer, "model_max_length", 8)
    logging.enable_propagation()
    try:
        windows = read_texts(lm, ["seven bright stones under the door"], context=8)
        assert caplog.text == "" and len(windows.x) == 5
        lm.tokenizer("seven bright stones under the door")
        assert "longer than the specified maximum" in caplog.text  # it would have been heard
    finally:
        logging.disable_propagation()


def test_activations_are_those_of_the_text_alone(lm):
    """What fills a short window up changes nothing."""
    both = read_texts(lm, ["a", "seven bright stones"], context=32)
    alone = read_texts(lm, ["a"], context=32)
    torch.testing.assert_close(both.x[0, :2], alone.x[0, :2])


@pytest.mark.parametrize(
    ("texts", "context", "words"),
    [
        ("one string", 8, "given one string; give a list of texts"),
        (["a"], 1, "a context of at least 2"),
        (["a", ""], 8, "text 1 has no token"),
        ([], 8, "there are no texts"),
    ],
)
def test_what_cannot_be_read(lm, texts, context, words):
    with pytest.raises(ValueError, match=words):
        read_texts(lm, texts, context=context)
