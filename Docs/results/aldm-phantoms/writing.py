"""Writes what run.py measured: CSV files and the tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from MedXlateCore.files import atomic_write_text, csv_text
from MedXlateCore.metrics.statistics import paired_test, summarise

__all__ = ["tables", "write_csv"]

SPADE, FLAT = "MS-SPADE alone", "U-Net 2D"
RANKS = """Spearman's correlation with the absolute error inside the head. Deviation: its root mean square relative to
that of the errors."""
LIMITS = "Share of the acquired target's lesion voxels at the upper end of its range, beyond which values are cut."
COLUMNS = {"psnr": ("PSNR (dB)", 2), "ssim": ("SSIM", 3), "mae": ("MAE", 4), "jump": ("neighbouring slices", 3)}


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with all their keys as columns."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    atomic_write_text(path, csv_text(keys, ([row.get(key, "") for key in keys] for row in rows)))


def tables(
    rows: Sequence[Mapping[str, Any]],
    steps: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    minutes: float,
    unet: float,
) -> str:
    """Return the tables in Markdown: methods by direction, samplers by steps, and the rank of the errors.

    ``minutes`` and ``unet`` are how long ALDM and the U-Net were trained.
    """
    text = [f"ALDM was trained for {minutes:.0f} minutes of optimiser steps, the U-Net for {unet:.0f}."]
    for direction in dict.fromkeys(row["direction"] for row in rows):
        own = [row for row in rows if row["direction"] == direction]
        text += ["", f"### {direction}", "", *_comparison(own, methods)]
    text += ["", "### Samplers and steps, first direction, validation heads", ""]
    text += ["| sampler | steps | PSNR (dB) | neighbouring slices | seconds a volume |", "|---|---|---|---|---|"]
    for row in steps:
        figures = f"{row['psnr']:.2f} | {row['jump']:.3f} | {row['seconds']:.2f}"
        text.append(f"| {row['sampler']} | {row['steps']} | {figures} |")
    text += ["", "### Does the standard deviation know where the errors are?", ""]
    text += [RANKS, ""]
    text += ["| direction | method | correlation | deviation | volumes |", "|---|---|---|---|---|"]
    ranked = [row for row in rows if "spearman" in row]
    for direction in (*dict.fromkeys(row["direction"] for row in ranked), "all"):
        for method in dict.fromkeys(row["method"] for row in ranked):
            own = [row for row in ranked if direction in ("all", row["direction"]) and row["method"] == method]
            figures = [summarise([row[key] for row in own]).as_text(3) for key in ("spearman", "spread")]
            text.append(f"| {direction} | {method} | {' | '.join(figures)} | {len(own)} |")
    text += ["", "### Lesions at the end of the range", "", LIMITS, ""]
    text += ["| direction | share | volumes |", "|---|---|---|"]
    for direction in dict.fromkeys(row["direction"] for row in rows):
        shares = [row["cut"] for row in rows if row["direction"] == direction and "cut" in row]
        text.append(f"| {direction} | {summarise(shares).as_text(3)} | {len(shares)} |")
    return "\n".join([*text, ""])


def _comparison(rows: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> list[str]:
    """Return one direction's table; each p is Wilcoxon's, paired by head, not corrected.

    Of neighbouring slices it is about how far they are from the truth's.
    """
    tests = [("psnr", "ALDM"), ("psnr", SPADE), ("ssim", SPADE)]
    tests += [("jump", FLAT)] if any(row["method"] == FLAT for row in rows) else []
    names = [name for name, _ in COLUMNS.values()] + [f"p, {COLUMNS[key][0]} against {rival}" for key, rival in tests]
    lines = [f"| method | {' | '.join(names)} |", "|---|" + "---|" * len(names)]

    def values(method: str, key: str) -> list[float]:
        """Return a method's figures, head by head."""
        return [row[key] for row in rows if row["method"] == method]

    def tested(method: str, key: str) -> list[float]:
        """Return what is compared: of neighbouring slices, how far they are from the truth's 1."""
        return [abs(1 - value) if key == "jump" else value for value in values(method, key)]

    for method in [name for name in methods if values(name, "psnr")]:
        cells = [summarise(values(method, key)).as_text(digits) for key, (_, digits) in COLUMNS.items()]
        for key, rival in tests:
            same = method == rival
            cells.append("" if same else f"{paired_test(tested(method, key), tested(rival, key)).p_value:.2g}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines
