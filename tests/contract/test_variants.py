"""Every variant through one battery, and what the table of variants refuses."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from saelab.terms.base import Objective, Variant
from saelab.train.checks import (
    CHECKS,
    N_LATENTS,
    Subject,
    check_codes,
    check_dead_latents,
    check_l0,
    check_seeds,
    variant_checks,
)
from saelab.types import Hook, Spec
from saelab.variants import VARIANTS, build, check_spec, settings_of


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", [name for name, _ in variant_checks("topk")])
def test_battery(variant, name):
    dict(variant_checks(variant))[name]()
