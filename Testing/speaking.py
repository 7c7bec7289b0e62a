"""A tiny untrained model whose target is told in words; torch is imported inside, as in ``tiny``."""

from __future__ import annotations

from pathlib import Path

SEED = 31
DOMAINS = (
    "T1-weighted MR image of the brain.",
    "T2-weighted MR image of the brain.",
    "Fluid-attenuated inversion recovery MR image of the brain.",
    "T1-weighted MR image of the brain. Contrast-enhanced.",
    "CT image of the head.",
)


def save_speaking_package(folder: Path) -> Path:
    """Write EVA-I2I at its tiny size, with weights whose outputs differ from sentence to sentence."""
    from dataclasses import replace

    import torch

    from MedXlateCore.config import to_mapping
    from MedXlateCore.models.card import ModelCard
    from MedXlateCore.models.package import save_package
    from MedXlateCore.models.registry import get_method, get_preset

    method = get_method("eva_i2i")
    directions = ("T1->T2", "T2->T1", "T1->CT", "T2->CT", "T1->T1ce", "T2->T1ce")
    config = replace(get_preset(method, "tiny"), directions=directions, domains=DOMAINS, layer_scale=1.0)
    torch.manual_seed(SEED)
    network = method.build(config)
    with torch.no_grad():
        network.decoder.output.bias += 1.0  # untrained images are black otherwise, whatever they are told
    percentile = {"kind": "percentile", "lower": 0.1, "upper": 99.9, "clip": True}
    window = {"kind": "window", "low": -1000.0, "high": 1500.0}
    relative = {"kind": "relative", "low": 0.0, "high": 0.8}
    absolute = {"kind": "absolute", "low": -1000.0, "high": 1500.0}
    card = ModelCard(
        name="speaking",
        version="0.0.1",
        method=method.name,
        config=to_mapping(config),
        sources=("T1", "T2"),
        targets=("T2", "T1", "CT", "T1ce"),
        directions=directions,
        grid={"orientation": "LPS", "size_multiple": [4, 4, 1]},
        normalisers=dict.fromkeys(("T1", "T2", "T1ce", "FLAIR"), percentile) | {"CT": window},
        output={name: absolute if name.endswith("CT") else relative for name in directions},
    )
    save_package(folder, card, network)
    return folder
