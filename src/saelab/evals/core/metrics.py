"""What the core scores are called, which way is better, and what they mean."""

from saelab.evals.result import Metric

METRICS = (
    Metric(
        "l0",
        "L0",
        "neither",
        "Mean number of latents active on a token: the sparsity at which everything is compared.",
        1,
    ),
    Metric(
        "explained_variance",
        "Explained variance",
        "higher",
        "Share of the activations' variance that the reconstruction keeps; 1 is perfect.",
        2,
        against="l0",
    ),
    Metric(
        "ce_loss_score",
        "CE recovered",
        "higher",
        "Share of the language model's loss that survives when the reconstruction replaces the "
        "activations; 0 is zero-ablation, 1 is the untouched model.",
        3,
        against="l0",
    ),
    Metric(
        "kl_div_score",
        "KL recovered",
        "higher",
        "The same for the divergence between the model's predictions with and without the SAE.",
        4,
    ),
    Metric("cossim", "Cosine", "higher", "Cosine between activation and reconstruction.", 6),
    Metric(
        "dead",
        "Dead",
        "lower",
        "Share of latents that were never active on the evaluation text.",
        5,
    ),
    Metric(
        "frac_alive",
        "Alive",
        "higher",
        "Share of latents that were active on the evaluation text.",
        7,
    ),
    Metric(
        "mse",
        "MSE",
        "lower",
        "Squared error of the reconstruction, summed over dimensions, mean over tokens.",
    ),
    Metric(
        "ce_loss_without_sae",
        "CE, untouched model",
        "neither",
        "Cross-entropy of the untouched model's predictions, nats per token.",
    ),
    Metric(
        "ce_loss_with_sae",
        "CE with the SAE",
        "lower",
        "Cross-entropy with the reconstruction in place of the activations, nats per token.",
    ),
    Metric(
        "ce_loss_with_ablation",
        "CE, zero-ablation",
        "neither",
        "Cross-entropy with zeros in place of the activations, nats per token.",
    ),
    Metric(
        "kl_div_with_sae",
        "KL with the SAE",
        "lower",
        "Divergence of the predictions with the reconstruction from the untouched model's, nats "
        "per token.",
        against="explained_variance",
    ),
    Metric(
        "kl_div_with_ablation",
        "KL, zero-ablation",
        "neither",
        "The same divergence with zeros in place of the activations, nats per token.",
    ),
    Metric(
        "ce_loss_score_mean",
        "CE recovered (mean-ablation)",
        "higher",
        "CE recovered where 0 is the mean activation.",
    ),
    Metric(
        "kl_div_score_mean",
        "KL recovered (mean-ablation)",
        "higher",
        "KL recovered where 0 is the mean activation.",
    ),
    Metric(
        "l1",
        "L1",
        "neither",
        "Mean sum of the active latents' values, in units of the activation's norm.",
    ),
    Metric(
        "l2_ratio",
        "Norm ratio",
        "neither",
        "Norm of the reconstruction over norm of the activation; below 1 is shrinkage.",
    ),
    Metric(
        "relative_reconstruction_bias",
        "Reconstruction bias",
        "neither",
        "Squared norm of the reconstruction over its product with the activation; 1 is unbiased, "
        "below 1 is shrinkage.",
    ),
    Metric(
        "freq_over_1_percent",
        "Active on > 1 %",
        "neither",
        "Share of latents active on more than 1 % of the tokens.",
    ),
    Metric(
        "freq_over_10_percent",
        "Active on > 10 %",
        "neither",
        "Share of latents active on more than 10 % of the tokens.",
    ),
    Metric(
        "average_max_decoder_cosine_sim",
        "Nearest decoder row",
        "neither",
        "Mean cosine of a latent's nearest other decoder row.",
    ),
    Metric(
        "average_max_encoder_cosine_sim",
        "Nearest encoder row",
        "neither",
        "The same of the encoder's directions.",
    ),
)
