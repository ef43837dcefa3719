"""The page names and explains what evaluations report."""

import json
from pathlib import Path

import pytest

from saelab.effects.intervene import TYPES
from saelab.report import metrics

RESULTS = sorted((Path(__file__).parents[3] / "docs" / "results").glob("*.json"))


def test_the_page_knows_every_type_of_intervention():
    assert tuple(metrics.TYPES) == TYPES


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_committed_score_is_explained(path):
    names = {
        name for row in json.loads(path.read_text()).get("rows", []) for name in row["metrics"]
    }
    assert [name for name in sorted(names) if not metrics.metric(name).meaning] == []


@pytest.mark.parametrize("type_", TYPES)
def test_scores_of_a_type_are_explained(type_):
    for part in (
        "",
        "_above_control",
        "_above_others",
        "_share_above_control",
        "_share_above_others",
    ):
        assert metrics.metric(f"consistency_{type_}{part}").meaning
    assert metrics.world_metric(f"nces_auroc_{type_}_batch").label == f"AUROC, {type_} (batch)"
