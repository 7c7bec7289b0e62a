"""A tiny untrained model and its card; not in ``conftest.py``, as only the last of several such files can be imported.

torch and what needs it are imported inside the functions: most tests do without.
"""

from __future__ import annotations

SEED = 20


def make_tiny_network(seed: int = SEED):
    """Return TLP at width 8 with two sources, its weights of a size that training ends with: no flat results."""
    import torch

    from MedXlateCore.models.tlp import TlpConfig, TlpNetwork

    network = TlpNetwork(TlpConfig(dim=8, inputs=2, levels=1))
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5
    return network.eval()


def make_tiny_card(**changes: object):
    """Return the card of the tiny model: T1 and T2 to T1ce on native spacing."""
    from MedXlateCore.config import to_mapping
    from MedXlateCore.models.card import ModelCard
    from MedXlateCore.models.tlp import TlpConfig

    percentile = {"kind": "percentile", "lower": 0.1, "upper": 99.9, "clip": True}
    facts = {
        "name": "tiny",
        "version": "0.0.1",
        "method": "tlp",
        "config": to_mapping(TlpConfig(dim=8, inputs=2, levels=1)),
        "sources": ("T1", "T2"),
        "targets": ("T1ce",),
        "prompts": "region",
        "grid": {"orientation": "LPS", "size_multiple": [4, 4, 1]},
        "normalisers": {"T1": percentile, "T2": percentile},
        "output": {"T1ce": {"kind": "relative", "low": 0.0, "high": 1.2}},
    }
    return ModelCard(**(facts | changes))
