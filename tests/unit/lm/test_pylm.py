import hashlib
import itertools

import numpy as np
import pytest
import torch

from saelab.lm.pylm.recipe import (
    Batches,
    Recipe,
    build_model,
    build_optimizers,
    encode_files,
    train_tokenizer,
)
from saelab.text.stdlib import MIN_BYTES, SourceFile, stdlib_corpus

RECIPE = Recipe(
    steps=100, sequences=4, context=16, vocab=300, width=64, layers=2, warmup=10, decay=0.5
)


def _files(count=12, length=90) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, 300, length + i).astype(np.uint16) for i in range(count)]


@pytest.fixture
def library(tmp_path):
    for i in range(120):
        (tmp_path / f"mod{i:03d}.py").write_text(f"# module {i}\n" + "value = 1\n" * 10)
    (tmp_path / "small.py").write_text("x")
    (tmp_path / "zz_copy.py").write_bytes((tmp_path / "mod003.py").read_bytes())
    (tmp_path / "latin.py").write_bytes(b"# \xe9\xe9 " + b"a" * 100)
    for name in ("site-packages", "encodings", "package"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inner.py").write_text(f"# {name}\n" + "y = 2\n" * 20)
    return tmp_path


def test_any_step_can_be_asked_for():
    batches = Batches(_files(), RECIPE)
    assert batches.per_epoch == (sum(len(f) + 1 for f in _files()) - 15) // 15 // 4
    whole = list(itertools.islice(batches(0), 2 * batches.per_epoch + 3))  # over two epochs' ends
    for step in (0, 5, batches.per_epoch - 1, batches.per_epoch, 2 * batches.per_epoch + 2):
        assert torch.equal(next(iter(Batches(_files(), RECIPE)(step))), whole[step])
    assert not torch.equal(whole[0], whole[batches.per_epoch])  # another order


def test_windows_open_with_bos_and_show_each_token_at_most_once_per_epoch():
    files = [np.arange(1, 200, dtype=np.uint16), np.arange(200, 290, dtype=np.uint16)]
    batches = Batches(files, RECIPE)
    epoch = torch.cat(list(itertools.islice(batches(0), batches.per_epoch)))
    assert epoch.shape[1] == 16
    assert (epoch[:, 0] == 0).all()
    shown = epoch[:, 1:].flatten()
    shown = shown[shown > 0]
    assert len(shown) == len(shown.unique()) > 200
    for row in epoch[:, 1:].tolist():  # within a window the text's own order, but at a file's start
        assert all(b in (a + 1, 0) or a == 0 for a, b in itertools.pairwise(row))


def test_too_little_text_for_one_batch():
    with pytest.raises(ValueError, match="41 tokens are fewer than one batch of 4 x 16"):
        Batches([np.ones(40, np.uint16)], RECIPE)


def test_the_schedule_warms_up_and_ends_near_zero():
    for recipe in (Recipe(), RECIPE):
        rates = [recipe.scale(step) for step in range(recipe.steps)]
        assert rates[0] == pytest.approx(1 / recipe.warmup)
        assert max(rates) == 1.0
        assert rates[round(recipe.steps * (1 - recipe.decay)) - 1] == 1.0
        assert 0 < rates[-1] < 0.05
        assert rates[-1] == pytest.approx(1 / (recipe.steps * recipe.decay))
        tail = rates[round(recipe.steps * (1 - recipe.decay)) :]
        assert all(a > b for a, b in itertools.pairwise(tail))
    assert RECIPE.tokens == 100 * 4 * 16


def test_a_file_is_held_out_by_a_hash_of_its_path_alone(library):
    corpus = stdlib_corpus(str(library))
    for file in corpus.train + corpus.held_out:
        expected = int(hashlib.sha256(file.path.encode()).hexdigest()[:8], 16) % 20 == 0
        assert file.held_out == expected == (file in corpus.held_out)
    assert SourceFile("a.py", "one").held_out == SourceFile("a.py", "two").held_out
    assert 1 <= len(corpus.held_out) <= 12
    assert corpus.split("train") == corpus.train
    assert corpus.split("held_out") == corpus.held_out


def test_what_the_corpus_leaves_out(library):
    corpus = stdlib_corpus(str(library))
    paths = [file.path for file in sorted(corpus.train + corpus.held_out, key=lambda f: f.path)]
    assert paths == [*(f"mod{i:03d}.py" for i in range(120)), "package/inner.py"]
    assert corpus.dropped == {"not_utf8": 1, "small": 1, "duplicate": 1}
    assert all(len(file.text.encode()) >= MIN_BYTES for file in corpus.train)
    with pytest.raises(FileNotFoundError, match="no Python source under"):
        stdlib_corpus(str(library / "nothing"))


def test_the_corpus_hash_is_of_paths_and_texts(library):
    before = stdlib_corpus(str(library)).hash
    stdlib_corpus.cache_clear()
    assert stdlib_corpus(str(library)).hash == before
    (library / "mod001.py").write_text("# changed\n" + "value = 1\n" * 10)
    stdlib_corpus.cache_clear()
    assert stdlib_corpus(str(library)).hash != before


def test_the_tokenizer_round_trips_any_text(library):
    files = stdlib_corpus(str(library)).train
    tokenizer = train_tokenizer(files, 300)
    assert tokenizer.token_to_id("<|bos|>") == 0
    text = "def f(x):\n\treturn 'ü€😀'  # \x00\n"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text
    assert 0 not in ids
    assert tokenizer.encode("value").ids[0] == 0  # BOS is put in front by default
    assert encode_files(tokenizer, files[:1])[0].dtype == np.uint16


def test_every_weight_is_in_exactly_one_optimizer():
    model = build_model(RECIPE)
    optimizers = build_optimizers(model, RECIPE)
    groups = [
        [id(p) for g in optimizer.param_groups for p in g["params"]] for optimizer in optimizers
    ]
    assert sorted(groups[0] + groups[1]) == sorted(id(p) for p in model.parameters())
    assert id(model.model.embed_tokens.weight) in groups[1]
    assert torch.equal(
        build_model(RECIPE).model.embed_tokens.weight, model.model.embed_tokens.weight
    )
