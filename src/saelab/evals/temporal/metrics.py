"""What the temporal scores are called and mean: of dictionaries on language models, on worlds."""

from collections.abc import Iterator

from saelab.evals.result import Metric
from saelab.types import Better

LAGS = (12, 24, 64, 128)  # tokens ahead; training reads other ones
SIZES = (16, 32, 64)  # latents that predict
HEADLINE = 64  # lag that stands in short tables
WAYS = {  # of choosing latents from any dictionary -> in words
    "autocorrelation": "of the largest autocorrelation",
    "ridge": "of the largest weights in a ridge regression on all",
    "greedy": "chosen one after the other, each for what it adds",
}
BLOCK = (
    "the slow block, or as many latents of the largest autocorrelation where there is no such block"
)
PROBES = {  # of one latent and few -> in words
    "latent": "the best single latent, balanced accuracy of whether it fires; .5 is chance",
    "k4": "a logistic probe on 4 latents, AUROC; .5 is chance",
    "k16": "a logistic probe on 16 latents, AUROC; .5 is chance",
}
SPEEDS = {
    "slow": "of what lasts (docstring, comment, scope, indentation)",
    "fast": "of what changes from token to token (type, role, brackets)",
}


def _predictions(lag: int) -> Iterator[Metric]:
    later = f"the activation {lag} tokens later, less its mean at the position"
    what = f"Held-out R^2 of {later}, from the codes of one token of {SIZES[-1]} latents"
    yield Metric(
        f"prediction_{lag}",
        f"R^2 at lag {lag}",
        "higher",
        f"{what}: those of the slow block, or the best of the ways of choosing where there is no "
        "such block.",
        int(lag == HEADLINE),
    )
    for way, words in WAYS.items():
        label = f"R^2 at lag {lag}, by {way}"
        yield Metric(f"prediction_{lag}_{way}", label, "higher", f"{what} {words}.")
    yield Metric(
        f"prediction_{lag}_smoothed",
        f"R^2 at lag {lag}, smoothed",
        "higher",
        f"As prediction_{lag}, from codes averaged over the past (factor .85).",
    )
    yield Metric(
        f"ceiling_{lag}",
        f"Ceiling at lag {lag}",
        "neither",
        f"Held-out R^2 of {later}, from the whole activation of one token.",
    )
    yield Metric(
        f"ceiling_share_{lag}",
        f"Share of the ceiling, lag {lag}",
        "higher",
        f"prediction_{lag} / ceiling_{lag}; undefined where the ceiling is below .01.",
    )


def _probes(speed: str) -> Iterator[Metric]:
    for key, label, of in (("", "", "the whole dictionary"), ("_block", ", block", BLOCK)):
        for probe, words in PROBES.items():
            yield Metric(
                f"{speed}_{probe}{key}",
                f"{speed.capitalize()} labels, {probe}{label}",
                "higher" if speed == "slow" else "neither",
                f"Mean over labels {SPEEDS[speed]}, on held-out files, of {words}; from {of}.",
                2 * int((speed, probe, key) == ("slow", "k16", "")),
            )


def _of_both(key: str, label: str, better: Better, meaning: str, headline: int = 0) -> list[Metric]:
    """A metric of the whole dictionary and of its block."""
    return [
        Metric(key, label, better, f"{meaning}, over the whole dictionary."),
        Metric(f"{key}_block", f"{label}, block", better, f"{meaning}, over {BLOCK}.", headline),
    ]


METRICS = (
    *(metric for lag in LAGS for metric in _predictions(lag)),
    *(metric for speed in SPEEDS for metric in _probes(speed)),
    Metric(
        "slow_latent_smoothed",
        "Slow labels, smoothed latent",
        "higher",
        f"Mean over labels {SPEEDS['slow']}, on held-out files, of the AUROC of the single latent "
        "that tells best after its codes are averaged over the past (factor .85).",
    ),
    Metric(
        "autocorrelation",
        "Autocorrelation",
        "higher",
        f"Mean over {BLOCK} and over lags 1 to 64 of a latent's autocorrelation, minus the same on "
        "permuted tokens; at most 1.",
    ),
    Metric(
        "learned_gain",
        "Gain",
        "higher",
        "The factor by which what the slow block reconstructs best predicts the activation some "
        "tokens on or back, less its mean at the position; mean over lags 1 to 64.",
    ),
    Metric(
        "learned_gain_permuted",
        "Gain, permuted",
        "neither",
        "The same on permuted tokens, where there is nothing to predict: 0 but for chance.",
    ),
    *_of_both(
        "position_invariance",
        "Position invariance",
        "higher",
        "1 - R^2 of a latent's codes on the position in the window, mean over live latents",
        3,
    ),
    *_of_both(
        "shift_agreement",
        "Agreement under shifts",
        "higher",
        "Jaccard index of the active latents of a token with and without 1, 4, 16 and 64 more "
        "tokens before it, mean over these; in [0, 1]",
    ),
    *_of_both(
        "support_stability",
        "Support stability",
        "higher",
        "Jaccard index of the active latents of neighbouring tokens, in [0, 1]; compare it at "
        "equal numbers of active latents",
    ),
    *_of_both(
        "active_latents",
        "Active latents",
        "neither",
        "Mean number of active latents of a token",
    ),
    Metric(
        "redundant_share",
        "Redundant latents",
        "lower",
        "Share of the live latents that belong to a group whose codes correlate above .7.",
    ),
    Metric(
        "redundant_groups",
        "Redundant groups",
        "lower",
        "Number of groups of two and more live latents that such correlations join.",
    ),
    *_of_both(
        "t_sae_smoothness",
        "T-SAE's smoothness",
        "neither",
        "Largest |change of code| / |change of activation| between neighbouring tokens of a "
        "window, mean over the latents active there and windows; not free of scale: smaller codes "
        "lower it",
    ),
)
ON_WORLDS = (
    Metric(
        "slow_recall",
        "Slow recall",
        "higher",
        "Share of the slow features that some live latent has with |cosine| above .8.",
        headline=3,
    ),
    Metric(
        "fast_recall",
        "Fast recall",
        "neither",
        "Share of the fast features that some live latent has with |cosine| above .8.",
    ),
    Metric(
        "purity",
        "Purity",
        "higher",
        "Slow latents among the slow and fast ones of the slow block; .5 is chance.",
        headline=1,
    ),
    Metric(
        "purity_sorted",
        "Purity, sorted",
        "higher",
        "Purity after sorting latents by autocorrelation, which is easy for any dictionary: "
        "only what exceeds it speaks for a temporal loss.",
        headline=2,
    ),
    Metric(
        "occupancy",
        "Occupancy",
        "higher",
        "Share of the slow features that a latent of the slow block stands for.",
    ),
    Metric(
        "position_features_in_slow_block",
        "Position in slow block",
        "lower",
        "Number of position signals that can be read linearly from the slow block.",
    ),
    Metric(
        "hidden_correlation",
        "Hidden correlation",
        "higher",
        "Correlation of slow latents' codes with the hidden state of their feature.",
    ),
    Metric(
        "hidden_correlation_smoothed",
        "Hidden correlation, smoothed",
        "higher",
        "The same correlation after the best exponential average of the codes in time.",
    ),
    Metric(
        "learned_gain",
        "Gain",
        "higher",
        "The factor by which what the slow block reconstructs best predicts the activation some "
        "positions on or back, less its mean at the position; mean over lags 1 to 15, 0 on "
        "permuted tokens.",
    ),
    Metric(
        "mcc_slow",
        "MCC, slow",
        "higher",
        "Mean |cosine| of the slow features with the latents matched to them; from 0 to 1.",
    ),
    Metric(
        "mcc_fast",
        "MCC, fast",
        "neither",
        "Mean |cosine| of the fast features with the latents matched to them; from 0 to 1.",
    ),
)
