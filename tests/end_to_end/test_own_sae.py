"""An SAE of one's own in `experiment.py`, and the examples that show how: each is trained, saved and
evaluated as itself.
"""

import json
import re
from pathlib import Path

import pytest
import torch

from end_to_end.test_experiment import ROOT, SMALL, bench, drive, home, script  # noqa: F401
from saelab.cli import main
from saelab.experiments.evaluate.evaluate import evaluate
from saelab.experiments.folders import stored_run
from saelab.ground.ground import open_ground
from saelab.runs import Source
from saelab.sae.io import load_own_sae, load_sae
from saelab.sae.own import OwnSAE

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
OWN = """
from torch import nn


class CustomSAE(nn.Module):
    def __init__(self, d_in):
        super().__init__()
        self.W_enc = nn.Parameter(torch.randn(d_in, dict_size) / d_in**0.5)
        self.W_dec = nn.Parameter(self.W_enc.detach().T.clone())
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(dict_size)), nn.Parameter(torch.zeros(d_in))
        self.gate = nn.Parameter(torch.ones(dict_size))

    def encode(self, x):
        return 0.8 * self.gate.abs() * torch.relu((x - self.b_dec) @ self.W_enc + self.b_enc)

    def decode(self, z):
        return z @ self.W_dec + self.b_dec


def build(d_in: int):
    return CustomSAE(d_in)


def unused_build(d_in: int)"""


def test_a_class_of_ones_own_is_evaluated_as_itself(bench, monkeypatch):  # noqa: F811
    changes = {"layers": "[1]", "seeds": "[0]"}
    script(bench, changes, edit=("def build(d_in: int)", OWN))
    assert drive(bench, monkeypatch) == 0
    (folder,) = Path("run_1/runs").iterdir()
    with pytest.raises(ValueError, match=r"a class of its own, CustomSAE, .*load_own_sae"):
        load_sae(folder)
    sae = load_own_sae(folder)
    assert isinstance(sae, OwnSAE) and sae.W_enc.shape == (32, 64)
    held = open_ground(stored_run(folder).source).held_out()
    x = torch.cat([windows.flat for windows, _ in held.batches]).double()
    module, scale = sae.module.double(), float(sae.scale)
    code = (
        0.8
        * module.gate.abs()
        * torch.relu((scale * x - module.b_dec) @ module.W_enc + module.b_enc)
    )
    error = (scale * x - code @ module.W_dec - module.b_dec).square().sum() / scale**2
    by_hand = 1 - float(error / (x - x.mean(0)).square().sum())
    scores = json.loads((folder / "eval" / "core.json").read_text())["scores"]
    assert scores["explained_variance"]["value"] == pytest.approx(by_hand, abs=1e-6)
    assert scores["l0"]["value"] == pytest.approx(
        float((code > 0).sum(1).double().mean()), abs=1e-3
    )
    health = json.loads((folder / "health.json").read_text())
    assert health["healthy"] and "change the sparsity in its loss" in health["warnings"][-1]
    with pytest.raises(ValueError, match=r"SAE of width 32, and activations of pylm .* width 256"):
        evaluate(folder, source=Source(), load=load_own_sae)
    assert main(["eval", str(folder)]) == 2
    assert main(["eval", str(folder), "--run_code"]) == 0
    again = json.loads((folder / "eval" / "core.json").read_text())["scores"]
    assert again["explained_variance"] == scores["explained_variance"]
    info = json.loads(Path("run_1/final_info.json").read_text())["model_layer_1"]["means"]
    assert info["explained_variance"] == scores["explained_variance"]["value"]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            ("return z @ self.W_dec + self.b_dec", "return z @ self.W_dec[:, :3]"),
            ["decodes that to"],
        ),
        (
            ("    def decode(self, z)", "    def decoder(self, z)"),
            ["has no decode", "nn.Module with"],
        ),
        (("* torch.relu(", "* ("), ["gave negative codes", "after a relu"]),
        (
            ("class CustomSAE(nn.Module)", "class CustomSAE(SAE)"),
            ["is a subclass of SAE", "(nn.Module)", "line "],
        ),
        (
            ("class CustomSAE(nn.Module)", "class CustomSAE( SAE)"),  # a super() without arguments
            ["is a subclass of SAE", "(nn.Module)", "line "],
        ),
        (
            (
                "self.gate = nn.Parameter(torch.ones(dict_size))",
                "self.gate = torch.rand(dict_size)",
            ),
            ["saved and loaded again, the SAE has codes of another value", "register_buffer"],
        ),
        (("return 0.8 *", "return torch.nan *"), ["codes z came first"]),
    ],
)
def test_a_module_that_cannot_work_is_told_so_at_once(edit, words, bench, monkeypatch, capsys):  # noqa: F811
    own = OWN.replace(*edit)
    assert own != OWN
    if "SAE)" in edit[1]:
        if "( " not in edit[1]:
            own = own.replace("super().__init__()", "super().__init__(d_in, dict_size, ReLU())", 1)
        own = "from saelab.sae.module import SAE\nfrom saelab.sae.activations import ReLU\n" + own
    if "torch.rand(dict_size)" in own:  # another one in every object, whatever the seed
        own = own.replace("torch.rand(dict_size)", "torch.rand(dict_size, generator=random)")
        own = "random = torch.Generator()\n" + own
    script(bench, {"layers": "[1]", "seeds": "[0]"}, edit=("def build(d_in: int)", own))
    assert drive(bench, monkeypatch) == (1 if "nan" in edit[1] else 2)
    err = capsys.readouterr().err
    end = err[-1500:]
    assert "Traceback" not in err and "wrong type" not in end
    assert not [word for word in words if word not in end], end
    assert not Path("run_1").exists()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(path, bench, monkeypatch):  # noqa: F811
    small = SMALL | {"dict_size": "256", "layers": "[1]", "seeds": "[0]", "l0": "32"}
    if path.stem == "adversarial":  # it needs labels, and the embedded text has them
        small |= {"model_name": '"pylm"', "corpus": '"stdlib"', "context_length": "128"}
        small |= {"buffer_size": "4_096"}  # a smaller load labels fewer documents
    text = path.read_text()
    for name, value in small.items():
        text, count = re.subn(rf"(?m)^{name}( *: [^=]+)? = .*$", f"{name} = {value}", text)
        assert count == 1, name
    bench.write_text(text)
    assert drive(bench, monkeypatch) == 0
    (info,) = json.loads(Path("run_1/final_info.json").read_text()).values()
    assert info["means"]["l0"] == pytest.approx(32, rel=0.1)
    assert info["means"]["explained_variance"] > 0.2
    (log,) = Path("run_1/runs").glob("*/metrics.jsonl")
    losses = json.loads(log.read_text().splitlines()[-1])["losses"]
    idea = {"hierarchical": "coarse", "causal": "divergence", "temporal": "change"}
    assert losses[idea.get(path.stem, {"contrastive": "info_nce"}.get(path.stem, "adversary"))] > 0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_edits_of_the_script(path):
    """Outside of its imports and its idea, an example is `experiment.py` word for word."""

    def around(text):
        start, end = text.index("import os\n"), text.index("from torch")
        after = text.index('if __name__ == "__main__":')
        unused = ("import torch\n", "from dataclasses import replace\n")
        shared = text[start:end]
        for line in unused:
            shared = shared.replace(line, "")
        return shared, text[after:]

    assert around(path.read_text()) == around((ROOT / "experiment.py").read_text())
    assert len(EXAMPLES) == 5
