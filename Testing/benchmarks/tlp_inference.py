"""TLP at equal weights: the library against a plain transcription of the published forward, in one run.

    python Testing/benchmarks/tlp_inference.py [--threads N] [--slices N] [--volume] [--json FILE]

Both get the same random weights at the published size (base width 48, two sources). Rounds alternate between the
two, so that a disturbance of the machine meets both; the ratio of the medians is reported, with the largest
difference of the results. ``--volume`` also translates a whole 240 x 240 x 155 head with the default settings, and
compares its time with the plain forward's time for all slices, measured on ``--slices`` of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from plain_tlp import plain_forward
from torch import Tensor

from MedXlateCore.config import to_mapping
from MedXlateCore.inference.slices import predict_slices
from MedXlateCore.models.card import ModelCard
from MedXlateCore.models.importer import _tlp_name as our_name
from MedXlateCore.models.package import load_package, save_package
from MedXlateCore.models.tlp import Tlp, TlpConfig, TlpNetwork
from MedXlateCore.phantom.head import build_subject, render_subject
from MedXlateCore.pipeline import translate

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
HEIGHT, WIDTH = 192, 160


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=2, help="slices of the plain forward at 240 x 240")
    parser.add_argument("--volume", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weights = published_weights()
    network = ours(weights)
    report = {"machine": machine(options.threads), "per_slice": per_slice(weights, network, options.rounds)}
    if options.volume:
        report["volume"] = volume(weights, network, options.slices)
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


def machine(threads: int) -> dict[str, object]:
    """Say on what the figures were measured, with the machine's own convolution peak."""
    convolution = torch.nn.Conv2d(96, 96, 3, padding=1, bias=False)
    image = torch.randn(1, 96, HEIGHT, WIDTH)
    with torch.inference_mode():
        seconds = statistics.median(timed(lambda: convolution(image))[0] for _ in range(7))
    gflops = 2 * 96 * 96 * 9 * HEIGHT * WIDTH / seconds / 1e9
    return {
        "processor": platform.processor() or platform.machine(), "threads": threads, "torch": torch.__version__,
        "python": platform.python_version(), "convolution_96_3x3_gflops": round(gflops, 1),
    }  # fmt: skip


def published_weights() -> dict[str, Tensor]:
    """Return random weights under the published keys, in the published shapes."""
    generator = torch.Generator().manual_seed(0)
    shapes = json.loads((GOLDEN / "tlp_two_input_state_dict.json").read_text(encoding="utf-8"))
    weights = {key: torch.randn(shape, generator=generator) * 0.05 for key, shape in shapes.items()}
    for key in weights:
        if (".norm" in key and key.endswith("weight")) or key.endswith("temperature"):
            weights[key] = torch.ones_like(weights[key])
    return weights


def ours(weights: dict[str, Tensor]) -> TlpNetwork:
    """Return the library's network with these weights."""
    network = Tlp().build(TlpConfig())
    network.load_state_dict({our_name(key): value for key, value in weights.items()})
    return network.eval()


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Return seconds and result of a call."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def per_slice(weights: dict[str, Tensor], network: TlpNetwork, rounds: int) -> dict[str, float]:
    """Compare one slice of 192 x 160 in fp32, and in bf16 for the library."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand((1, 2, HEIGHT, WIDTH), generator=generator) * 2 - 1
    roi = torch.zeros(1, 1, HEIGHT, WIDTH)
    roi[..., 60:100, 60:90] = 0.5
    stack, prompt = images.swapaxes(0, 1).numpy(), roi[:, 0].numpy()
    calls = {
        "plain": lambda: plain_forward(weights, images, roi),
        "fp32": lambda: torch.from_numpy(next(predict_slices(network, stack, prompt)).values),
        "bf16": lambda: torch.from_numpy(next(predict_slices(network, stack, prompt, precision="bf16")).values),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    results = {}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, call in calls.items():
                elapsed, results[name] = timed(call)
                seconds[name].append(elapsed)
    median = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    truth = results["plain"][:, 0]
    return {
        **{f"{name}_s": round(value, 4) for name, value in median.items()},
        "fp32_speedup": round(median["plain"] / median["fp32"], 2),
        "bf16_speedup": round(median["plain"] / median["bf16"], 2),
        "fp32_max_difference": float((results["fp32"] - truth).abs().max()),
        "bf16_max_difference": float((results["bf16"] - truth).abs().max()),
    }


def volume(weights: dict[str, Tensor], network: TlpNetwork, slices: int) -> dict[str, float]:
    """Compare a whole head; the plain forward computes all 155 slices of 240 x 240."""
    head = render_subject(build_subject(5, (240, 240, 155), (1.0, 1.0, 1.0)), ("T1", "T2"), brain_only=True)
    images = torch.rand(1, 2, 240, 240) * 2 - 1
    with torch.inference_mode():
        one = statistics.median(
            timed(lambda: plain_forward(weights, images, torch.zeros(1, 1, 240, 240)))[0] for _ in range(slices)
        )
    model = package(network)
    start = time.perf_counter()
    result = translate(list(head.values()), model, device="cpu").run()
    elapsed = time.perf_counter() - start
    finite = bool(np.isfinite(result.array).all())
    return {
        "plain_s": round(one * 155, 1), "plain_slices_measured": slices, "ours_s": round(elapsed, 1),
        "speedup": round(one * 155 / elapsed, 2), "finite": finite,
    }  # fmt: skip


def package(network: TlpNetwork):  # type: ignore[no-untyped-def]
    """Return the network as a loaded package with default settings."""
    import tempfile

    normaliser = {"kind": "minmax"}
    card = ModelCard(
        name="benchmark", version="0", method="tlp", config=to_mapping(network.config), sources=("T1", "T2"),
        targets=("T1ce",), prompts="region", grid={"size_multiple": [4, 4, 1]},
        normalisers={"T1": normaliser, "T2": normaliser},
        output={"T1ce": {"kind": "relative", "low": 0.0, "high": 1.0}},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        save_package(Path(folder) / "model", card, network)
        return load_package(Path(folder) / "model")


if __name__ == "__main__":
    sys.exit(main())
