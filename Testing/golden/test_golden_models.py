"""Networks against the authors' published implementations. Tolerance 1e-5 absolute, fp32 on the CPU; see README.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from MedXlateCore.models.blocks.restormer import Downsample, GatedFeedForward, TransformerBlock, Upsample
from MedXlateCore.models.importer import _tlp_name
from MedXlateCore.models.tlp import TlpConfig, TlpNetwork

FOLDER = Path(__file__).parent
TOLERANCE = 1e-5
NAMES = {"two": 2, "one": 1}


def load(name: str) -> dict[str, torch.Tensor]:
    with np.load(FOLDER / name) as archive:
        return {key: torch.from_numpy(np.asarray(archive[key])) for key in archive.files}


def under(prefix: str, golden: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}


def published_tlp(number: str) -> tuple[TlpNetwork, torch.Tensor, dict[str, torch.Tensor]]:
    golden = load(f"tlp_{number}_input_dim8.npz")
    network = TlpNetwork(TlpConfig(inputs=NAMES[number], dim=int(golden["dim"]))).eval()
    network.load_state_dict({_tlp_name(key): value for key, value in under("weights/", golden).items()})
    images = torch.cat([golden[key] for key in ("x_a", "x_b") if key in golden], dim=1)
    return network, images, golden


@pytest.mark.parametrize("number", NAMES)
def test_tlp_gives_the_published_output(number):
    network, images, golden = published_tlp(number)
    with torch.no_grad():
        output = network(images, golden["prompt"])
    assert (output - golden["y"]).abs().max() < TOLERANCE


@pytest.mark.parametrize("number", NAMES)
def test_no_prompt_is_the_empty_prompt(number):
    network, images, golden = published_tlp(number)
    assert not golden["prompt"][1].any()  # the golden's second item has none
    with torch.no_grad():
        output = network(images[1:])
    assert (output - golden["y"][1:]).abs().max() < TOLERANCE


def test_raw_residuals_in_global_fusion_give_another_network():
    network, images, golden = published_tlp("two")
    raw = TlpNetwork(TlpConfig(dim=8, gf_residual="raw")).eval()
    raw.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert (raw(images, golden["prompt"]) - golden["y"]).abs().max() > 0.01


@pytest.mark.parametrize("number", NAMES)
def test_the_published_full_size_names_and_shapes_are_ours(number):
    published = json.loads((FOLDER / f"tlp_{number}_input_state_dict.json").read_text())
    ours = TlpNetwork(TlpConfig(inputs=NAMES[number])).state_dict()
    assert {_tlp_name(key): tuple(shape) for key, shape in published.items()} == {
        key: tuple(value.shape) for key, value in ours.items()
    }


def test_a_restormer_block_gives_the_published_output():
    golden = load("restormer_block_dim16.npz")
    block = TransformerBlock(16, int(golden["heads"]), GatedFeedForward(16, float(golden["ffn_expansion"])))
    names = (("norm1.body", "norm1"), ("norm2.body", "norm2"), ("attn.qkv_dwconv", "attention.qkv_depthwise"),
             ("attn.", "attention."), ("ffn.dwconv", "feed_forward.depthwise"), ("ffn.", "feed_forward."))  # fmt: skip
    weights = {}
    for key, value in under("weights/", golden).items():
        for published, ours in names:
            key = key.replace(published, ours)
        weights[key] = value
    block.load_state_dict(weights)
    with torch.no_grad():
        assert (block(golden["x"]) - golden["y"]).abs().max() < TOLERANCE


@pytest.mark.parametrize(("module", "name"), [(Downsample(16), "down"), (Upsample(16), "up")])
def test_resampling_between_levels_gives_the_published_output(module, name):
    golden = load("restormer_block_dim16.npz")
    module.load_state_dict({"conv.weight": golden[f"weights_{name}/body.0.weight"]})
    with torch.no_grad():
        assert (module(golden["x_even"]) - golden[f"y_{name}"]).abs().max() < TOLERANCE
