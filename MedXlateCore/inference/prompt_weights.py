"""Which prompt components a network takes for which direction: how a network for many directions tells them apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import torch
from numpy.typing import NDArray

from MedXlateCore.errors import UsageError
from MedXlateCore.files import csv_text
from MedXlateCore.inference.inputs import accept_sources
from MedXlateCore.models.package import LoadedModel
from MedXlateCore.volume import Modality, Volume

__all__ = ["PromptWeights", "prompt_weights", "weights_csv", "weights_svg"]

_CELL, _ROW, _LEFT, _TOP = 44, 30, 190, 62


@dataclass(frozen=True, eq=False)
class PromptWeights:
    """Weights of the prompt components over the slices of some cases.

    Attributes:
        direction: such as ``T1->T2``.
        values: [slices, prompt blocks (deepest first), components]; components sum to 1.
    """

    direction: str
    values: NDArray[np.float32]


def prompt_weights(model: LoadedModel, cases: Iterable[Mapping[str, Volume]]) -> list[PromptWeights]:
    """Look at the gates of a model's prompt blocks, for every direction that a case has the sources of.

    Args:
        model: a loaded package of a method with prompt components.
        cases: volumes by modality name.

    Returns:
        One entry for each direction that was seen, in the card's order.

    Raises:
        UsageError: ``MX-MOD-094``, the model's network has no prompt components.
        InputError: from checking or preparing a volume.
    """
    look = getattr(model.network, "prompt_weights", None)
    if look is None:
        raise UsageError(
            "MX-MOD-094",
            f"the model '{model.card.name}' ({model.card.method}) has no prompt components",
            expected="a model of a method with prompt blocks, such as medprompt",
            where="model",
            fix="choose another model (medxlate models list)",
        )
    directions = model.card.directions_listed()
    seen: dict[int, list[NDArray[np.float32]]] = {n: [] for n in range(len(directions))}
    for case in cases:
        for number, direction in enumerate(directions):
            if not set(direction.sources) <= set(case):
                continue
            sources = [case[name] for name in direction.sources]
            prepared = accept_sources(sources, model.card, Modality.parse(direction.target), None).prepared
            for k in prepared.occupied_slices:
                image = torch.from_numpy(prepared.images[:, k].copy())[None]
                seen[number].append(look(image, number)[0].numpy())
    return [PromptWeights(str(directions[n]), np.stack(values)) for n, values in seen.items() if values]


def weights_csv(found: Sequence[PromptWeights]) -> str:
    """Return a table: direction, block, component, mean and standard deviation over slices, number of slices."""
    rows = []
    for entry in found:
        means, spreads = entry.values.mean(axis=0), entry.values.std(axis=0)
        for block, component in np.ndindex(means.shape):
            row = [entry.direction, block + 1, component + 1, f"{means[block, component]:.6f}"]
            rows.append([*row, f"{spreads[block, component]:.6f}", len(entry.values)])
    return csv_text(["direction", "block", "component", "mean", "std", "slices"], rows)


def weights_svg(found: Sequence[PromptWeights], title: str) -> str:
    """Return a picture: a row for each direction, a cell for each block's component, darker where more is taken."""
    blocks, components = found[0].values.shape[1:]
    width = _LEFT + blocks * (components * _CELL + 16)
    height = _TOP + len(found) * _ROW + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        _text(12, 20, title, 15, "start"),
    ]
    for block in range(blocks):
        left = _LEFT + block * (components * _CELL + 16)
        depth = " (deepest)" if block == 0 else ""
        parts.append(_text(left + components * _CELL / 2, 40, f"prompt block {block + 1}{depth}", 13))
        for component in range(components):
            parts.append(_text(left + (component + 0.5) * _CELL, 56, str(component + 1), 11))
    for row, entry in enumerate(found):
        top, means = _TOP + row * _ROW, entry.values.mean(axis=0)
        parts.append(_text(_LEFT - 10, top + 20, entry.direction, 13, "end"))
        for block, component in np.ndindex(blocks, components):
            value = float(means[block, component])
            left = _LEFT + block * (components * _CELL + 16) + component * _CELL
            shade = round(255 * (1 - min(1.0, value)))
            fill = f"rgb({shade},{(shade + 255) // 2},255)"
            parts.append(f'<rect x="{left}" y="{top}" width="{_CELL - 2}" height="{_ROW - 2}" fill="{fill}"/>')
            parts.append(_text(left + _CELL / 2 - 1, top + 19, f"{value:.2f}", 11))
    note = "mean share of each prompt component over all slices that show anything; the shares of a block sum to 1"
    parts.append(_text(12, height - 12, note, 11, "start"))
    return "".join([*parts, "</svg>\n"])


def _text(x: float, y: float, text: str, size: int, anchor: str = "middle") -> str:
    return f'<text x="{x:.0f}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="#222">{escape(text)}</text>'
