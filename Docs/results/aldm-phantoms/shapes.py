"""Train MS-SPADE in several ways for the same time on the latents of one autoencoder, and measure what each makes.

    python Docs/results/aldm-phantoms/shapes.py --work runs/aldm-phantoms

Needs the ALDM that ``run.py`` trains, for its autoencoder. One thread; seconds of optimiser steps, by the processor's
clock, the first encoding of the training volumes included. Figures are means over two validation heads, of the decoded
target-like latents. Writes ``shapes.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from run import HERE, head, measure, sources, truth, whole

from MedXlateCore.files import atomic_write_text
from MedXlateCore.models.aldm_net import AldmNetwork
from MedXlateCore.models.aldm_recipe import STAGES, AldmRecipe, AldmRecipeConfig
from MedXlateCore.models.method import Batch, TrainingState
from MedXlateCore.models.package import load_package
from MedXlateCore.models.registry import get_method, get_recipe_preset
from MedXlateCore.training.cache import PreparedCase
from MedXlateCore.training.config import load_config
from MedXlateCore.training.data import prepare_data

FLAT = {"spade_nested": False, "spade_doubt": False, "spade_stem": 32, "spade_size": 3, "spade_widths": (32, 32)}
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "published order of layers": (FLAT, {}),
    "the preset's": ({}, {}),
    "slabs to the end": ({}, {"whole_after": 1.0}),
    "without doubt": ({"spade_doubt": False}, {}),
    "narrower": ({"spade_widths": (16, 48, 96)}, {}),
}
HEADS = 2
KEPT = ("encoder", "decoder", "latent_mean", "latent_square", "latent_count")


def main() -> int:
    """Train in each way, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/aldm-phantoms"), help="folder with phantoms/ and aldm/")
    parser.add_argument("--seconds", type=float, default=150.0, help="of optimiser steps, for each way (default: 150)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = options.work / "phantoms" / "cases.csv"
    config = load_config(HERE / "aldm.toml", table=table)
    data = prepare_data(config, options.work / "aldm" / "cache")
    trained = load_package(options.work / "aldm" / "model").network
    names = [str(direction) for direction in config.directions]
    columns = [f"{name}: {what}" for name in names for what in ("PSNR (dB)", "neighbouring slices")]
    lines = [f"{options.seconds:.0f} seconds of one core each; {HEADS} validation heads.", ""]
    lines += [f"| way | steps | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for name, (shape, teaching) in WAYS.items():
        network, steps = taught(trained, shape, teaching, data.train, options.seconds)
        cells = [f"{value:.2f}" for number in range(len(names)) for value in judged(network, data.val, number)]
        lines.append(f"| {name} | {steps} | {' | '.join(cells)} |")
        sys.stdout.write(lines[-1] + "\n")
    atomic_write_text(options.out / "shapes.md", "\n".join([*lines, ""]))
    return 0


def taught(
    trained: AldmNetwork,
    shape: Mapping[str, Any],
    teaching: Mapping[str, Any],
    cases: list[PreparedCase],
    seconds: float,
) -> tuple[AldmNetwork, int]:
    """Return a network with the trained autoencoder and an MS-SPADE trained so long in this way, and its steps."""
    torch.manual_seed(0)
    recipe_config: AldmRecipeConfig = replace(get_recipe_preset(get_method("aldm"), "tiny"), **teaching)
    recipe = AldmRecipe(replace(trained.config, **shape), recipe_config)
    network, rng = recipe.networks()["generator"], torch.Generator().manual_seed(0)
    own = {key: value for key, value in trained.state_dict().items() if key.split(".")[0] in KEPT}
    network.load_state_dict(own, strict=False)
    optimisers = recipe.optimisers()
    rates = [group["lr"] for group in optimisers["generator"].param_groups]
    shares = [getattr(recipe_config, f"{stage}_share") for stage in STAGES]
    begin, length = shares[0] / sum(shares), shares[1] / sum(shares)
    state, started = TrainingState(recipe.networks(), optimisers, torch.Tensor.backward, rng, 0), time.process_time()
    while (done := (time.process_time() - started) / seconds) < 1:
        state.progress = begin + length * done
        for group, rate in zip(optimisers["generator"].param_groups, rates, strict=True):
            group["lr"] = rate * recipe.learning_rate_factor(state.progress)
        recipe.step(batch(cases[int(torch.randint(0, len(cases), (), generator=rng))]), state)
        state.step += 1
    return network.eval(), state.step


def batch(case: PreparedCase) -> Batch:
    """Return a case as a batch of one volume."""
    images = torch.from_numpy(np.stack((sources(case)[0], truth(case))))[:, None, None]
    nothing = torch.zeros_like(images[0]).expand(-1, 2, -1, -1, -1)
    return Batch(images[0], images[1], nothing, torch.ones_like(images[0]), case.direction)


def judged(network: AldmNetwork, cases: list[PreparedCase], direction: int) -> tuple[float, float]:
    """Return PSNR and neighbouring slices' difference of what MS-SPADE makes, means over the first heads."""
    own = [case for case in cases if case.direction == direction][:HEADS]
    made = [whole(lambda x: network.spade_only(x, direction), sources(case)) for case in own]
    figures = [measure(truth(case), volume, head(case)) for case, volume in zip(own, made, strict=True)]
    return float(np.mean([f["psnr"] for f in figures])), float(np.mean([f["jump"] for f in figures]))


if __name__ == "__main__":
    raise SystemExit(main())
