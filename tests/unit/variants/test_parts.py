"""Base and parts: a part of weight 0 is its base, a row is what it stands for, and how one is
written.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saelab.experiments.plan import run_from_config, run_id
from saelab.runs import Optim, Run, Source, Spec
from saelab.testing.variants import BATCH, SparseSource
from saelab.train import Training
from saelab.types import Tokens
from saelab.variants import (
    BASES,
    PARTS,
    ROWS,
    build,
    check_spec,
    described,
    listing,
    parse_spec,
    resolved,
    written,
)

SIZE = {"n_latents": 64, "l0": 4.0}
SMALL = {"rows": 300.0, "clusters": 2.0}


def a_run(spec, steps=20):
    source = Source(tokens=steps * BATCH, batch=BATCH)
    return Run(replace(spec, **SIZE), source, Optim(lr=3e-3, warmup=5))


_MET = {}


def once(need, source):
    """What a variant needs of the stream, computed by the first that asks for it by this name."""
    if need.name not in _MET:
        _MET[need.name] = need.of(source)
    return _MET[need.name]


def trained(spec):
    training = Training([a_run(spec)], SparseSource(), meet=once)
    list(training)
    return training.state()


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("base", ["batch_topk:refine=.15", "standard", "frontier"])
def test_parts_of_weight_zero_are_the_base_bit_for_bit(base):
    alone = trained(parse_spec(base))
    for part in PARTS:
        spec = parse_spec(f"{base}+{part}:weight=0")
        variant = build(replace(spec, **SIZE), 16, 0)
        assert not variant.needs and not variant.lm and variant.batches == {"main": Tokens}
        assert equal(alone, trained(spec)), part


def test_a_part_of_another_weight_is_not_the_base():
    alone = trained(parse_spec("batch_topk"))
    for part in PARTS:
        given = SMALL | {"updates": 3, "share": 0.5, "ramp": 0}
        numbers = {name: given[name] for name in described(part) if name in given}
        assert not equal(alone, trained(Spec("batch_topk", parts={part: numbers}))), part


@pytest.mark.parametrize(
    ("row", "stands_for"),
    [
        ("causal", "batch_topk:refine=.15+metric"),
        ("causal:rotate=1:refine=0", "batch_topk+rotated_metric"),
        ("causal:data_labels=1:clusters=2", "batch_topk:refine=.15+labels_metric:clusters=2"),
        ("causal:per_token=1:rows=300:clusters=1", "batch_topk:refine=.15+sampled_metric:rows=300"),
        ("causal:weight=0:price=.3", "batch_topk:refine=.15+price"),
        ("causal_as_stated", "standard+price:weight=.01:mean=0:steer=1"),
        ("causal_on_frontier", "frontier+metric:weight=4:clusters=1:rows=20000"),
        ("end_to_end:kl_share=.5", "batch_topk+kl:windows=.5"),
        ("kl_finetune_5", "batch_topk+kl_finetune:share=.05"),
        ("causal+metric:weight=3", "batch_topk:refine=.15+metric:weight=3"),
    ],
)
def test_a_row_is_what_it_stands_for(row, stands_for):
    assert equal(trained(parse_spec(row)), trained(parse_spec(stands_for)))


def test_the_table_of_rows_is_sound():
    assert not {*BASES} & {*ROWS} and not {*PARTS} & {*BASES, *ROWS}
    for name, row in ROWS.items():
        check_spec(resolved(Spec(name)))
        assert all(part in row.parts for part, _ in row.short.values())
        # old names of settings hide none of the base's
        assert not {*row.short, *row.nulls} & described(row.base).keys()


def test_parts_have_few_numbers_and_every_setting_says_what_it_is():
    for part in PARTS:
        assert 1 <= len(described(part)) <= 8 and "weight" in described(part)
    for name in (*BASES, *PARTS, *ROWS):
        for setting, value in described(name).items():
            value.kind.check(setting, value.default)
            assert value.meaning
        assert f"  {name} " in listing()


def test_a_page_names_every_part_and_its_numbers():
    folder = Path(__file__).parents[3] / "docs" / "variants"
    pages = [page.read_text() for page in folder.glob("*.md")]
    for name in (*PARTS, *ROWS):
        own = [page for page in pages if f"`{name}`" in page]
        settings = described(name) if name in PARTS else ()
        assert any(all(f"`{setting}`" in page for setting in settings) for page in own), name


# Identity -----------------------------------------------------------------------------------------


def test_runs_without_parts_keep_the_identity_they_had():
    plain, old = a_run(Spec("topk")), a_run(Spec("causal", settings={"rotate": 1, "weight": 4}))
    assert "parts" not in plain.config["spec"]
    assert (run_id(plain)[:8], run_id(old)[:8]) == ("5c40b2b8", "57200d3e")
    assert run_from_config(old.config) == old


def test_parts_are_content():
    joined = a_run(parse_spec("topk+kl:weight=1"))
    assert run_from_config(joined.config) == joined and joined.spec.name == "topk-kl"
    others = ("topk", "topk+kl", "topk+kl:weight=2", "topk+metric:weight=1")
    assert len({run_id(run) for run in (joined, *(a_run(parse_spec(o)) for o in others))}) == 5
    one, other = (parse_spec(f"topk+{a}+{b}") for a, b in (("kl", "metric"), ("metric", "kl")))
    assert run_id(a_run(one)) == run_id(a_run(other))
    joined, swapped = (build(replace(spec, **SIZE), 16, 0).objective for spec in (one, other))
    assert [term.name for term in joined.terms] == [term.name for term in swapped.terms]


# As it is written ---------------------------------------------------------------------------------


def test_a_spec_is_read_as_it_is_written():
    text = "batch_topk:refine=0.15+metric:weight=4:clusters=1+kl_finetune"
    spec = parse_spec(text)
    parts = {"metric": {"weight": 4, "clusters": 1}, "kl_finetune": {}}
    assert spec == Spec("batch_topk", settings={"refine": 0.15}, parts=parts)
    assert written(spec) == text
    assert parse_spec("topk + kl : weight = 1e+1").parts == {"kl": {"weight": 10}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("topk+metrik", "no part is called 'metrik' (did you mean 'metric'?); parts: metric"),
        ("topk+metric:wieght=1", "part metric has no setting 'wieght' (did you mean 'weight'?)"),
        ("topk+metric:weight=-1", "metric:weight is -1; it must be at least 0: of the Fisher"),
        ("topk+kl:windows=0", "kl:windows is 0; it must be above 0 and at most 1"),
        ("topk+kl:weight", "'weight' is not SETTING=NUMBER"),
        ("topk+kl+kl", "has a part twice"),
        ("topk+kl+kl_finetune", "the parts kl and kl_finetune both are the term 'kl' of the loss"),
        ("causal+rotated_metric", "the parts metric and rotated_metric both are the term"),
        ("metric:weight=1", "'metric' is a part; write what it joins, for instance topk+metric"),
        ("causall+kl", "unknown variant 'causall' (did you mean 'causal'?)"),
        ("", "unknown variant ''"),
    ],
)
def test_what_is_no_spec(text, words):
    with pytest.raises(ValueError) as refused:
        parse_spec(text)
    assert words in str(refused.value)
