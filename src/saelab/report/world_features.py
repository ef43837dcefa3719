"""Learned against true features: the pictures of a synthetic world, from what its evaluations
recorded.
"""

from collections.abc import Callable, Iterable
from typing import Any

from saelab.report import tables, world_plots
from saelab.report.read import Results, RunRecord, items, mapping, number
from saelab.report.text import esc


def features_section(results: Results) -> str:
    """The pictures: cosines of latents and features, recovery against frequency, and the tree where
    there is one.
    """
    absent: list[str] = []
    heats, clouds = [], []
    for variant in results.variants:
        first = _first(results.of(variant), lambda run: _heat(run) is not None)
        heat = None if first is None else _heat(first)
        if heat is None:
            absent.append(f"{esc(variant)} (no run has the cosines of latents and features)")
        else:
            heats.append(heat)
        cloud = _cloud(results.of(variant), variant)
        if cloud is None:
            absent.append(f"{esc(variant)} (no run has the features' frequencies and matches)")
        else:
            clouds.append(cloud)
    groups = list(
        dict.fromkeys(
            name
            for names in [*(h.groups for h in heats), *(c.points for c in clouds)]
            for name in names
        )
    )
    legend = "".join(
        f'<span><span class="swatch" style="background:{world_plots.group_colour(i)}"></span>{esc(name)}</span>'
        for i, name in enumerate(groups)
    )
    parts = [f'<p class="legend">Features: {legend}</p>'] if legend else []
    if heats:
        scale = '<span class="cosine-scale">|cosine| 0 <i></i> 1</span>'
        svg = world_plots.heats(heats, groups, "Learned against true features")
        parts.append(
            f'<h3>Cosine of every latent and every feature</h3><figure>{svg}</figure><p class="note">{scale} The first healthy '
            "seed of each variant. Latents stand in the order of the features they match, those "
            "left over below: a clean "
            "diagonal is full recovery, two dark cells in a row are a latent that mixes two "
            "features.</p>"
        )
    if clouds:
        svg = world_plots.clouds(clouds, groups, "Recovery against frequency")
        parts.append(
            f'<h3>Recovery against frequency</h3><figure>{svg}</figure><p class="note">A dot is a feature in one of the '
            "healthy seeds. A feature that no latent was left for stands at 0.</p>"
        )
    return "".join(parts) + _tree_part(results, absent) + tables.not_drawn(absent)


def _tree_part(results: Results, absent: list[str]) -> str:
    if not any("composition" in run.evals for run in results.runs):
        return ""
    panels = []
    for index, variant in enumerate(results.variants):
        run = _first(results.of(variant), lambda run: bool(_nodes(run)))
        if run is None:
            absent.append(f"{esc(variant)} (no run has a recovered tree)")
        else:
            panels.append(world_plots.Tree(f"{run.title}: {_edges(run)}", index, _nodes(run)))
    if not panels:
        return ""
    return (
        f"<h3>Recovered tree</h3><figure>{world_plots.trees(panels, 'Recovered tree')}</figure>"
        '<p class="note"><span class="cosine-scale">|cosine| with its latent 0 <i></i> 1</span> The first healthy seed of each '
        "variant. A line is an edge found by the SAE's best coverage graph (where one latent's "
        "firings cover another's, at the "
        "threshold that fits the truth best), a faint one an edge that it missed.</p>"
    )


def _edges(run: RunRecord) -> str:
    """`41 of 64 edges found, 38 in its own tree`."""
    children = [child for parent in _parents(run) for child in _children(parent)]
    found, own = (
        sum(child.get(key) is True for child in children) for key in ("found", "found_in_tree")
    )
    has_tree = any("found_in_tree" in child for child in children)
    return f"{found} of {len(children)} edges found" + (
        f", {own} in its own tree" if has_tree else ""
    )


def _details(run: RunRecord, name: str) -> dict[str, Any]:
    result = run.evals.get(name, {})
    return mapping(result.get("details")) or result


def _first(runs: Iterable[RunRecord], usable: Callable[[RunRecord], bool]) -> RunRecord | None:
    """The first usable run of a variant, a healthy one if there is one."""
    return next(
        (run for run in sorted(runs, key=lambda run: bool(run.problems)) if usable(run)), None
    )


def _groups(details: dict[str, Any], width: int) -> dict[str, tuple[int, int]]:
    """Named ranges of the first `width` features; damaged ones are left out."""
    groups = {}
    for name, bounds in mapping(details.get("groups")).items():
        known = [
            bound
            for bound in items(bounds)
            if isinstance(bound, int) and not isinstance(bound, bool)
        ]
        if len(known) == 2 and 0 <= known[0] < min(known[1], width):
            groups[name] = (known[0], min(known[1], width))
    return groups


def _heat(run: RunRecord) -> world_plots.Heat | None:
    details = _details(run, "truth")
    rows = [[number(value) for value in items(row)] for row in items(details.get("cosine"))]
    whole = [[value for value in row if value is not None] for row in rows]
    if not rows or not whole[0] or {len(row) for row in [*rows, *whole]} != {len(whole[0])}:
        return None
    return world_plots.Heat(run.title, whole, _groups(details, len(whole[0])))


def _cloud(runs: list[RunRecord], variant: str) -> world_plots.Cloud | None:
    points: dict[str, list[tuple[float, float]]] = {}
    for run in [run for run in runs if not run.problems] or runs:
        details = _details(run, "truth")
        frequency, matched = (
            [number(value) for value in items(details.get(key))] for key in ("frequency", "matched")
        )
        if len(frequency) != len(matched):
            continue
        groups = _groups(details, len(matched)) or {"features": (0, len(matched))}
        for name, (start, stop) in groups.items():
            pairs = zip(frequency[start:stop], matched[start:stop], strict=True)
            points.setdefault(name, []).extend((x, y or 0.0) for x, y in pairs if x is not None)
    return world_plots.Cloud(variant, points) if any(points.values()) else None


def _parents(run: RunRecord) -> list[dict[str, Any]]:
    return [mapping(parent) for parent in items(_details(run, "composition").get("parents"))]


def _children(parent: dict[str, Any]) -> list[dict[str, Any]]:
    return [mapping(child) for child in items(parent.get("children"))]


def _nodes(run: RunRecord) -> list[world_plots.Node]:
    return [
        world_plots.Node(
            number(parent.get("cosine")) or 0.0,
            [
                (number(child.get("cosine")) or 0.0, child.get("found") is True)
                for child in _children(parent)
            ],
        )
        for parent in _parents(run)
    ]
