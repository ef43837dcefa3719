"""SynthSAEBench (arXiv 2602.14687): thousands of rare, correlated features in superposition, most
of them in a forest.

Hypothesis it tests: with frequencies, a hierarchy, exclusion and correlation as in language, which
SAE finds the features? Made by `synth.features_build.synthsaebench`, drawn by `synth.features`.
`synthsaebench-16k` has the published configuration, the others keep all that does not depend on
size.

Features: the roots, level 1, ... of the forest, then those outside of it; the earlier, the more
frequent.
"""

from dataclasses import replace

from saelab.synth.entry import Entry, Setup
from saelab.synth.features_build import synthsaebench

# k is the L0 of the features that the width has room for, the most frequent ones: 25 at 4,096 of
# 16,384 (published), 8.3 at 512 of 2,048, 3.6 at 128 of 512.
PUBLISHED = Entry(
    tests=(
        "Which SAE finds the features of the published benchmark: 16,384 in 768 dimensions, "
        "34 active at a time?"
    ),
    build=synthsaebench,
    setup=Setup(n_latents=4_096, k=25, steps=195_312, batch=1_024, lr=3e-4, decay=1 / 3),
    headline=("f1", "mcc", "uniqueness", "explained_variance"),
    head="synthsaebench-16k",
    settings={"features": 16_384, "d": 768, "roots": 128},
)
ENTRIES = {
    "synthsaebench-16k": PUBLISHED,
    "synthsaebench-2k": replace(
        PUBLISHED,
        tests=(
            "The published benchmark at an eighth of the size, for a table within an hour: 2,048 "
            "features in 256 dimensions."
        ),
        setup=replace(PUBLISHED.setup, n_latents=512, k=8, steps=4_000, lr=1e-3),
        head="synthsaebench-2k",
        settings={},
    ),
    "synthsaebench-512": replace(
        PUBLISHED,
        tests="The published benchmark at a size for minutes: 512 features in 64 dimensions.",
        setup=replace(PUBLISHED.setup, n_latents=128, k=3.5, steps=2_000, lr=2e-3),
        head="synthsaebench-512",
        settings={"features": 512, "d": 64, "roots": 4},
    ),
}
