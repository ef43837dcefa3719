"""Nothing that is computed changes unnoticed. If a change is meant: `python tests/golden/make.py
NAME`, and say why.
"""

import importlib.util
from pathlib import Path

import pytest
import torch

from saelab.variants import VARIANTS

_spec = importlib.util.spec_from_file_location("golden_make", Path(__file__).with_name("make.py"))
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


@pytest.mark.parametrize("variant", VARIANTS)
def test_trace_is_the_stored_one(variant):
    now, then = make.trace(variant), make.stored(variant)
    assert now.keys() == then.keys() and len(now["loss"]) == make.STEPS
    for name, values in then.items():
        assert now[name] == pytest.approx(values, rel=1e-9, abs=1e-9), name
    assert torch.get_default_dtype() == torch.float32


def test_every_trace_belongs_to_a_variant():
    assert {path.stem for path in make.FOLDER.glob("*.json")} == set(VARIANTS)


def test_variants_have_different_traces():
    losses = [tuple(make.stored(variant)["loss"]) for variant in VARIANTS]
    assert len(set(losses)) == len(losses)
