"""What an edit of the region costs in a session, against a full run with the same region.

    python Testing/benchmarks/session_edit.py [--threads N] [--slices N] [--edited N] [--json FILE]

TLP with random weights at the published size (base width 48, two sources) translates a head of 240 x 240 x 155. Then
the region changes in ten slices: the session's update is timed against a full run, and their results are compared bit
for bit. ``--slices`` makes the head of fewer, thicker slices, for a look at the script itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tlp_inference import machine, package

from MedXlateCore.phantom.head import build_subject, render_subject
from MedXlateCore.pipeline import TranslationSession, translate
from MedXlateCore.volume import Modality, Source, Volume

LENGTH_MM = 155.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--slices", type=int, default=155)
    parser.add_argument("--edited", type=int, default=10, help="slices that the edit touches")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = {"machine": machine(torch.device("cpu")), "session": measure(options.slices, options.edited)}
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0 if report["session"]["bit_equal"] else 1


def measure(slices: int, edited: int) -> dict[str, object]:
    """Time a first run, an edit and a full run with the edited region."""
    shape, spacing = (240, 240, slices), (1.0, 1.0, LENGTH_MM / slices)
    head = render_subject(build_subject(5, shape, spacing), ("T1", "T2"), brain_only=True)
    sources, model = list(head.values()), package()
    before, after = regions(sources[0], edited)
    session = TranslationSession(sources, model, device="cpu")
    first, earlier = timed(session, before)
    update, result = timed(session, after)
    stages = session.record.compute["seconds"]
    changed = session.changed_slices
    nothing, _ = timed(session, after)
    start = time.perf_counter()
    whole = translate(sources, model, roi=after, device="cpu")
    expected = whole.run()
    full = time.perf_counter() - start
    return {
        "occupied_slices": whole.record.compute["slices"], "changed_slices": changed, "first_s": round(first, 2),
        "full_s": round(full, 2), "update_s": round(update, 2), "update_of_full": round(update / full, 4),
        "update_without_change_s": round(nothing, 3), "update_stages_s": stages,
        "bit_equal": bool(np.array_equal(result.array, expected.array)),
        "largest_change": float(np.abs(result.array - earlier.array).max()),
    }  # fmt: skip


def regions(source: Volume, edited: int) -> tuple[Volume, Volume]:
    """Return a lesion's label map, and the same with ``edited`` slices in its middle drawn larger."""
    middle = source.geometry.shape[2] // 2
    drawn = np.zeros(source.geometry.shape, dtype=np.uint8)
    lesion = slice(max(0, middle - edited), middle + edited)
    drawn[90:120, 100:130, lesion] = 2
    drawn[98:112, 108:122, lesion] = 1
    first = middle - edited // 2
    redrawn = drawn.copy()
    part = redrawn[86:124, 96:134, first : first + edited]
    part[part == 0] = 2
    before, after = (Volume(a, source.geometry, Modality.LABEL, Source("region")) for a in (drawn, redrawn))
    return before, after


def timed(session: TranslationSession, roi: Volume) -> tuple[float, Volume]:
    """Update; return seconds and result."""
    start = time.perf_counter()
    result = session.update(roi).run()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    sys.exit(main())
