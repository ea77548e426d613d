"""The plot of latest-lookup time against history length, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

Point = tuple[int, float]

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 220, 56, 52
COLOURS = ("#0b6e4f", "#5fad8c", "#1f77b4", "#555555", "#d1495b", "#edae49", "#8e6c8a", "#00798c", "#a05a2c")


def growth_svg(series: Mapping[str, Sequence[Point]], title: str) -> str:
    """Both axes logarithmic: history length to the right, milliseconds upwards."""
    lengths = [length for points in series.values() for length, _ in points]
    times = [ms for points in series.values() for _, ms in points]
    low_x, high_x = math.log10(min(lengths)), math.log10(max(lengths))
    low_y, high_y = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))

    def x(length: float) -> float:
        return LEFT + (math.log10(length) - low_x) / (high_x - low_x or 1) * (WIDTH - LEFT - RIGHT)

    def y(ms: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(ms) - low_y) / (high_y - low_y or 1) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" font-size="15" font-weight="bold">{escape(title)}</text>',
        f'<text x="{LEFT}" y="42" fill="#555555">milliseconds, by number of checkpoints in the history</text>',
    ]
    for power in range(low_y, high_y + 1):
        at = y(10.0**power)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{10**power:,}</text>')
    for length in sorted(set(lengths)):
        at = x(length)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#eeeeee"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{length:,}</text>')
    labels = _spread({name: y(points[-1][1]) for name, points in series.items()})
    for (name, points), colour in zip(series.items(), COLOURS, strict=False):
        line = " ".join(f"{x(length):.1f},{y(ms):.1f}" for length, ms in points)
        width = 3 if name.startswith("s3_checkpoint") else 1.6
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        parts += [f'<circle cx="{x(n):.1f}" cy="{y(ms):.1f}" r="3" fill="{colour}"/>' for n, ms in points]
        text = f"{name}: {points[-1][1]:,.0f} ms"
        parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{labels[name] + 4:.1f}" fill="{colour}">{escape(text)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _spread(heights: Mapping[str, float]) -> dict[str, float]:
    """Heights for labels, moved apart where they would cover one another."""
    placed: dict[str, float] = {}
    last = TOP - 16.0
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        last = placed[name] = max(height, last + 16)
    return placed
