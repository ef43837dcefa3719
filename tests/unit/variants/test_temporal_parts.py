"""The temporal parts on their bases: the block, what they refuse, off is the base."""

from dataclasses import replace

import pytest

from saelab.testing.fakes import SparseSource
from saelab.testing.variants import Subject
from saelab.types import Pieces
from saelab.variants import build, parse_spec, resolved
from saelab.variants.tables import PARTS

TEMPORAL = ("xpred", "permuted_xpred", "smooth", "lag_correlation", "position_penalty",
            "token_contrast")  # fmt: skip
BASES = ("standard", "gated", "jump_relu", "topk", "batch_topk", "matryoshka", "frontier:sorts=0")


def test_a_base_has_a_slow_block_and_reads_pieces():
    variant = build(parse_spec("batch_topk+xpred:block=.25:length=8:every=2"), 16, 0)
    assert variant.sae.blocks == {"slow": range(512)}
    ((name, kind),) = ((n, k) for n, k in variant.batches.items() if n != "main")
    assert (kind.length, kind.every, kind.span) == (
        8,
        2,
        15,
    ) and name == "pieces of 8 positions, 2 apart"
    levels = build(parse_spec("matryoshka+xpred"), 16, 0).sae.blocks
    assert levels["slow"] == range(128) and "level_0" in levels


@pytest.mark.parametrize("part", TEMPORAL)
def test_a_part_trains_on_every_base(part):
    for base in BASES:
        subject = Subject(base, lambda spec, *rest, base=base: build(_sized(base, part), *rest))
        training = subject.training(subject.run(3))
        (record,) = [r for progress in training for r in progress.records][-1:]
        assert record.losses[PARTS[part].term] >= 0, (base, record)


def _sized(base, part):
    return replace(parse_spec(f"{base}+{part}:block=.25"), n_latents=64, l0=4.0)


def test_two_parts_need_one_block_and_a_sorting_base_is_refused():
    with pytest.raises(ValueError, match="slow block of 128 latents and another for 512"):
        build(parse_spec("topk+xpred+position_penalty:block=.25"), 16, 0)
    with pytest.raises(ValueError, match=r"sorts its latents .* \(frontier:sorts=0\)"):
        build(parse_spec("frontier+xpred"), 16, 0)
    with pytest.raises(ValueError, match="xpred and permuted_xpred both are the term"):
        parse_spec("topk+xpred+permuted_xpred")


def test_the_row_is_its_composition_and_its_null_another_part():
    spec = resolved(parse_spec("temporal:weight=3:permute=1"))
    assert spec.variant == "batch_topk" and spec.parts == {"permuted_xpred": {"weight": 3.0}}


def test_the_untied_predictor_trains_and_is_not_part_of_the_sae():
    variant = build(_sized("batch_topk", "xpred"), 16, 0)
    names = {name for name, _ in variant.objective.named_parameters()}
    assert {name.split(".")[-1] for name in names} == {"gain", "predictor"}
    subject = Subject("t", lambda spec, *rest: build(_sized("batch_topk", "xpred"), *rest))
    training = subject.training(subject.run(5))
    list(training)
    predictor = dict(training.members[0].objective.named_parameters())[
        next(name for name in names if name.endswith("predictor"))
    ]
    assert predictor.abs().sum() > 0
    assert "predictor" not in " ".join(training.results()[0].sae.state_dict())


def test_a_flat_source_is_refused_in_words():
    source = SparseSource()
    source.missing = lambda kind: "this has no order" if isinstance(kind, Pieces) else ""
    variant = build(_sized("batch_topk", "xpred"), 16, 0)
    with pytest.raises(
        ValueError, match=r"temporal reads pieces of 16 .*: this has no order; or le"
    ):
        variant.check_source("temporal", source)
