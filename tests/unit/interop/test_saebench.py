import json
import uuid

import pytest
import torch

from saelab.evals.core.data import prepare
from saelab.evals.core.measure import measure
from saelab.evals.result import Result
from saelab.interop.saebench import Labels, core_to_saebench, export, file_name
from saelab.runs import Source
from saelab.sae.activations import TopK
from saelab.sae.module import SAE
from saelab.types import Hook
from toy_lm import ToyLM, held, random_dictionary, windows, zero

LABELS = Labels(release="lab/batch_topk", model="toy", dataset="stdlib", sae_cfg={"d_in": 6})
TOP = """eval_type_id eval_config eval_id datetime_epoch_millis eval_result_metrics eval_result_details
sae_bench_commit_hash sae_lens_id sae_lens_release_id sae_lens_version sae_cfg_dict eval_result_unstructured"""
CONFIG = """model_name llm_dtype batch_size_prompts n_eval_reconstruction_batches n_eval_sparsity_variance_batches dataset
context_size exclude_special_tokens_from_reconstruction compute_kl compute_ce_loss compute_l2_norms
compute_sparsity_metrics compute_variance_metrics compute_featurewise_density_statistics
compute_featurewise_weight_based_metrics"""
METRICS = {
    "model_behavior_preservation": "kl_div_score kl_div_with_ablation kl_div_with_sae",
    "model_performance_preservation": "ce_loss_score ce_loss_with_ablation ce_loss_with_sae ce_loss_without_sae",
    "reconstruction_quality": "explained_variance explained_variance_legacy mse cossim",
    "shrinkage": "l2_norm_in l2_norm_out l2_ratio relative_reconstruction_bias",
    "sparsity": "l0 l1",
    "token_stats": "total_tokens_eval_reconstruction total_tokens_eval_sparsity_variance",
    "misc_metrics": "freq_over_1_percent freq_over_10_percent normalized_freq_over_1_percent "
    "normalized_freq_over_10_percent average_max_encoder_cosine_sim "
    "average_max_decoder_cosine_sim frac_alive",
}
DETAILS = """index feature_density consistent_activation_heuristic encoder_bias encoder_norm encoder_decoder_cosine_sim
max_decoder_cosine_sim max_encoder_cosine_sim"""


@pytest.fixture(scope="module")
def results():
    lm = ToyLM()
    data = prepare(held(lm, windows(lm)))
    return measure(random_dictionary(), data), measure(zero(), data)


def test_schema(results):
    value = core_to_saebench(results[0], LABELS)
    assert set(value) == set(TOP.split())
    assert set(value["eval_config"]) == set(CONFIG.split())
    assert {c: set(m) for c, m in value["eval_result_metrics"].items()} == {
        c: set(m.split()) for c, m in METRICS.items()
    }
    assert all(set(record) == set(DETAILS.split()) for record in value["eval_result_details"])
    assert [record["index"] for record in value["eval_result_details"]] == list(range(16))
    assert value["eval_type_id"] == "core"
    assert uuid.UUID(value["eval_id"]).version == 4
    assert 0 <= value["datetime_epoch_millis"] <= 9_999_999_999_999
    assert value["eval_result_unstructured"] == {}
    assert (value["sae_lens_id"], value["sae_lens_release_id"]) == ("custom_sae", "lab/batch_topk")
    config = value["eval_config"]
    assert (
        config["batch_size_prompts"],
        config["n_eval_reconstruction_batches"],
        config["context_size"],
    ) == (16, 2, 9)


def test_values_are_the_compatible_ones(results):
    metrics = core_to_saebench(results[0], LABELS)["eval_result_metrics"]
    for category in metrics.values():
        for name, number in category.items():
            assert number == results[0].details["compatible"][name]["value"]
    shipped, corrected = (
        metrics["reconstruction_quality"]["explained_variance"],
        results[0].scores["explained_variance"].value,
    )
    assert shipped != pytest.approx(corrected, abs=0.01)
    assert metrics["token_stats"] == dict.fromkeys(METRICS["token_stats"].split(), 180)


def test_details_are_rounded(results):
    detail = core_to_saebench(results[0], LABELS)["eval_result_details"][1]
    assert detail["encoder_norm"] == round(float(random_dictionary().W_enc[:, 1].norm()), 10)
    assert detail["encoder_bias"] == 0
    z = random_dictionary().encode(torch.cat([w.flat for w, _ in windows(ToyLM())]))
    density = (z > 0).float().mean(0)
    assert detail["feature_density"] == round(float(density[1]), 10)


def test_undefined_is_minus_one_here_and_null_in_our_own_json(results):
    undefined = results[1]
    metrics = core_to_saebench(undefined, LABELS)["eval_result_metrics"]
    assert metrics["reconstruction_quality"]["cossim"] == -1
    assert metrics["shrinkage"]["relative_reconstruction_bias"] == -1
    assert (
        core_to_saebench(undefined, LABELS)["eval_result_details"][0][
            "consistent_activation_heuristic"
        ]
        == -1
    )
    ours = undefined.to_json()
    assert ours["scores"]["cossim"]["value"] is None
    assert ours["compatible"]["cossim"]["value"] is None
    assert ours["latents"]["consistency"] == [None] * 4


def test_file(results, tmp_path):
    assert file_name(LABELS) == "lab_batch_topk_custom_sae_eval_results.json"
    folder, source = tmp_path / "topk-s0" / "eval", Source(model="toy", corpus="text")
    sae = SAE(6, 16, TopK(2), hook=Hook(1))
    export(folder, source, sae, Result({}))  # another evaluation's: no place in the format
    assert not folder.exists()
    export(folder, source, sae, results[0])
    (path,) = (folder / "saebench").iterdir()
    assert path.name == "saelab_topk-s0_custom_sae_eval_results.json"
    value = json.loads(path.read_text())
    assert value["eval_type_id"] == "core" and value["eval_config"]["dataset"] == "text"
    assert value["sae_cfg_dict"] == {
        "d_in": 6,
        "d_sae": 16,
        "hook_name": "blocks.1.hook_resid_post",
        "architecture": "topk",
    }
