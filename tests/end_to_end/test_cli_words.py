"""What the command line takes and says, without training anything."""

import pytest

from saelab import cli, cli_synth
from saelab.cli import main
from saelab.cli_values import separate
from saelab.evals import EVALS
from saelab.synth.worlds import WORLDS
from saelab.variants import BASES, PARTS, ROWS


def said(capsys, *words):
    assert main(words) == 0
    return capsys.readouterr().out


def refused(capsys, *words):
    try:
        assert main(words) == 2
    except SystemExit as end:
        assert end.code == 2
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_everything_that_can_be_chosen_is_listed(capsys):
    for what, names in (
        ("variants", [*BASES, *PARTS, *ROWS]),
        ("evals", EVALS),
        ("worlds", WORLDS),
    ):
        for text in (said(capsys, "list", what), said(capsys, "list")):
            assert not [name for name in names if name not in text]
    for name, evaluation in EVALS.items():
        text = said(capsys, "list", "evals", name)
        assert not [metric.key for metric in evaluation.metrics if metric.key not in text]
    text = said(capsys, "list", "evals")
    assert "core (on language models)\n" in text and "truth (on all worlds)\n" in text
    assert "disentangle (on the worlds s4, s4_null)\n" in text
    assert "aux=0.03125" in said(capsys, "list", "settings", "topk")
    assert "weight=2" in said(capsys, "list", "settings", "metric")


NOTHING = "it is given without a value; write one or several, or leave it out"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["list", "world"], "there is no list of 'world' (did you mean 'worlds'?)"),
        (["list", "evals", "cor"], "no evaluation is called 'cor' (did you mean 'core'?)"),
        (["list", "settings"], "the settings of what?"),
        (["list", "worlds", "s1"], "takes no name; given 's1'"),
        (["train", "topk", "--evals"], f"--evals: {NOTHING}"),
        (["train", "topk", "--evals="], f"--evals: {NOTHING}"),
        (["train", "topk", "--evals", "--l0", "8"], f"--evals: {NOTHING}"),
        (["train", "topk", "--seeds", "--l0", "8"], f"--seed/--seeds: {NOTHING}"),
        (["train", "topk", "--seeds", "one"], "'one' is no seed; write for instance 0 1 2, or 0-2"),
        (["train", "topk", "--seeds", "3-1"], "'3-1' is no seed"),
        (["train", "topk", "--l0", "few"], "--l0: 'few' is no number; write for instance 8"),
        (["train", "topk", "--lr", "low"], "--lr: 'low' is no number; write for instance 8"),
        (["train", "topk", "--tokens", "1.5"], "--tokens: '1.5' is no whole number; write"),
        (["train", "topk", "--threads", "all"], "--threads: 'all' is no whole number; write"),
        (["train", "topk", "--n-latent", "8"], "Perhaps you meant: --n_latents INT"),
        (["train", "topk", "--n-latent", "8"], "run saelab train --help"),
        (["train", "topk", "more"], "Unrecognized options: more"),
        (["run", "plan.py", "--job", "2"], "run saelab run --help"),
        (["train", "topk", "--out"], "run saelab train --help"),
        (["train"], "all names: saelab list variants"),
        (["--seed", "0"], "no command '--seed'"),
        (["synth", "s1", "--variants"], f"--variants: {NOTHING}"),
        (["synth", "s1", "--variants", ","], f"--variants: {NOTHING}"),
        (["synth", "s1", "--seeds", "3"], "3 alone is one seed, not 3 seeds; write 0-2 for 3"),
        (["synth", "s1", "--jobs", "two"], "--jobs: 'two' is no whole number"),
        (["synth", "s1", "--l0", "4", "few"], "--l0: 'few' is no number"),
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


@pytest.mark.parametrize("words", ["0 1 2", "0,1,2", "0-2", "0-1 2", "0, 1,2-2"])
def test_seeds_are_written_alike_in_all_commands(words, monkeypatch):
    asked = []

    def carry_out(table, *_args, **_more):
        asked.append(table)
        return Good()

    monkeypatch.setattr(cli, "_carry_out", carry_out)
    monkeypatch.setattr(cli_synth, "_carry_out", carry_out)
    assert main(["train", "topk", "--seeds", *words.split(" ")]) == 0
    assert main(["synth", "s1", "--seeds", *words.split(" ")]) == 0
    plan, table = asked
    assert [run.seed for run in plan.runs] == [0, 1, 2] == list(table.seeds)


def test_one_seed_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(cli_synth, "_carry_out", lambda table, *_args, **_more: asked.append(table))
    for words in (["--seed", "0"], ["--seeds", "3-3"], []):
        assert main(["synth", "s1", *words]) == 0
    assert [table.seeds for table in asked] == [(0,), (3,), (0, 1, 2, 3, 4)]


class Good:
    def check(self):
        """Nothing is wrong."""
