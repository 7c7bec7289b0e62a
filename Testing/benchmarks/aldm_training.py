"""One training of ALDM at the size of its authors' code, on phantoms and an NVIDIA card, for a given time.

    python Testing/benchmarks/aldm_training.py --minutes 25 --work runs/aldm-gpu

Makes 64 phantom heads of 144 x 176 x 96 voxels if they are not there, trains the preset ``code`` (and U-Nets, with as
much time in all), and writes the tables of ``Docs/results/aldm-phantoms`` into ``WORK/results``: what the autoencoder
can at best, MS-SPADE alone, ALDM, samplers and steps, and whether the standard deviation knows where errors are.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

STUDY = Path(__file__).resolve().parents[2] / "Docs" / "results" / "aldm-phantoms" / "run.py"
SHADING = " ".join(f"--acquisition {name}:bias=0" for name in ("T1", "T2", "FLAIR"))  # none, as in the study
PHANTOMS = f"--cases 64 --seed 3000 --size 144 176 96 --modalities T1,T2,FLAIR {SHADING} --splits 48,4,12"


def main() -> int:
    """Make phantoms, train, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=25.0, help="of ALDM's optimiser steps (default: 25)")
    parser.add_argument("--work", type=Path, default=Path("runs/aldm-gpu"), help="folder for phantoms and runs")
    parser.add_argument("--preset", default="code", help="of ALDM (default: code)")
    parser.add_argument("--device", default="cuda", help="accelerator of the trainings (default: cuda)")
    parser.add_argument("--jobs", type=int, default=8, help="processes that make phantoms (default: 8)")
    options = parser.parse_args()
    phantoms, results = options.work / "phantoms", options.work / "results"
    if not (phantoms / "cases.csv").exists():
        words = ["phantom", "--out", str(phantoms), *PHANTOMS.split(), "--jobs", str(options.jobs), "--overwrite"]
        subprocess.run([sys.executable, "-m", "MedXlateCore", *words], check=True)
    results.mkdir(parents=True, exist_ok=True)
    settings = {
        "model.preset": options.preset,
        "grid.crop.size": '[144, 176, "none"]',
        "training.minutes": options.minutes,
        "training.batch_size": 1,
        "training.accelerator": options.device,
        "training.precision": "bf16-mixed" if options.device.startswith("cuda") else "32-true",
        "recipe.autoencoder_rate": 2e-4,
        "recipe.spade_rate": 2e-4,
        "recipe.diffusion_rate": 1e-4,
    }
    changed = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    line = [sys.executable, str(STUDY), "--work", str(options.work), "--out", str(results), "--samples", "8", *changed]
    return subprocess.run(line, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
