"""The page names and explains what evaluations report."""

import json
from pathlib import Path

import pytest

from saelab.effects.intervene import TYPES
from saelab.evals import EVALS, metric_of
from saelab.evals.nces.metrics import CHANGE
from saelab.runs import Source, WorldSource
from saelab.synth.worlds import WORLDS

RESULTS = sorted((Path(__file__).parents[3] / "docs" / "results").glob("*.json"))


def test_the_page_knows_every_type_of_intervention():
    assert tuple(CHANGE) == TYPES


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_committed_score_is_explained(path):
    names = {
        name for row in json.loads(path.read_text()).get("rows", []) for name in row["metrics"]
    }
    assert [name for name in sorted(names) if not metric_of(name).meaning] == []


@pytest.mark.parametrize("type_", TYPES)
def test_scores_of_a_type_are_explained(type_):
    for part in (
        "",
        "_above_control",
        "_above_others",
        "_share_above_control",
        "_share_above_others",
    ):
        assert metric_of(f"consistency_{type_}{part}").meaning
    assert metric_of(f"nces_auroc_{type_}_batch").label == f"AUROC, {type_} (batch)"


def test_one_key_means_one_thing():
    """Among evaluations on models, and among those on worlds; between the two the words may differ
    ("on a token", "on an activation"), not the name or the better side.
    """
    found, named = {}, {}
    for name, evaluation in EVALS.items():
        on_worlds = any(not evaluation.missing(WorldSource(world, {}, 1, 1)) for world in WORLDS)
        assert on_worlds == bool(evaluation.missing(Source())), name  # one kind each
        for metric in evaluation.metrics:
            assert metric.label and metric.meaning.endswith("."), (name, metric)
            assert not metric.against or metric.against in {m.key for m in evaluation.metrics}
            assert found.setdefault((on_worlds, metric.key), metric) == metric
            same = (metric.label, metric.better)
            assert named.setdefault(metric.key, same) == same
