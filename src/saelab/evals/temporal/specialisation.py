"""What kinds of latents a dictionary has, by when they fire, and which of them are redundant.

Legend: L latents | F properties of a latent's firing.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saelab.evals.common.auroc import Array
from saelab.evals.result import Table
from saelab.evals.temporal.text import Codes
from saelab.figures import Axis, Heat, Points, Scatter
from saelab.types import Score

KINDS = 5  # clusters, at most
REDUNDANT = 0.7  # correlation
SHOWN = 32  # latents in the matrix
NAMES = {  # property -> what latents are called that have little and much of it
    "run length": ("short runs", "long runs"),
    "autocorrelation": ("momentary", "persistent"),
    "position": ("position-free", "positional"),
    "density": ("rare", "frequent"),
}
NOTE = (
    "Clusters of live latents by how long they stay active, how their codes persist, how much of "
    "them is the position and how often they fire. Each is called after what sets it most apart."
)


def specialisations(properties: Mapping[str, Array], live: Array) -> tuple[Table, Scatter]:
    """Clusters of the live latents by the `properties [L]` of `NAMES`: k-means on standardised
    values, the logarithm for run length and density.
    """
    values = np.stack([properties[name][live] for name in NAMES], 1)
    scaled = values.copy()
    scaled[:, [0, 3]] = np.log(np.maximum(values[:, [0, 3]], 1e-9))
    kind, names = _clusters(scaled)
    rows = [
        (name, int((kind == i).sum()), *(float(v) for v in values[kind == i].mean(0)))
        for i, name in enumerate(names)
    ]
    points = (
        Points("latents", values[:, 3].tolist(), values[:, 1].tolist(), "dot", kind.tolist()),
    )
    table = Table("Kinds of latents", ("kind", "latents", *NAMES), rows, NOTE)
    return table, Scatter(
        "specialisations",
        "Kinds of latents",
        NOTE,
        Axis("share of tokens on which it fires", log=True),
        Axis("autocorrelation"),
        points if len(live) else (),
        groups=tuple(names),
        grouped="Kinds of latents",
    )


def _clusters(values: Array) -> tuple[Array, list[str]]:
    """The cluster of every latent, and the clusters' names; two that are called alike are one."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if not len(values):
        return np.zeros(0, int), []
    deviation = values.std(0)
    values = np.round((values - values.mean(0)) / np.where(deviation > 1e-9, deviation, 1), 6)
    n = min(KINDS, len(np.unique(values, axis=0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # points that coincide
        means: Any = KMeans(n, n_init=10, random_state=0)  # pyright: ignore[reportArgumentType]
        fitted = means.fit(values)
    called = [_name(centre) for centre in fitted.cluster_centers_]
    names = sorted(set(called))
    return np.array([names.index(called[i]) for i in fitted.labels_]), names


def _name(centre: Array) -> str:
    most = int(np.abs(centre).argmax())
    return list(NAMES.values())[most][int(centre[most] > 0)]


def redundancy(codes: Codes) -> tuple[dict[str, Score], Array]:
    """Share and number of groups of live latents that correlations above .7 join, and the group of
    every live latent.
    """
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import connected_components

    live = codes.of(codes.live)
    if not len(codes.live):
        none = Score(None, reason="no latent fires on over one token in a thousand")
        return {"redundant_share": none, "redundant_groups": none}, codes.live
    # latents that never fire together do not correlate above 0
    together = coo_array(live.rows.T @ live.rows)
    first, second = together.coords
    covariance = together.data / live.n_kept - live.mean[first] * live.mean[second]
    joined = covariance / np.sqrt(live.variance[first] * live.variance[second]) > REDUNDANT
    shape = (len(codes.live), len(codes.live))
    graph = csr_array((np.ones(joined.sum()), (first[joined], second[joined])), shape=shape)
    _, group = connected_components(graph, directed=False)
    size = np.bincount(group)
    of_latents = "no interval: it is of latents, not of tokens"
    share = float((size[group] > 1).mean())
    scores = {
        "redundant_share": Score(share, n=len(group), reason=of_latents),
        "redundant_groups": Score(float((size > 1).sum()), n=len(group), reason=of_latents),
    }
    return scores, group


def matrix(codes: Codes, group: Array, block: Array) -> Heat:
    """Correlations of up to 32 latents over all positions, those of one group side by side: first
    those of redundant groups, the largest ones first, then the most active of the block.
    """
    size = np.bincount(group, minlength=1)[group] if len(group) else group
    inside = np.isin(codes.live, block)
    order = np.lexsort((-codes.density[codes.live], ~inside, -np.where(size > 1, size, 0)))[:SHOWN]
    order = order[np.lexsort((group[order], -size[order]))]
    latents = codes.live[order]
    few = codes.of(latents)
    dense = (few.rows.toarray() - few.mean)[few.text.keep.flatten().numpy()]
    values = dense.T @ dense / few.n_kept / np.sqrt(np.outer(few.variance, few.variance))
    names = [str(latent) for latent in latents]
    return Heat(
        "correlations",
        "Correlation of latents over positions",
        "Correlations of codes over all held-out tokens. Blocks of high values off the diagonal "
        "are groups of latents that say the same.",
        names,
        names,
        _values(values),
        -1.0,
        1.0,
        row_label="latent",
        column_label="latent",
    )


def timeline(codes: Codes, latents: Array, words: Sequence[str], window: int) -> Heat:
    """The 12 most active latents of the block over one window, each as a share of its largest code
    there.
    """
    z: Any = codes.of(latents).grid(slice(window, window + 1))[0].T.double().numpy()  # [l, T]
    busy = np.argsort(-(z > 0).sum(1), kind="stable")[:12]
    top = z[busy].max(1, keepdims=True)
    return Heat(
        "timeline",
        "Latents over a text",
        "The most active latents of the slow block on a stretch of held-out text, each as a share "
        "of its largest code there. What lasts shows as long bars.",
        [str(latents[i]) for i in busy],
        words,
        _values(z[busy] / np.where(top > 0, top, 1)),
        0.0,
        1.0,
        row_label="latent",
        column_label="token",
    )


def _values(values: Array) -> list[list[float]]:
    return np.round(values, 4).tolist()
