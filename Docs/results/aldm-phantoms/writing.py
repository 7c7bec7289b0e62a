"""Writes what run.py measured: CSV files and the tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from MedXlateCore.files import atomic_write_text, csv_text
from MedXlateCore.metrics.statistics import paired_test, summarise

__all__ = ["tables", "write_csv"]

COLUMNS = {"psnr": ("PSNR (dB)", 2), "ssim": ("SSIM", 3), "mae": ("MAE", 4), "jump": ("neighbouring slices", 3)}


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with all their keys as columns."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    atomic_write_text(path, csv_text(keys, ([row.get(key, "") for key in keys] for row in rows)))


def tables(
    rows: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]], methods: Sequence[str], minutes: float
) -> str:
    """Return the tables in Markdown: methods by direction, samplers by steps, and the rank of the errors."""
    text = [f"ALDM was trained for {minutes:.0f} minutes of optimiser steps, the U-Net for a third of that."]
    for direction in dict.fromkeys(row["direction"] for row in rows):
        own = [row for row in rows if row["direction"] == direction]
        text += ["", f"### {direction}", "", *_comparison(own, methods)]
    text += ["", "### Samplers and steps, first direction", ""]
    text += ["| sampler | steps | PSNR (dB) | seconds a volume |", "|---|---|---|---|"]
    text += [f"| {r['sampler']} | {r['steps']} | {r['psnr']:.2f} | {r['seconds']:.2f} |" for r in steps]
    ranks = [row["spearman"] for row in rows if "spearman" in row]
    correlation = f"{summarise(ranks).as_text(3)}, {len(ranks)} volumes"
    text += ["", "### Does the standard deviation know where the errors are?", ""]
    text += [f"Spearman's correlation with the absolute error inside the head: {correlation}.", ""]
    return "\n".join(text)


def _comparison(rows: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> list[str]:
    """Return one direction's table; p is Wilcoxon's, paired by head, of the PSNR against ALDM's, not corrected."""
    names = " | ".join(name for name, _ in COLUMNS.values())
    lines = [f"| method | {names} | p against ALDM |", "|---|" + "---|" * (len(COLUMNS) + 1)]
    ours = [row["psnr"] for row in rows if row["method"] == "ALDM"]
    for method in [name for name in methods if any(row["method"] == name for row in rows)]:
        found = [row for row in rows if row["method"] == method]
        cells = [summarise([row[key] for row in found]).as_text(digits) for key, (_, digits) in COLUMNS.items()]
        test = "" if method == "ALDM" else f"{paired_test([row['psnr'] for row in found], ours).p_value:.2g}"
        lines.append(f"| {method} | {' | '.join(cells)} | {test} |")
    return lines
