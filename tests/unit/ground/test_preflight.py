from dataclasses import replace

import pytest

from helpers import tiny_checkpoint, tiny_corpus
from saelab.ground.preflight import check_source
from saelab.lm import weights
from saelab.runs import Source


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Source:
    folder = tmp_path_factory.mktemp("preflight")
    model = tiny_checkpoint(folder / "m", "gpt2")
    return Source(
        model=str(model),
        corpus=str(tiny_corpus(folder / "a.txt")),
        context=64,
        batch=256,
        buffer=1024,
    )


def test_a_good_source_passes_without_loading_weights(good, monkeypatch):
    def never(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(weights.AutoModelForCausalLM, "from_pretrained", never)
    check_source(good)


def test_a_thousand_tokens_with_batch_2048_are_refused_with_the_numbers(good):
    with pytest.raises(
        ValueError,
        match=r"^1,000 tokens are fewer than one batch of 2,048: 0 training steps; [^.]*$",
    ):
        check_source(replace(good, tokens=1_000, batch=2_048, buffer=65_536))


@pytest.mark.parametrize(
    "name", ["tokens", "batch", "context", "buffer", "lm_batch", "eval_windows"]
)
def test_numbers_must_be_positive(good, name):
    with pytest.raises(ValueError, match=f"{name} must be positive; got -5"):
        check_source(replace(good, **{name: -5}))
    with pytest.raises(TypeError, match=f"{name} must be a whole number; got 1.5"):
        check_source(replace(good, **{name: 1.5}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"buffer": 255}, "shuffle buffer of 255 activations is smaller than one batch of 256"),
        ({"buffer": 256}, r"holds 4 windows of 64, 252 activations .* fewer than one batch of 256"),
        ({"context": 1}, "context must be 2 or more"),
        ({"context": 129}, "context 129 is more than the 128 positions"),
        ({"hook": "layers.9"}, "layer 9 is out of range; this gpt2 has layers 0 to 3"),
        ({"hook": "blocks.1.hook_resid"}, "did you mean 'blocks.1.hook_resid_p"),
        (
            {"max_norm": 0.5},
            "max_norm is a multiple of the median norm and must be over 1; got 0.5",
        ),
    ],
)
def test_what_does_not_fit_is_refused(good, change, message):
    with pytest.raises(ValueError, match=message):
        check_source(replace(good, **change))


def test_model_and_corpus_must_be_there(good, tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder"):
        check_source(replace(good, model=str(tmp_path / "none")))
    with pytest.raises(FileNotFoundError, match="no corpus"):
        check_source(replace(good, corpus=str(tmp_path / "none.txt")))
    blank = tmp_path / "blank.txt"
    blank.write_text(" \n\n<|endoftext|>\n")
    with pytest.raises(ValueError, match=r"blank\.txt holds no text"):
        check_source(replace(good, corpus=str(blank)))
