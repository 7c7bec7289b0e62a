"""A small model and its card, for the tests of packages."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from MedXlateCore.config import to_mapping
from MedXlateCore.models.card import ModelCard
from MedXlateCore.models.package import save_package
from MedXlateCore.models.tlp import TlpConfig, TlpNetwork

CONFIG = TlpConfig(dim=8, inputs=1, levels=1)


@pytest.fixture
def small_config():
    return CONFIG


@pytest.fixture
def make_network():
    def make(seed=0):
        torch.manual_seed(seed)
        return TlpNetwork(CONFIG)

    return make


@pytest.fixture
def make_card():
    def make(**changes):
        card = ModelCard(
            name="small",
            version="1.2.3",
            method="tlp",
            config=to_mapping(CONFIG),
            sources=("T1",),
            targets=("T1ce",),
            prompts="region",
            grid={"orientation": "LPS", "size_multiple": [2, 2, 1]},
            normalisers={"T1": {"kind": "percentile", "lower": 0.5, "upper": 99.5}},
            output={"T1ce": {"kind": "relative", "low": 0.0, "high": 1.1}},
            training={"cases": 12, "notes": ["phantom", None, True]},
            metrics={"psnr": {"mean": 30.1, "low": 29.0, "high": 31.0}},
            licence="CC0-1.0",
        )
        return dataclasses.replace(card, **changes)

    return make


@pytest.fixture
def package(tmp_path, make_card, make_network):
    save_package(tmp_path / "small", make_card(), make_network())
    return tmp_path / "small"
