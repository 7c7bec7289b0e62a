"""Plots as inline SVG: histograms, differences against means (Bland and Altman 1986), and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Agreement",
    "Histogram",
    "bland_altman_svg",
    "bland_altman_values",
    "curves_svg",
    "histogram_svg",
    "histogram_values",
]

FloatArray = NDArray[np.floating]

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 46
_REFERENCE, _SYNTHETIC = "#1b4f8a", "#b3361b"
_COLOURS = (_REFERENCE, _SYNTHETIC, "#2d7a3e", "#7a4fa3", "#8a6d1b", "#444444")


class _Axes:
    """Maps data to the drawing and draws the frame, ticks and names."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x_range, self.y_range = x, y

    def x(self, value: float) -> float:
        """Return where a value lies from left to right, pixels."""
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Return where a value lies from top to bottom, pixels."""
        low, high = self.y_range
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def frame(self, x_name: str, y_name: str) -> str:
        """Return the axes with five ticks each and their names, as SVG."""
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        parts = [f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#333"/>']
        for value in np.linspace(*self.x_range, 5):
            parts.append(f'<path d="M{self.x(value):.1f} {bottom}v5" stroke="#333"/>')
            parts.append(_label(self.x(value), bottom + 18, _tick(value), "middle"))
        for value in np.linspace(*self.y_range, 5):
            parts.append(f'<path d="M{_LEFT} {self.y(value):.1f}h-5" stroke="#333"/>')
            parts.append(_label(_LEFT - 8, self.y(value) + 4, _tick(value), "end"))
        middle = (_TOP + bottom) / 2
        parts.append(_label((_LEFT + right) / 2, _HEIGHT - 8, x_name, "middle"))
        turned = f'x="14" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 14 {middle:.0f})"'
        parts.append(f"<text {turned}>{escape(y_name)}</text>")
        return "".join(parts)


@dataclass(frozen=True)
class Histogram:
    """Shares of voxels (0 to 1) in bins over the images' common range, percentiles 0.1 to 99.9."""

    limits: tuple[float, float]
    centres: FloatArray
    reference: FloatArray
    synthetic: FloatArray


def histogram_values(reference: FloatArray, synthetic: FloatArray, bins: int = 80) -> Histogram:
    """Return the histograms of two sets of intensities."""
    low, high = _widened(*np.percentile(np.concatenate([reference, synthetic]), [0.1, 99.9]))
    counts = [np.histogram(values, bins, (low, high))[0] / max(values.size, 1) for values in (reference, synthetic)]
    return Histogram((low, high), low + (np.arange(bins) + 0.5) * (high - low) / bins, *counts)


@dataclass(frozen=True)
class Agreement:
    """Voxels' means and differences (synthetic minus reference), and the differences' mean and standard deviation."""

    means: FloatArray
    errors: FloatArray
    bias: float
    spread: float

    @property
    def limits(self) -> tuple[float, float]:
        """The limits of agreement, bias ± 1.96 SD."""
        return self.bias - 1.96 * self.spread, self.bias + 1.96 * self.spread


def bland_altman_values(reference: FloatArray, synthetic: FloatArray) -> Agreement:
    """Return what a plot of differences against means shows (Bland and Altman 1986)."""
    errors = synthetic - reference
    return Agreement((reference + synthetic) / 2, errors, float(errors.mean()), float(errors.std()))


def histogram_svg(reference: FloatArray, synthetic: FloatArray, unit: str, bins: int = 80) -> str:
    """Return the histograms of two sets of intensities over their common range (percentiles 0.1 to 99.9)."""
    histogram = histogram_values(reference, synthetic, bins)
    centres, counts = histogram.centres, (histogram.reference, histogram.synthetic)
    axes = _Axes(histogram.limits, (0.0, 100 * float(max(c.max() for c in counts)) or 1.0))
    parts = [axes.frame(f"intensity ({unit})", "share of voxels (%)")]
    for count, colour, dash in zip(counts, (_REFERENCE, _SYNTHETIC), ("", "5 3"), strict=True):
        points = " ".join(f"{axes.x(x):.1f},{axes.y(100 * y):.1f}" for x, y in zip(centres, count, strict=True))
        style = f'stroke="{colour}" stroke-dasharray="{dash}"' if dash else f'stroke="{colour}"'
        parts.append(f'<polyline points="{points}" fill="none" stroke-width="1.8" {style}/>')
    for row, (text, colour) in enumerate((("reference", _REFERENCE), ("synthetic (dashed)", _SYNTHETIC))):
        parts.append(_label(_WIDTH - _RIGHT - 4, _TOP + 14 + 16 * row, text, "end", colour))
    return _svg("Histogram of intensities in the reference and the synthetic image", parts)


def bland_altman_svg(reference: FloatArray, synthetic: FloatArray, unit: str, bins: int = 36) -> str:
    """Return the voxels' differences against their means as a density, with bias and limits of agreement (±1.96 SD)."""
    agreement = bland_altman_values(reference, synthetic)
    mean, error, bias, spread = agreement.means, agreement.errors, agreement.bias, agreement.spread
    x_range = _widened(*np.percentile(mean, [0.1, 99.9]))
    reach = max(float(np.abs(np.percentile(error, [0.1, 99.9])).max()), abs(bias) + 2.2 * spread, 1e-12)
    axes = _Axes(x_range, (-reach, reach))
    density, x_edges, y_edges = np.histogram2d(mean, error, bins, (x_range, (-reach, reach)))
    shade = np.sqrt(density / max(density.max(), 1))  # square root: single voxels stay visible beside the bulk
    parts = []
    for column, row in zip(*np.nonzero(density), strict=True):
        x, y = axes.x(x_edges[column]), axes.y(y_edges[row + 1])
        width, height = axes.x(x_edges[column + 1]) - x, axes.y(y_edges[row]) - y
        opacity = 0.08 + 0.92 * shade[column, row]
        parts.append(f'<path d="M{x:.1f} {y:.1f}h{width:.1f}v{height:.1f}h{-width:.1f}z" opacity="{opacity:.2f}"/>')
    parts = [f'<g fill="{_REFERENCE}">', *parts, "</g>"]
    low, high = agreement.limits
    for value, text in ((bias, "bias"), (high, "+1.96 SD"), (low, "−1.96 SD")):
        dash = "" if text == "bias" else ' stroke-dasharray="6 4"'
        y = axes.y(value)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="{_SYNTHETIC}"{dash}/>')
        parts.append(_label(_WIDTH - _RIGHT - 4, y - 4, f"{text} {_tick(value)}", "end", _SYNTHETIC))
    parts.append(axes.frame(f"mean of both ({unit})", f"synthetic − reference ({unit})"))
    return _svg("Difference of the two images against their mean, as a density of voxels", parts)


def curves_svg(
    curves: Mapping[str, Sequence[tuple[float, float]]], x_name: str, y_name: str, logarithmic: bool = False
) -> str:
    """Return lines through points (x, y) with a legend; ``logarithmic`` places x by its logarithm to base 10.

    The legend is at the top: on the right where the curves fall, else on the left.
    """
    drawn = {
        name: [(float(np.log10(x)) if logarithmic else float(x), float(y)) for x, y in points]
        for name, points in curves.items()
    }
    every = np.array([point for points in drawn.values() for point in points])
    axes = _Axes(_widened(*_limits(every[:, 0])), _widened(*_limits(every[:, 1], 0.06)))
    parts = [axes.frame(f"{x_name} (log10)" if logarithmic else x_name, y_name)]
    ends = [sorted(points) for points in drawn.values()]
    falling = sum(points[0][1] - points[-1][1] for points in ends) > 0
    legend, anchor = (_WIDTH - _RIGHT - 4, "end") if falling else (_LEFT + 12, "start")
    for number, (name, points) in enumerate(drawn.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        line = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke-width="1.8" stroke="{colour}"/>')
        parts += [f'<circle cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="3" fill="{colour}"/>' for x, y in points]
        parts.append(_label(legend, _TOP + 14 + 16 * number, name, anchor, colour))
    return _svg(f"{y_name} against {x_name}", parts)


def _limits(values: FloatArray, margin: float = 0.0) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return low - margin * (high - low), high + margin * (high - low)


def _tick(value: float) -> str:
    return f"{value:.0f}" if 100 <= abs(value) < 1e5 else f"{value:.3g}"


def _label(x: float, y: float, text: str, anchor: str, colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _svg(title: str, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img"'
        f' font-family="sans-serif" font-size="12"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def _widened(low: float, high: float) -> tuple[float, float]:
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)
