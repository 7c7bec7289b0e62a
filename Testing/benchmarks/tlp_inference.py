"""TLP at equal weights: the library against a plain transcription of the published forward, in one run.

    python Testing/benchmarks/tlp_inference.py [--threads N] [--rounds N] [--volume] [--bf16] [--profile]
        [--device cpu|cuda] [--json FILE]

Both sides get the same random weights at the published size (base width 48, two sources) and run in processes of their
own, warm, in turns, so that a disturbance of the machine meets both. Reported are the medians, the median of the
rounds' ratios, the largest difference of the results, and how far each process's memory rose during the call.
``--volume`` also translates a whole 240 x 240 x 155 head with the default settings, and compares its time with the
plain forward's for all slices of 240 x 240, measured on ``--slices`` of them (its time does not depend on content).
``--bf16`` measures half precision too, where the processor has instructions for it. ``--device cuda`` measures on a
GPU; memory is then the GPU's.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import MIB, compare_slices, machine, measured, profile_of
from plain_tlp import plain_forward
from side import Side, serve
from torch import Tensor

from MedXlateCore.config import to_mapping
from MedXlateCore.inference.slices import predict_slices
from MedXlateCore.models.card import ModelCard
from MedXlateCore.models.importer import _tlp_name as our_name
from MedXlateCore.models.package import LoadedModel, load_package, save_package
from MedXlateCore.models.tlp import Tlp, TlpConfig, TlpNetwork
from MedXlateCore.phantom.head import build_subject, render_subject
from MedXlateCore.pipeline import translate

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SLICE, WHOLE, DEPTH = (192, 160), (240, 240), 155


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slices", type=int, default=6, help="slices of the plain forward at 240 x 240")
    parser.add_argument("--volume", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=["plain", "ours"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        device = torch.device(options.device)
        serve({name: functools.partial(job, device) for name, job in JOBS.items()})
        return 0
    script = Path(__file__)
    plain, ours = (Side(script, name, options.threads, "--device", options.device) for name in ("plain", "ours"))
    report: dict[str, Any] = {"machine": ours.call("machine")}
    report["per_slice_fp32"] = compare_slices(plain, ours, options.rounds, SLICE, "fp32")
    if options.bf16:
        report["per_slice_bf16"] = compare_slices(plain, ours, options.rounds, SLICE, "bf16")
    if options.volume:
        report["volume"] = compare_volume(plain, ours, options.slices)
    if options.profile:
        report["profile"] = ours.call("profile")["operations"]
    report["largest_error_against_fp64"] = ours.call("errors")
    plain.close()
    ours.close()
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


def compare_volume(plain: Side, ours: Side, slices: int) -> dict[str, float]:
    """Compare a whole head; half of the plain slices are measured before it and half after."""
    half = max(1, slices // 2)
    measured = [plain.call("plain_slice", size=WHOLE) for _ in range(half + 1)][1:]
    whole = ours.call("our_volume")
    measured += [plain.call("plain_slice", size=WHOLE) for _ in range(half)]
    seconds = statistics.median(m["seconds"] for m in measured) * DEPTH
    return {
        "plain_s": round(seconds, 1), "plain_slices_measured": len(measured), "ours_s": round(whole["seconds"], 1),
        "speedup": round(seconds / whole["seconds"], 2), "slices_predicted": whole["slices"],
        "predicted_grid": whole["grid"], "settings": whole["settings"], "seconds_by_stage": whole["stages"],
        "plain_slice_memory_mib": max(m["memory"] for m in measured) / MIB, "ours_memory_mib": whole["memory"] / MIB,
    }  # fmt: skip


# ---- jobs of the sides ------------------------------------------------------------------------------------------


def plain_slice(device: torch.device, size: tuple[int, int], out: str | None = None) -> dict[str, Any]:
    """Compute one slice with the plain transcription."""
    weights = _weights(device)
    images, roi = (tensor.to(device) for tensor in _inputs(*size))
    with torch.inference_mode():
        seconds, memory, result = measured(device, lambda: plain_forward(weights, images, roi))
    if out:
        np.save(out, result[:, 0].cpu().numpy())
    return {"seconds": seconds, "memory": memory}


def our_slice(
    device: torch.device, size: tuple[int, int], out: str | None = None, precision: str = "fp32"
) -> dict[str, Any]:
    """Compute one slice with the library."""
    images, roi = _inputs(*size)
    stack, prompt, network = images.swapaxes(0, 1).numpy(), roi[:, 0].numpy(), _network().to(device)
    call = functools.partial(predict_slices, network, stack, prompt, device=device, precision=precision)
    seconds, memory, batch = measured(device, lambda: next(call()))
    if out:
        np.save(out, batch.values)
    return {"seconds": seconds, "memory": memory}


def our_volume(device: torch.device) -> dict[str, Any]:
    """Translate a whole head with the library's default settings."""
    head = render_subject(build_subject(5, (*WHOLE, DEPTH), (1.0, 1.0, 1.0)), ("T1", "T2"), brain_only=True)
    run = translate(list(head.values()), package(), device=str(device))
    seconds, memory, result = measured(device, run.run)
    if not np.isfinite(result.array).all() or result.geometry.shape != (*WHOLE, DEPTH):
        raise RuntimeError("the result is not a finite volume on the source's grid")
    compute = run.record.compute
    return {
        "seconds": seconds, "memory": memory, "slices": compute["slices"], "stages": compute["seconds"],
        "grid": run.record.grid["grid"], "settings": {key: compute[key] for key in ("precision", "batch_size")},
    }  # fmt: skip


def profile(device: torch.device) -> dict[str, Any]:
    """Return the operations that take the most time in one slice, with their share."""
    images, roi = (tensor.to(device) for tensor in _inputs(*SLICE))
    network = _network().to(device)
    return {"operations": profile_of(device, lambda: network(images, roi))}


def errors(device: torch.device) -> dict[str, Any]:
    """Return how far either side is from the plain forward in double precision, on a slice of 96 x 80."""
    weights = _weights(device)
    images, roi = (tensor.to(device) for tensor in _inputs(96, 80))
    with torch.inference_mode():
        truth = plain_forward({key: value.double() for key, value in weights.items()}, images.double(), roi.double())
        results = {"plain": plain_forward(weights, images, roi), "ours": _network().to(device)(images, roi)}
    return {name: float((result.double() - truth).abs().max()) for name, result in results.items()}


JOBS = {job.__name__: job for job in (machine, plain_slice, our_slice, our_volume, profile, errors)}


@functools.cache
def _weights(device: torch.device) -> dict[str, Tensor]:
    """Return random weights under the published keys, in the published shapes."""
    generator = torch.Generator().manual_seed(0)
    shapes = json.loads((GOLDEN / "tlp_two_input_state_dict.json").read_text(encoding="utf-8"))
    weights = {key: torch.randn(shape, generator=generator) * 0.05 for key, shape in shapes.items()}
    for key in weights:
        if (".norm" in key and key.endswith("weight")) or key.endswith("temperature"):
            weights[key] = torch.ones_like(weights[key])
    return {key: value.to(device) for key, value in weights.items()}


@functools.cache
def _network() -> TlpNetwork:
    """Return the library's network with these weights."""
    network = Tlp().build(TlpConfig())
    network.load_state_dict({our_name(key): value for key, value in _weights(torch.device("cpu")).items()})
    _weights.cache_clear()  # only one copy in memory, as on the other side
    return network.eval()


@functools.cache
def package() -> LoadedModel:
    """Return the published-size network as a loaded package with default settings."""
    network, normaliser = _network(), {"kind": "minmax"}
    card = ModelCard(
        name="benchmark", version="0", method="tlp", config=to_mapping(network.config), sources=("T1", "T2"),
        targets=("T1ce",), prompts="region", grid={"size_multiple": [4, 4, 1]},
        normalisers={"T1": normaliser, "T2": normaliser},
        output={"T1ce": {"kind": "relative", "low": 0.0, "high": 1.0}},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        save_package(Path(folder) / "model", card, network)
        return load_package(Path(folder) / "model")


def _inputs(height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand((1, 2, height, width), generator=generator) * 2 - 1
    roi = torch.zeros(1, 1, height, width)
    roi[..., 60:100, 60:90] = 0.5
    return images, roi


if __name__ == "__main__":
    sys.exit(main())
