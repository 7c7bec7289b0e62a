"""MedPrompt at equal weights: the library against a plain transcription of its Restormer blocks, in one run.

    python Testing/benchmarks/medprompt_inference.py [--threads N] [--rounds N] [--bf16] [--device NAME] [--json FILE]

Both sides get the same random weights of the ``paper`` preset (44.17 million parameters) and one slice of 256 x 256;
how they are measured is told in ``tlp_inference.py``.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import compare_slices, machine, measured, profile_of
from plain_medprompt import plain_forward, plain_names
from side import Side, serve
from torch import Tensor

from MedXlateCore.inference.slices import predict_slices
from MedXlateCore.models.medprompt import MedPrompt, MedPromptNetwork

SLICE = (256, 256)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=["plain", "ours"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        device = torch.device(options.device)
        serve({name: functools.partial(job, device) for name, job in JOBS.items()})
        return 0
    plain, ours = (
        Side(Path(__file__), name, options.threads, "--device", options.device) for name in ("plain", "ours")
    )
    report: dict[str, Any] = {"machine": ours.call("machine")}
    for precision in ("fp32", *(["bf16"] if options.bf16 else [])):
        report[f"per_slice_{precision}"] = compare_slices(plain, ours, options.rounds, SLICE, precision)
    report["profile"] = ours.call("profile")["operations"]
    report["largest_error_against_fp64"] = ours.call("errors")
    plain.close()
    ours.close()
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


def plain_slice(device: torch.device, size: tuple[int, int], out: str) -> dict[str, Any]:
    """Compute one slice with the plain transcription."""
    weights, image = _plain_weights(device), _input(*size).to(device)
    with torch.inference_mode():
        seconds, memory, result = measured(device, lambda: plain_forward(weights, image))
    np.save(out, result[:, 0].cpu().numpy())
    return {"seconds": seconds, "memory": memory}


def our_slice(device: torch.device, size: tuple[int, int], out: str, precision: str) -> dict[str, Any]:
    """Compute one slice with the library."""
    stack, network = _input(*size).swapaxes(0, 1).numpy(), _network().to(device)
    call = functools.partial(predict_slices, network, stack, device=device, precision=precision)
    seconds, memory, batch = measured(device, lambda: next(call()))
    np.save(out, batch.values)
    return {"seconds": seconds, "memory": memory}


def profile(device: torch.device) -> dict[str, Any]:
    """Return the operations that take the most time in one slice, with their share."""
    network, image = _network().to(device), _input(*SLICE).to(device)
    return {"operations": profile_of(device, lambda: network(image))}


def errors(device: torch.device) -> dict[str, Any]:
    """Return how far either side is from the plain forward in double precision, on a slice of 64 x 64."""
    weights, image = _plain_weights(device), _input(64, 64).to(device)
    with torch.inference_mode():
        truth = plain_forward({key: value.double() for key, value in weights.items()}, image.double())
        results = {"plain": plain_forward(weights, image), "ours": _network().to(device)(image)}
    return {name: float((result.double() - truth).abs().max()) for name, result in results.items()}


JOBS = {job.__name__: job for job in (machine, plain_slice, our_slice, profile, errors)}


@functools.cache
def _network() -> MedPromptNetwork:
    """Return the library's network with random weights; its output fills most of the range."""
    torch.manual_seed(0)
    network = MedPromptNetwork(MedPrompt.presets["paper"]).eval()
    with torch.inference_mode():
        raw = network.train()(_input(64, 64))
    network.eval().output.weight.data *= 0.5 * float((raw + 1).mean().sign() / raw.std())
    return network


@functools.cache
def _plain_weights(device: torch.device) -> dict[str, Tensor]:
    weights = {name: value.contiguous().to(device) for name, value in _network().state_dict().items()}
    _network.cache_clear()  # only one copy in memory
    return plain_names(weights)


def _input(height: int, width: int) -> Tensor:
    return torch.rand((1, 1, height, width), generator=torch.Generator().manual_seed(1)) * 2 - 1


if __name__ == "__main__":
    sys.exit(main())
