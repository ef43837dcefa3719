"""Learned against true features: the pictures of a synthetic world, from what its evaluations recorded."""

from collections.abc import Callable, Iterable
from typing import Any

from saelab.report import tables, world_plots
from saelab.report.read import Results, RunRecord, items, mapping, number
from saelab.report.text import esc, show


def features_section(results: Results) -> str:
    """The pictures: cosines of latents and features, recovery against frequency, and the tree where there is one."""
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
    groups = list(dict.fromkeys(name for names in [*(h.groups for h in heats), *(c.points for c in clouds)] for name in names))
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
            "seed of each variant. Latents are sorted by the feature they match: a clean diagonal is full recovery, "
            "two dark cells in a row are a latent that mixes two features.</p>"
        )
    if clouds:
        svg = world_plots.clouds(clouds, groups, "Recovery against frequency")
        parts.append(
            f'<h3>Recovery against frequency</h3><figure>{svg}</figure><p class="note">A dot is a feature in one of the '
            "healthy seeds. A feature that no latent was left for stands at 0.</p>"
        )
    return "".join(parts) + _tree_part(results, absent) + tables.not_drawn(absent)


def _tree_part(results: Results, absent: list[str]) -> str:
    if not any("composition" in run.truth for run in results.runs):
        return ""
    panels, limits = [], set()
    for index, variant in enumerate(results.variants):
        run = _first(results.of(variant), lambda run: bool(_nodes(run)))
        if run is None:
            absent.append(f"{esc(variant)} (no run has a recovered tree)")
            continue
        nodes = _nodes(run)
        edges = [found for node in nodes for _, found in node.children]
        limits.add(number(_details(run, "composition").get("threshold")))
        panels.append(world_plots.Tree(f"{_title(run)}: {sum(edges)} of {len(edges)} edges found", index, nodes))
    if not panels:
        return ""
    limit = next(iter(limits)) if len(limits) == 1 else None
    rule = "" if limit is None else f" An edge counts as found above {show(limit)}."
    return (
        f"<h3>Recovered tree</h3><figure>{world_plots.trees(panels, 'Recovered tree')}</figure>"
        '<p class="note"><span class="cosine-scale">|cosine| with its latent 0 <i></i> 1</span> The first healthy seed of each '
        f"variant; a line is an edge that the SAE found, a faint one an edge that it missed.{rule}</p>"
    )


def _details(run: RunRecord, name: str) -> dict[str, Any]:
    return mapping(run.truth.get(name, {}).get("details"))


def _first(runs: Iterable[RunRecord], usable: Callable[[RunRecord], bool]) -> RunRecord | None:
    """The first usable run of a variant, a healthy one if there is one."""
    return next((run for run in sorted(runs, key=lambda run: bool(run.problems)) if usable(run)), None)


def _title(run: RunRecord) -> str:
    return f"{run.label}{' (unhealthy)' if run.problems else ''}"


def _groups(details: dict[str, Any], width: int) -> dict[str, tuple[int, int]]:
    """Named ranges of features that lie within the width; damaged ones are left out."""
    groups = {}
    for name, bounds in mapping(details.get("groups")).items():
        known = [bound for bound in items(bounds) if isinstance(bound, int) and not isinstance(bound, bool)]
        if len(known) == 2 and 0 <= known[0] < known[1] <= width:
            groups[name] = (known[0], known[1])
    return groups


def _heat(run: RunRecord) -> world_plots.Heat | None:
    details = _details(run, "truth")
    rows = [[number(value) for value in items(row)] for row in items(details.get("cosine"))]
    whole = [[value for value in row if value is not None] for row in rows]
    if not rows or not whole[0] or {len(row) for row in [*rows, *whole]} != {len(whole[0])}:
        return None
    return world_plots.Heat(_title(run), whole, _groups(details, len(whole[0])))


def _cloud(runs: list[RunRecord], variant: str) -> world_plots.Cloud | None:
    points: dict[str, list[tuple[float, float]]] = {}
    for run in [run for run in runs if not run.problems] or runs:
        details = _details(run, "truth")
        frequency, matched = ([number(value) for value in items(details.get(key))] for key in ("frequency", "matched"))
        if len(frequency) != len(matched):
            continue
        groups = _groups(details, len(matched)) or {"features": (0, len(matched))}
        for name, (start, stop) in groups.items():
            pairs = zip(frequency[start:stop], matched[start:stop], strict=True)
            points.setdefault(name, []).extend((x, y or 0.0) for x, y in pairs if x is not None)
    return world_plots.Cloud(variant, points) if any(points.values()) else None


def _nodes(run: RunRecord) -> list[world_plots.Node]:
    nodes = []
    for parent in map(mapping, items(_details(run, "composition").get("parents"))):
        children = [
            (number(child.get("cosine")) or 0.0, child.get("found") is True)
            for child in map(mapping, items(parent.get("children")))
        ]
        nodes.append(world_plots.Node(number(parent.get("cosine")) or 0.0, children))
    return nodes
