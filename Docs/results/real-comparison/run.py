"""Compare tiny networks on real patients: CT from MR T1 and MR T1 from CT, trainings of equal length.

    python Docs/results/real-comparison/run.py --data ../shared/data --work runs/real-comparison

The data folder holds ``cases.csv`` (group, case, split, modality columns, seg; paths relative to it), of which the
group ``limb-sarcoma`` is used, with its split by patient: the soft-tissue sarcoma collection of Vallieres et al. 2015
(doi 10.7937/K9/TCIA.2015.7GO2GSKS, CC BY 3.0). T1 and CT lie on different grids; the CT, which shows more, is cut to
the T1's field of view on its own voxels (nothing is interpolated), so that both directions are about the same tissue.

An interrupted comparison goes on with the same command. Writes ``results.csv``, ``summary.csv``, ``report.md`` and its
pictures beside this file; ``report.html``, runs and models stay in the work folder.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from MedXlateCore.io import read_volume, write_volume
from MedXlateCore.volume import Geometry, Volume

HERE = Path(__file__).resolve().parent
GROUP = "limb-sarcoma"
RESULTS = ("results.csv", "summary.csv", "report.md", "panel-*.png")


def main() -> int:
    """Make the table of cases, run the experiment, copy its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with cases.csv")
    parser.add_argument("--work", type=Path, default=Path("runs/real-comparison"), help="folder for runs")
    parser.add_argument("--steps", type=int, default=400, help="of every training (default: 400)")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: one a GPU; on a CPU one)")
    parser.add_argument("--keep", action="store_true", help="leave the results in the work folder")
    options = parser.parse_args()
    table = make_table(options.data, options.work)
    out = options.work / "results"
    jobs = ["--jobs", str(options.jobs)] if options.jobs else []
    line = ["experiment", HERE / "experiment.toml", "--data", table, "--out", out]
    line += ["--set", f"budget.steps={options.steps}", *jobs]
    code = subprocess.run([sys.executable, "-m", "MedXlateCore", *map(str, line)], check=False).returncode
    if not options.keep:
        for path in (path for pattern in RESULTS for path in sorted(out.glob(pattern))):
            shutil.copyfile(path, HERE / path.name)
    return code


def make_table(data: Path, work: Path) -> Path:
    """Write the table of the group's patients, with their CT cut to the T1's field of view; return its path."""
    with (data / "cases.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["group"] == GROUP]
    table = work / "cases.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ("case", "split", "T1", "CT", "seg"))
        writer.writeheader()
        for row in rows:
            computed_tomography = (work / "ct" / f"{row['case']}.nii.gz").resolve()
            if not computed_tomography.exists():
                t1 = read_volume(data / row["T1"], "T1")
                write_volume(cut(read_volume(data / row["CT"], "CT"), t1.geometry), computed_tomography)
            facts = {"case": row["case"], "split": row["split"], "CT": computed_tomography}
            writer.writerow(facts | {name: (data / row[name]).resolve() for name in ("T1", "seg")})
    return table


def cut(volume: Volume, view: Geometry) -> Volume:
    """Return the part of a volume, on its own voxels, that just holds another grid."""
    corners = np.column_stack([view.corners_ras(), np.ones(8)])
    index = (corners @ np.linalg.inv(volume.geometry.affine_ras).T)[:, :3]
    first = np.maximum(np.floor(index.min(axis=0) + 1e-3), 0).astype(int)
    stop = np.minimum(np.ceil(index.max(axis=0) - 1e-3) + 1, volume.geometry.shape).astype(int)
    affine = volume.geometry.affine_ras.copy()
    affine[:3, 3] = (affine @ np.append(first, 1.0))[:3]
    i, j, k = (slice(a, b) for a, b in zip(first, stop, strict=True))
    array = np.ascontiguousarray(volume.array[i, j, k])
    return Volume(array, Geometry(array.shape, affine), volume.modality, volume.source)


if __name__ == "__main__":
    raise SystemExit(main())
