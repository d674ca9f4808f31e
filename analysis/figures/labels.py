"""Names beside points, placed so that none covers another name, a point or the edge."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, hypot, pi, sin

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from ..theme import Theme

__all__ = ["place_labels"]

_RADII, _DIRECTIONS = (7, 12, 18, 26, 36, 48, 62, 78, 96), 24
_NEAR = 14
"""Points of distance from which a line leads back to the point."""
_POINT = 3.5
"""Half the side, in points, of what a marker covers."""


def place_labels(
    figure: Figure,
    ax: Axes,
    points: Sequence[tuple[float, float]],
    bars: Sequence[tuple[float, float]],
    names: Sequence[str],
    theme: Theme,
    *,
    size: float,
    lines: Sequence[tuple[tuple[float, float], ...]] = (),
) -> list[str]:
    """Write ``names`` beside ``points`` (in data units), the first ones first; returns those that found no place.

    Points beyond the names have none and are kept clear of. ``bars`` are what points reach to either side and up and
    down, ``lines`` pairs of ends; names keep clear of them where they can. The axes must have their final limits.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    scale = figure.dpi / 72
    pixels = [tuple(ax.transData.transform(point)) for point in points]
    taken = [
        Bbox.from_bounds(x - _POINT * scale, y - _POINT * scale, 2 * _POINT * scale, 2 * _POINT * scale)
        for x, y in pixels
    ]
    crosses = [box for point, bar in zip(points, bars, strict=True) for box in _cross(ax, point, bar)]
    crosses += [box for line in lines for box in _beads(ax, line)]
    inside, homeless = ax.get_window_extent(), []
    for (x, y), name in zip(pixels, names, strict=False):
        probe = figure.text(0, 0, name, fontsize=size)
        extent = probe.get_window_extent(renderer)
        probe.remove()
        room = (extent.width + 2 * scale, extent.height)
        found = _place(x, y, *room, scale, inside, [*taken, *crosses]) or _place(x, y, *room, scale, inside, taken)
        if found is None:
            homeless.append(name)
            continue
        box, distance = found
        taken.append(box)
        centre = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
        if distance > _NEAR * scale:
            _leader(ax, (x, y), box, theme)
        at = ax.transData.inverted().transform(centre)
        ax.text(at[0], at[1], name, fontsize=size, ha="center", va="center", zorder=6)
    return homeless


def _cross(ax: Axes, point: tuple[float, float], bar: tuple[float, float]) -> list[Bbox]:
    (x, y), (dx, dy) = point, bar
    ends = [((x - dx, y), (x + dx, y)), ((x, y - dy), (x, y + dy))]
    return [Bbox(ax.transData.transform(pair)).padded(1) for pair in ends if pair[0] != pair[1]]


def _beads(ax: Axes, line: tuple[tuple[float, float], ...]) -> list[Bbox]:
    """Small boxes that cover a straight line."""
    (x, y), (u, v) = ax.transData.transform(line)
    count = int(hypot(u - x, v - y) // 4) + 1
    at = [(x + (u - x) * i / count, y + (v - y) * i / count) for i in range(count + 1)]
    return [Bbox.from_bounds(a - 2, b - 2, 4, 4) for a, b in at]


def _place(
    x: float, y: float, width: float, height: float, scale: float, inside: Bbox, taken: Sequence[Bbox]
) -> tuple[Bbox, float] | None:
    """The nearest free box beside a point, and its distance from it in pixels."""
    for radius in _RADII:
        for turn in range(_DIRECTIONS):
            # To the right first, then alternately up and down.
            angle = (turn + 1) // 2 * (2 * pi / _DIRECTIONS) * (1 if turn % 2 else -1)
            dx, dy = cos(angle) * radius * scale, sin(angle) * radius * scale
            left = x + dx - width * (1 - cos(angle)) / 2
            bottom = y + dy - height / 2
            box = Bbox.from_bounds(left, bottom, width, height)
            within = box.x0 >= inside.x0 and box.x1 <= inside.x1 and box.y0 >= inside.y0 and box.y1 <= inside.y1
            if within and not any(box.overlaps(other) for other in taken):
                return box, hypot(*_gap(x, y, box))
    return None


def _gap(x: float, y: float, box: Bbox) -> tuple[float, float]:
    return (max(box.x0 - x, 0.0, x - box.x1), max(box.y0 - y, 0.0, y - box.y1))


def _leader(ax: Axes, point: tuple[float, float], box: Bbox, theme: Theme) -> None:
    """A thin line from the point to the nearest place on the edge of its name."""
    x, y = point
    near = (min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1))
    back = ax.transData.inverted().transform([point, near])
    ax.plot(back[:, 0], back[:, 1], color=theme.muted, linewidth=0.5, zorder=2, scalex=False, scaley=False)
