"""What the command line takes and says, without training anything."""

import pytest

from saelab import cli
from saelab.cli import main
from saelab.cli_synth import separate
from saelab.evals import EVALS
from saelab.synth.worlds import WORLDS
from saelab.variants import BASES, PARTS, ROWS


def said(capsys, *words):
    assert main(words) == 0
    return capsys.readouterr().out


def refused(capsys, *words):
    assert main(words) == 2
    return capsys.readouterr().err


def test_everything_that_can_be_chosen_is_listed(capsys):
    for what, names in (
        ("variants", [*BASES, *PARTS, *ROWS]),
        ("evals", EVALS),
        ("worlds", WORLDS),
    ):
        text = said(capsys, "list", what)
        assert not [name for name in names if name not in text]
    for name, evaluation in EVALS.items():
        text = said(capsys, "list", "evals", name)
        assert not [metric.key for metric in evaluation.metrics if metric.key not in text]
    assert "aux=0.03125" in said(capsys, "list", "settings", "topk")
    assert "weight=2" in said(capsys, "list", "settings", "metric")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["list"], "write saelab list variants | evals | worlds | settings [NAME]"),
        (["list", "world"], "there is no list of 'world' (did you mean 'worlds'?)"),
        (["list", "evals", "cor"], "no evaluation is called 'cor' (did you mean 'core'?)"),
        (["list", "settings"], "the settings of what?"),
        (["list", "worlds", "s1"], "takes no name; given 's1'"),
        (["train", "topk", "--evals"], "--evals is given without a value"),
        (["train", "topk", "--evals", "--l0", "8"], "--evals is given without a value"),
        (["synth", "s1", "--variants"], "--variants is given without a value"),
    ],
)
def test_what_is_refused_names_the_cure(words, answer, capsys):
    assert answer in refused(capsys, *words)


def test_help_on_a_command_in_both_spellings(capsys):
    texts = []
    for words in (["help", "synth"], ["synth", "--help"]):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and "usage: saelab synth" in texts[0]


def test_names_are_separated_by_spaces_or_commas():
    assert separate(()) == () == separate(("",))
    assert separate(("a,b", "c")) == ("a", "b", "c") == separate(("a, b,c",))


def test_counts_may_be_written_with_an_exponent(capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(
        cli, "_carry_out", lambda plan, *_args, **_more: asked.append(plan) or Good()
    )
    for number in ("1e6", "1_000_000", "1000000", "1.0e+6"):
        assert main(["train", "topk", "--tokens", number, "--lr", "1e-3"]) == 0
    assert {plan.runs[0].source.tokens for plan in asked} == {1_000_000}
    assert {plan.runs[0].optim.lr for plan in asked} == {1e-3}


class Good:
    def check(self):
        """Nothing is wrong."""
