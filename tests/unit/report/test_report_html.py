import pytest

from saelab.report.html import esc, fact, score, show, signed
from saelab.report.latents import _token


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.25, "−0.2500"),
        (32.016, "32.02"),
        (1_000_000, "1,000,000"),
        (1234.56, "1,234.6"),
        (2e-6, "2.00e−06"),
        (1, "1.000"),
    ],
)
def test_show(value: float, text: str) -> None:
    assert show(value) == text


def test_signed_keeps_zero_plain() -> None:
    assert [signed(value) for value in (0.5, -0.5, 0.0)] == ["+0.5000", "−0.5000", "0"]


def test_score_in_its_four_states() -> None:
    assert "0.5000" in score(
        {"value": 0.5, "low": 0.4, "high": 0.6}
    ) and "[0.4000, 0.6000]" in score({"value": 0.5, "low": 0.4, "high": 0.6})
    assert "no interval" in score({"value": 0.5, "low": None, "high": None})
    assert "undefined: empty &lt;set&gt;" in score({"value": None, "reason": "empty <set>"})
    assert "undefined: no reason was recorded" in score({"value": float("nan")})
    assert "not measured" in score(None)


def test_escaping() -> None:
    assert esc('<b a="\'">') == "&lt;b a=&quot;&#x27;&quot;&gt;"
    assert _token("a\n\tb\x00\r") == "a⏎\tb␀␍"


def test_fact_of_every_kind() -> None:
    assert (
        fact(True) == "yes"
        and fact([1, 2]) == "1, 2"
        and fact({"torch": "2.13.0"}) == "torch 2.13.0"
    )
    assert (
        "not recorded" in fact(None)
        and fact(0.0078) == "0.0078"
        and "undefined" in fact(float("nan"))
    )
