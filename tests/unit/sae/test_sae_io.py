"""An SAE's folder: what comes back, and what each kind of damage is called."""

import json

import pytest
import torch

from saelab.sae.activations import BatchTopK, Gated, Priced, ReLU, TopK, Trimmed
from saelab.sae.io import ACTIVATIONS, load_sae, save_sae
from saelab.sae.jump_relu import JumpReLU
from saelab.sae.module import SAE
from saelab.store import CorruptFile
from saelab.types import Hook

ACTS = [
    ReLU,
    Trimmed,
    lambda: TopK(3),
    lambda: BatchTopK(2.5),
    lambda: JumpReLU(12, threshold=0.2, width=0.1),
    lambda: Gated(12),
    lambda: Priced(2.5, 12),
]


def an_sae(act) -> SAE:
    blocks = {"coarse": range(4), "fine": range(4, 12)}
    return SAE(
        5,
        12,
        act,
        blocks=blocks,
        hook=Hook(3, "mlp_out"),
        generator=torch.Generator().manual_seed(0),
    )


@pytest.fixture
def folder(tmp_path):
    save_sae(an_sae(TopK(3)), tmp_path / "sae", {"note": 1})
    return tmp_path / "sae"


@pytest.mark.parametrize("act", ACTS)
def test_round_trip(tmp_path, act):
    sae = an_sae(act())
    for parameter in sae.parameters():
        parameter.data += 0.1 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(1)
        )
    if isinstance(sae.act, BatchTopK | Trimmed):
        sae.act.threshold.fill_(0.25)
    if isinstance(sae.act, Priced):
        sae.act.price.copy_(torch.linspace(0, 0.5, 12))
    save_sae(sae, tmp_path / "sae", {})
    again = load_sae(tmp_path / "sae")
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(2))
    assert torch.equal(again.encode(x), sae.encode(x)) and torch.equal(again(x), sae(x))
    assert (again.hook, again.blocks, again.act.config()) == (
        sae.hook,
        sae.blocks,
        sae.act.config(),
    )
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_every_activation_is_covered():
    assert {act().name for act in ACTS} == set(ACTIVATIONS)


def test_the_folder_holds_plain_json_and_safetensors(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["sae.json", "sae.safetensors"]
    config = json.loads((folder / "sae.json").read_text())
    assert (
        config["meta"] == {"note": 1}
        and config["hook"] == "blocks.3.hook_mlp_out"
        and config["activation"] == "topk"
    )


def test_an_sae_is_replaced_as_a_whole(folder):
    save_sae(an_sae(ReLU()), folder, {})
    assert isinstance(load_sae(folder).act, ReLU) and len(list(folder.parent.iterdir())) == 1


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is no SAE folder: it has no sae\.json"):
        load_sae(tmp_path / "nowhere")


def test_missing_tensors(folder):
    (folder / "sae.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"sae\.safetensors"):
        load_sae(folder)


@pytest.mark.parametrize("kept", [0, 7, 200, -1])
def test_truncated_tensors(folder, kept):
    path = folder / "sae.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptFile, match=r"sae\.safetensors is truncated or not safetensors"):
        load_sae(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_latents": 13}, "do not describe one SAE"),
        ({"d_in": 4}, "do not describe one SAE"),
        (
            {"activation": "jump_relu", "activation_config": {"width": 0.1}},
            "do not describe one SAE",
        ),
        (
            {"activation": "topq"},
            "unknown activation 'topq'; this saelab knows relu, trimmed, topk",
        ),
        ({"activation_config": {}}, "do not describe one SAE"),
        ({"activation_config": {"k": -5}}, "k is -5, and it must be above 0"),
        ({"checksum": "0" * 64}, "not hold the tensors that were saved with sae.json"),
        ({"hook": "layer three"}, "'layer three' is no hook name"),
        ({"d_in": "five"}, "do not describe one SAE"),
    ],
)
def test_altered_json(folder, change, message):
    config = json.loads((folder / "sae.json").read_text())
    (folder / "sae.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message):
        load_sae(folder)


def test_json_without_a_field(folder):
    config = json.loads((folder / "sae.json").read_text())
    del config["blocks"]
    (folder / "sae.json").write_text(json.dumps(config))
    with pytest.raises(CorruptFile, match=r"do not describe one SAE.*blocks"):
        load_sae(folder)


def test_tensors_that_are_not_finite_are_named(folder):
    sae = an_sae(TopK(3))
    sae.W_dec.data[7, 2] = torch.nan
    save_sae(sae, folder, {})
    with pytest.raises(CorruptFile, match=r"sae\.safetensors: W_dec, row 7 is not finite"):
        load_sae(folder)


def test_altered_tensors(folder):
    """Two bytes of a weight, which stays a number."""
    path = folder / "sae.safetensors"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match="another checksum"):
        load_sae(folder)


def test_a_folder_without_a_checksum_is_older(folder):
    config = json.loads((folder / "sae.json").read_text())
    del config["checksum"]
    (folder / "sae.json").write_text(json.dumps(config))
    load_sae(folder)


def test_an_sae_says_what_it_is(folder):
    save_sae(an_sae(TopK(3)), folder, {"run": {"spec": {"l0": 3}}, "facts": {"model": "pylm"}})
    sae = load_sae(folder.parent)  # as a run's folder holds it
    assert repr(sae) == "SAE(topk: width 5, 12 latents, blocks.3.hook_mlp_out, trained for L0 3)"
    assert sae.meta["facts"] == {"model": "pylm"}


def test_cut_json(folder):
    (folder / "sae.json").write_text((folder / "sae.json").read_text()[:40])
    with pytest.raises(CorruptFile, match=r"sae\.json is not valid json"):
        load_sae(folder)


def test_wrong_width_is_named():
    with pytest.raises(ValueError, match="activations of width 7 given to an SAE of width 5"):
        an_sae(ReLU()).encode(torch.zeros(2, 7))
