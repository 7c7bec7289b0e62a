"""The estimate of memory against what the operating system measures, and what becomes of it where memory is short."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sample import sampled
from torch import nn

from MedXlateCore.inference.memory import estimate_memory, estimate_model_memory
from MedXlateCore.models.registry import get_method, list_methods

HERE = Path(__file__).resolve().parent
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="measures through /proc")

# The C library's heap keeps what is freed in pieces too small to reuse: a third on top of the estimate for most
# methods, up to as much again for SynDiff's chain of passes, and how much differs from run to run. Memory that is given
# back at once shows what the network itself needs. Of StarGAN v2 that is 0.63 of the estimate, which counts copies of
# its wide maps that are not made there; it is measured with the heap as it is.
HEAP = {"MALLOC_MMAP_THRESHOLD_": "65536"}
AS_IT_IS = {"stargan_v2"}

MEASURE = """
import sys, torch
from MedXlateCore.models.registry import get_method
method, preset, batch, *size = get_method(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
config = method.presets[preset]
network = method.build(config).eval()
channels = method.n_sources(config) * method.context_slices(config)
images, roi = torch.zeros(batch, channels, *size), torch.zeros(batch, 1, *size)
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
with torch.inference_mode():
    network(images[..., :32, :32].contiguous(), roi[..., :32, :32].contiguous())  # libraries are loaded now
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    network(images, roi)
weights = sum(p.numel() * p.element_size() for p in network.parameters())
print(status("VmHWM") - before + weights)
"""


def child(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", **environment}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=settings, check=False)


@linux_only
@pytest.mark.parametrize("name", sampled(list_methods()))
@pytest.mark.parametrize("batch", [1, 3])
def test_the_estimate_is_within_a_factor_of_what_is_measured(name, batch):
    method = get_method(name)
    if method.volumetric and batch > 1:
        pytest.skip("volumes are translated one at a time")
    config, depth, plane = method.presets["tiny"], 32 if method.volumetric else None, 96 if method.volumetric else 192
    heap = {} if name in AS_IT_IS else HEAP
    done = child("-c", MEASURE, name, "tiny", str(batch), *([str(depth)] if depth else []), *[str(plane)] * 2, **heap)
    assert done.returncode == 0, done.stderr
    channels = method.n_sources(config) * method.context_slices(config)
    estimate = estimate_memory(method.build(config), channels, plane, plane, batch, depth=depth)
    assert 1 / 1.5 < int(done.stdout) / estimate < 1.5


@pytest.mark.parametrize("name", sampled(list_methods()))
def test_every_registered_model_has_an_estimate_that_grows_with_the_work(name):
    method = get_method(name)
    network = method.build(method.presets["tiny"])
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    sources = method.n_sources(method.presets["tiny"]) * method.context_slices(method.presets["tiny"])
    depth = 16 if method.volumetric else None
    shapes = ((64, 64, 1), (128, 64, 1), (128, 128, 1), (128, 128, 8))
    sizes = [estimate_memory(network, sources, *shape, depth=depth) for shape in shapes]
    assert weights < sizes[0] < sizes[1] < sizes[2] < sizes[3]
    assert estimate_memory(network, sources, 64, 64, 1, "bf16", depth=depth) >= sizes[0]
    if method.volumetric:
        assert estimate_memory(network, sources, 64, 64, 1, depth=32) > sizes[0]
    assert {p.device.type for p in network.parameters()} == {"cpu"}


def test_an_estimate_neither_computes_nor_changes_anything():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.passes = 0
            self.convolution = nn.Conv2d(2, 4, 3)
            self.register_buffer("table", torch.ones(5))

        def forward(self, images, roi):
            self.passes += 1
            return self.convolution(images)

    network = Counting()
    before = copy.deepcopy(network.state_dict())
    assert estimate_memory(network, 2, 32, 32) > 4 * 32 * 32 * 4
    assert network.passes == 0
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_attention_is_not_taken_for_a_matrix_of_all_pixels():
    class Attention(nn.Module):
        def forward(self, images, roi):
            tokens = images.flatten(2).transpose(1, 2).unsqueeze(1)
            return nn.functional.scaled_dot_product_attention(tokens, key=tokens, value=tokens)

    assert estimate_memory(Attention(), 1, 128, 128) < 16 * 4 * 128 * 128


def test_a_network_that_cannot_be_followed_has_no_estimate(tiny_model):
    import dataclasses

    class Unfollowed:
        name, volumetric = "unfollowed", False

        def build(self, config):
            network = nn.Module()
            network.forward = lambda images, roi: images * images.max().item()
            return network

        def n_sources(self, config):
            return 1

        def context_slices(self, config):
            return 1

    model = dataclasses.replace(tiny_model, method=Unfollowed())
    assert estimate_model_memory(model, 64, 64) is None
    assert estimate_model_memory(tiny_model, 64, 64) > 10_000


# --- a real lack of memory -----------------------------------------------------------------------------------------

SHORT = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import numpy as np
from tiny import make_tiny_network
from MedXlateCore.errors import MedXlateError, Warned
from MedXlateCore.inference import ladder
from MedXlateCore.models.package import load_package
from MedXlateCore.pipeline import Started, translate
from MedXlateCore.volume import Geometry, Volume, Modality
model, batch, room, blind = load_package(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]) << 20, sys.argv[6] == "blind"
geometry = Geometry((128, 128, 4), np.diag([-1.0, -1.0, 2.0, 1.0]))
rng = np.random.default_rng(0)
arrays = [np.pad(rng.uniform(100, 900, (120, 120, 4)).astype(np.float32), ((4, 4), (4, 4), (0, 0))) for _ in "12"]
sources = [Volume(a, geometry, m) for a, m in zip(arrays, (Modality.T1, Modality.T2))]
if blind:
    ladder.available_memory = lambda device: None
def limit(room):
    taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + room, resource.RLIM_INFINITY))
translation = translate(sources, model, device="cpu", batch_size=batch)
warm = translate([s.with_array(s.array) for s in sources], model, device="cpu")
for event in warm:  # libraries and threads are there now
    if type(event).__name__ == "Progress":
        break
warm.cancel()
if not blind:
    limit(room)
try:
    for event in translation:
        if isinstance(event, Started) and blind:
            limit(room)
        print(type(event).__name__, getattr(event, "code", ""))
    print("batch", translation.record.compute["batch_size"])
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    same = translate(sources, model, device="cpu", batch_size=translation.record.compute["batch_size"]).run()
    print("equal", np.array_equal(same.array, translation.result.array))
except MedXlateError as error:
    print(error.code)
"""


def translated_in(room_mib: int, batch: int, package: Path, how: str) -> list[str]:
    done = child("-c", SHORT, str(HERE), str(HERE.parents[1]), str(package), str(batch), str(room_mib), how)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@linux_only
def test_a_cpu_that_runs_out_of_memory_ends_with_a_code(tiny_package):
    assert translated_in(2, 1, tiny_package, "blind")[-1] == "MX-RES-001"


@linux_only
def test_a_cpu_that_runs_out_of_memory_goes_on_with_smaller_batches(tiny_package):
    told = translated_in(32, 4, tiny_package, "blind")
    assert "Warned MX-RES-025" in told
    assert told[-2] in ("batch 1", "batch 2")
    assert told[-1] == "equal True"


@linux_only
def test_a_limit_on_the_address_space_is_seen_before_computing(tiny_package):
    told = translated_in(8, 1, tiny_package, "seeing")
    assert told == ["MX-RES-002"]


def test_the_record_holds_the_estimate_as_a_number(patient, tiny_model):
    from MedXlateCore.pipeline import translate

    translation = translate([patient["T1"], patient["T2"]], tiny_model, device="cpu")
    translation.run()
    assert json.loads(json.dumps(translation.record.as_dict()))["compute"]["estimated_memory_bytes"] > 10_000
