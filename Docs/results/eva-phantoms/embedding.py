"""Pictures of embeddings: t-SNE (van der Maaten and Hinton, JMLR 2008) of vectors of images and of sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from judging import slices_of
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.models.dclip import Dclip, tokens_of
from MedXlateCore.models.eva_i2i import EvaNetwork, known_domains
from MedXlateCore.models.package import LoadedModel
from MedXlateCore.prompts.acquisition_text import describe
from MedXlateCore.prompts.domains import nearest_domain

if TYPE_CHECKING:
    from run import TestHead

__all__ = ["embeddings", "nuances", "tsne"]

PERPLEXITY, ITERATIONS, NEIGHBOURS = 25.0, 600, 10
COLOURS = {"T1": "#1b4f8a", "T2": "#b3361b", "FLAIR": "#2d7a3e", "PD": "#7a4fa3", "CT": "#444444"}
SHAPES = {"axial": "circle", "coronal": "square", "sagittal": "triangle"}
SIDE = 300

Array = NDArray[np.float64]


@torch.no_grad()
def embeddings(model: LoadedModel, heads: Sequence[TestHead]) -> tuple[list[dict[str, object]], str]:
    """Return how pure neighbourhoods are in each space, and the picture: one slice of each test scan in each plane."""
    network: EvaNetwork = model.network  # type: ignore[assignment]
    torch.manual_seed(0)
    untrained = Dclip(model.config.dclip).eval()
    domains = known_domains(model.config)
    images, texts, codes, labels = [], [], [], []
    for head in heads:
        for scan, facts in enumerate(head.case.facts):
            own = list(slices_of(head, scan))
            for plane, image in own[len(own) // 6 :: len(own) // 3]:  # the middle one of each plane
                images.append(network.dclip.image_vectors(torch.from_numpy(np.ascontiguousarray(image))[None, None]))
                texts.append(describe(facts, plane=plane))  # type: ignore[arg-type]
                codes.append(list(domains).index(nearest_domain(facts, domains).name))
                labels.append((facts.sequence or "CT", plane))
    tokens = tokens_of(texts, model.config.dclip.context)
    spaces = {
        "slices, DCLIP": torch.cat(images).numpy(),
        "sentences, DCLIP": network.dclip.text_vectors(tokens).numpy(),
        "sentences, untrained encoder": untrained.text_vectors(tokens).numpy(),
        "one-hot numbers of domains": np.eye(len(domains))[codes],
    }
    purity = [{"space": name, **_purity(vectors, labels)} for name, vectors in spaces.items()]
    charts = {name: tsne(vectors.astype(np.float64)) for name, vectors in spaces.items()}
    return purity, _svg(charts, labels)


@torch.no_grad()
def nuances(model: LoadedModel) -> list[dict[str, object]]:
    """Return how alike the vectors of two sentences are that differ in one thing, by their cosine."""
    network: EvaNetwork = model.network  # type: ignore[assignment]
    common: dict[str, Any] = {"modality": "MR", "organ": "brain", "field_strength_t": 1.5, "plane": "axial"}
    spin = {"scanning_sequence": ("SE",), "flip_angle_deg": 90.0, "scan_options": ("FS",)}
    gradient = {"scanning_sequence": ("GR",), "sequence_variant": ("SP",), "flip_angle_deg": 20.0}
    short, fast = ({"echo_time_ms": te, "repetition_time_ms": tr} for te, tr in ((12.0, 500.0), (3.0, 10.0)))
    t2 = Acquisition(
        **common, **spin, sequence="T2", contrast_agent=False, echo_time_ms=75.0, repetition_time_ms=4000.0
    )
    t1 = Acquisition(**common, **spin, **short, sequence="T1", contrast_agent=True)
    pairs = {
        "T2: echo time 75 or 125 ms": (t2, t2.with_facts(echo_time_ms=125.0)),
        "T2: 1.5 or 3 T": (t2, t2.with_facts(field_strength_t=3.0)),
        "T1: spin or gradient echo": (t1, t1.with_facts(**gradient, **fast)),
        "T1: with or without contrast agent": (t1, t1.with_facts(contrast_agent=False)),
        "T1: with or without fat suppression": (t1, t1.with_facts(scan_options=())),
        "T1 or T2": (t1, t2),
        "T2: axial or coronal": (t2, t2.with_facts(plane="coronal")),
    }
    rows: list[dict[str, object]] = []
    for name, pair in pairs.items():
        first, second = (network.vectors(network.asked(facts))[0] for facts in pair)
        rows.append({"difference": name, "cosine": float(torch.cosine_similarity(first, second, dim=0))})
    return rows


def _purity(vectors: Array, labels: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return the share of each point's nearest neighbours with its own sequence, and with its own plane.

    Points at one distance count alike: their shares are means over all of them.
    """
    apart = squareform(pdist(vectors.astype(np.float64)))
    np.fill_diagonal(apart, np.inf)
    result = {}
    for n, name in enumerate(("sequence", "plane")):
        own = np.array([label[n] for label in labels])
        same = own[:, None] == own[None]
        limit = np.sort(apart, axis=1)[:, NEIGHBOURS - 1 : NEIGHBOURS] + 1e-9
        near = apart <= limit
        result[name] = float(((same & near).sum(axis=1) / near.sum(axis=1)).mean())
    return result


def tsne(vectors: Array, seed: int = 0) -> Array:
    """Return points [N, 2] whose neighbours are those of the vectors [N, D]; exact, for some hundred points."""
    squared = squareform(pdist(vectors, "sqeuclidean"))
    near = _neighbours(squared)
    rng = np.random.default_rng(seed)
    points, speed, gain = rng.normal(0.0, 1e-4, (len(vectors), 2)), 0.0, np.ones((len(vectors), 2))
    for turn in range(ITERATIONS):
        weights = 1 / (1 + squareform(pdist(points, "sqeuclidean")))
        np.fill_diagonal(weights, 0.0)
        pull = ((4.0 if turn < 100 else 1.0) * near - np.maximum(weights / weights.sum(), 1e-12)) * weights
        slope = 4 * (pull.sum(axis=1)[:, None] * points - pull @ points)
        gain = np.maximum(np.where(np.sign(slope) == np.sign(speed), 0.8 * gain, gain + 0.2), 0.01)
        speed = (0.5 if turn < 250 else 0.8) * speed - 200 * gain * slope
        points = points + speed
        points -= points.mean(axis=0)
    return points


def _neighbours(squared: Array) -> Array:
    """Return the joint probabilities [N, N] of neighbours at the perplexity wanted, from squared distances."""
    others = ~np.eye(len(squared), dtype=bool)
    result = np.zeros_like(squared)
    for n, row in enumerate(squared):
        far = row[others[n]] - row[others[n]].min()
        low, high = -20.0, 20.0
        for _ in range(50):  # bisection on the logarithm of the precision
            middle = (low + high) / 2
            share = np.exp(-far * np.exp(middle))
            share /= share.sum()
            entropy = -(share * np.log(np.maximum(share, 1e-300))).sum()
            low, high = (middle, high) if entropy > np.log(PERPLEXITY) else (low, middle)
        result[n, others[n]] = share
    joint = result + result.T
    return np.maximum(joint / joint.sum(), 1e-12)


def _svg(charts: Mapping[str, Array], labels: Sequence[tuple[str, str]]) -> str:
    """Return the charts side by side, two a row; colour is the sequence, shape the plane."""
    parts = []
    for n, (name, points) in enumerate(charts.items()):
        left, top = (n % 2) * (SIDE + 20) + 10, (n // 2) * (SIDE + 40) + 30
        low, high = points.min(axis=0), points.max(axis=0)
        placed = (points - low) / np.maximum(high - low, 1e-9) * (SIDE - 20) + 10
        parts.append(f'<text x="{left + 4}" y="{top - 8}">{escape(name)}</text>')
        parts.append(f'<rect x="{left}" y="{top}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>')
        parts += [_mark(left + x, top + y, *label) for (x, y), label in zip(placed, labels, strict=True)]
    width, height = 2 * SIDE + 40, 2 * (SIDE + 40) + 40
    for n, (name, colour) in enumerate(COLOURS.items()):
        parts.append(f'<text x="{14 + 60 * n}" y="{height - 12}" fill="{colour}">{name}</text>')
    for n, plane in enumerate(SHAPES):
        parts.append(_mark(330 + 90 * n, height - 16, "CT", plane))
        parts.append(f'<text x="{340 + 90 * n}" y="{height - 12}">{plane}</text>')
    title = "t-SNE of slices and sentences of test scans: colour is the sequence, shape the plane"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="sans-serif" font-size="13"><title>{title}</title>'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _mark(x: float, y: float, sequence: str, plane: str) -> str:
    colour = f'fill="{COLOURS[sequence]}" fill-opacity="0.7"'
    if SHAPES[plane] == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" {colour}/>'
    if SHAPES[plane] == "square":
        return f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" {colour}/>'
    return f'<path d="M{x:.1f} {y - 4:.1f}l4 7h-8z" {colour}/>'
