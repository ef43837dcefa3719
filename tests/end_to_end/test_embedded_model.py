"""The embedded model as shipped: an ordinary Hugging Face folder that predicts Python it never saw."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import saelab.lm.pylm
from saelab.lm.model import load_model
from saelab.lm.pylm.card import card_text, held_out_bits
from saelab.store import read_json
from saelab.text.stdlib import stdlib_corpus

FOLDER = Path(saelab.lm.pylm.__file__).parent / "weights"


@pytest.fixture(scope="module")
def facts() -> dict:
    return read_json(FOLDER / "facts.json")


def test_folder_is_small_and_opens_with_transformers():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 12e6
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert tokenizer("def f(x):\n    return x")["input_ids"][0] == tokenizer.bos_token_id == 0
    text = "import os\n\n\nclass Größe:\n\treturn None\n"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert (
        model.get_input_embeddings().weight.data_ptr()
        == model.get_output_embeddings().weight.data_ptr()
    )


def test_card_says_what_the_facts_say_and_beats_the_compressors(facts: dict):
    ours, references = facts["held_out"]["bits_per_byte"], facts["references_bits_per_byte"]
    assert ours < 0.85 * references["xz -9e"]
    assert ours < references["xz -9e primed with the training text"]
    assert (FOLDER / "README.md").read_text() == card_text(facts)


def test_held_out_files_were_not_trained_on_and_are_predicted(facts: dict):
    corpus = stdlib_corpus()
    assert not {file.path for file in corpus.held_out} & {file.path for file in corpus.train}
    if corpus.hash != facts["corpus_hash"]:
        pytest.skip(
            f"this Python's library ({corpus.hash}) is not the one pylm was trained on "
            f"({facts['corpus_hash']})"
        )
    assert [file.path for file in corpus.held_out] == facts["held_out_paths"]
    lm = load_model("pylm")
    sample = sorted(corpus.held_out, key=lambda file: len(file.text))[40:44]
    measured = held_out_bits(lm.model, lm.tokenizer.backend_tokenizer, sample)
    # single files vary; uniform over the vocabulary is 3.5
    assert 0.4 < measured.bits_per_byte < 1.6
