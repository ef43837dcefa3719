"""Kinds of setting: what they allow, what they say, and how a signature is read."""

from math import inf, nan
from typing import Annotated

import pytest

from saelab.numbers import (
    Count,
    Kind,
    Share,
    check_numbers,
    nearest_name,
    settings_in,
)


def tuned(d_in, *, ramp: Annotated[Share, "of training"] = 0.2, rows: Annotated[Count, "used"] = 9):
    return d_in, ramp, rows


@pytest.mark.parametrize(
    ("kind", "said", "inside", "outside"),
    [
        (Kind(0, 1), "from 0 to 1", (0, 0.5, 1), (-0.1, 1.1, nan, inf)),
        (Kind(0, 1, above=True), "above 0 and at most 1", (0.1, 1), (0, 1.1)),
        (Kind(1, whole=True), "a whole number, at least 1", (1, 2.0, 7), (0, 1.5, nan, inf)),
        (Kind(0, 6, whole=True), "a whole number, from 0 to 6", (0, 6), (7, 0.5)),
        (Kind(0), "at least 0", (0, 1e9), (-1, nan, inf)),
        (Kind(0, above=True), "above 0", (1e-9,), (0, -inf)),
        (Kind(20_000), "at least 20,000", (20_000,), (19_999,)),
        (Kind(0, 1, whole=True), "1 (on) or 0 (off)", (0, 1), (0.5, 2)),
    ],
)
def test_a_kind_says_its_range_and_holds_to_it(kind, said, inside, outside):
    assert kind.range == said
    for value in inside:
        kind.check("x", value)
    for value in outside:
        with pytest.raises(ValueError) as refused:
            kind.check("x", value)
        assert str(refused.value).startswith(f"x is {value:g}; it must be {said}")


def test_an_error_says_what_the_number_means():
    with pytest.raises(ValueError, match=r"^ramp is 2; it must be from 0 to 1: of training$"):
        Kind(0, 1).check("ramp", 2, "of training")
    with pytest.raises(ValueError, match=r"^x is inf; it must be at least 0, and finite$"):
        Kind(0).check("x", inf)


def test_settings_are_read_from_the_signature():
    settings = settings_in(tuned)
    assert list(settings) == ["ramp", "rows"]
    assert (settings["ramp"].default, settings["ramp"].meaning) == (0.2, "of training")
    assert (settings["rows"].kind, settings["rows"].default) == (Kind(1, whole=True), 9)


def test_unknown_numbers_are_named_with_their_likeliest_spelling():
    with pytest.raises(ValueError, match=r"^tuned has no setting 'rosw' \(did you mean 'rows'\?\)"):
        check_numbers("tuned", {"rosw": 1}, settings_in(tuned))
    with pytest.raises(ValueError, match=r"^tuned:rows is 0; it must be a whole number"):
        check_numbers("tuned", {"rows": 0}, settings_in(tuned), prefix="tuned:")
    assert nearest_name("nothing like it", ["rows"]) == ""
