"""MS-SPADE: switched by the class, only the chosen class learns, published sizes."""

from __future__ import annotations

import torch

from MedXlateCore.models.blocks.ms_spade import MsSpade, Spade


def make(**changes):
    torch.manual_seed(0)
    return MsSpade(**{"classes": 3, "channels": 2, "widths": (4, 4), "hidden": 4, "stem": 4, **changes})


def latents(seed=0):
    return torch.randn(1, 2, 4, 6, 4, generator=torch.Generator().manual_seed(seed))


def test_every_class_makes_other_latents():
    spade, z = make(), latents()
    made = [spade(z, target) for target in range(3)]
    assert all(m.shape == z.shape for m in made)
    assert all((a - b).abs().max() > 1e-3 for n, a in enumerate(made) for b in made[:n])


def test_only_the_chosen_class_gets_a_gradient():
    spade = make()
    spade(latents(), 1).square().mean().backward()
    for name, parameter in spade.named_parameters():
        switched = ".classes." in name
        chosen = ".classes.1." in name
        assert (parameter.grad is not None) == (chosen or not switched), name
        if chosen:
            assert parameter.grad.abs().max() > 0, name


def test_gain_and_shift_depend_on_the_place():
    torch.manual_seed(0)
    spade, x = Spade(2, 4), latents()
    gain = spade(x) - spade.shift(torch.relu(spade.shared(x)))
    ratio = gain / spade.norm(x)  # 1 + gain
    assert ratio.std(dim=(2, 3, 4)).min() > 1e-3
    for layer in (spade.gain, spade.shift):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    assert torch.allclose(spade(x), spade.norm(x))


def test_without_a_stem_there_are_blocks_only():
    spade = make(stem=0, widths=(4, 2))
    assert len(spade.before) == 0
    assert spade(latents(), 0).shape == (1, 2, 4, 6, 4)


def test_the_published_sizes():
    with torch.device("meta"):
        paper = MsSpade(4, 3, (256, 256, 256, 128), 64, 128, (256, 256))
        code = MsSpade(4, 4, (128, 256, 128, 4))
    counts = [sum(p.numel() for p in network.parameters()) for network in (paper, code)]
    assert counts == [58_299_523, 18_932_428]
