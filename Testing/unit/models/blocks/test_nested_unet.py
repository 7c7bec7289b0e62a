"""Nested U-Nets: switched by class and time, the input reaches its own place, only the chosen class learns."""

from __future__ import annotations

import pytest
import torch

from MedXlateCore.models.blocks.nested_unet import SpadeUnet, TimedUnet


def latents(channels, seed=0, batch=1):
    return torch.randn(batch, channels, 4, 8, 4, generator=torch.Generator().manual_seed(seed))


def spade(**changes):
    torch.manual_seed(0)
    return SpadeUnet(**{"classes": 3, "channels": 2, "widths": (8, 12), "hidden": 4, "planar": True, **changes})


def timed(**changes):
    torch.manual_seed(0)
    return TimedUnet(**{"channels": 6, "out": 2, "widths": (8, 12), "classes": 3, "planar": True, **changes})


@pytest.mark.parametrize("planar", [False, True])
def test_every_class_makes_other_latents(planar):
    network, x = spade(planar=planar), latents(2)
    made = [network(x, target) for target in range(3)]
    assert all(m.shape == x.shape for m in made)
    assert all((a - b).abs().max() > 1e-3 for n, a in enumerate(made) for b in made[:n])


def doubting():
    return timed(doubt=True)


MAKERS = [(spade, 2, (1,)), (timed, 6, (torch.tensor([7]), 1)), (doubting, 6, (torch.tensor([7]), 1))]


@pytest.mark.parametrize(("make", "channels", "words"), MAKERS)
def test_the_chosen_class_and_all_that_is_shared_get_a_gradient(make, channels, words):
    network = make()
    network(latents(channels), *words).square().mean().backward()
    for name, parameter in network.named_parameters():
        switched = any(part in name for part in ("classes.", "ends.", "doubts."))
        chosen = any(part in name for part in ("classes.1.", "ends.1.", "doubts.1."))
        learned = parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
        assert learned == (chosen or not switched), name


def test_the_time_of_each_is_seen_and_the_class():
    network, x = timed(), latents(6, batch=2)
    made = network(x, torch.tensor([5, 900]), 0)
    assert made.shape == (2, 2, 4, 8, 4)
    other = network(x, torch.tensor([5, 100]), 0)
    assert torch.allclose(made[0], other[0], atol=1e-5)
    assert (made[1] - other[1]).abs().max() > 1e-3
    assert (made - network(x, torch.tensor([5, 900]), 2)).abs().max() > 1e-3


def test_what_is_said_of_errors_comes_behind_a_prediction_that_it_does_not_change():
    x, words = latents(6), (torch.tensor([7]), 1)
    plain, both = timed()(x, *words), doubting()(x, *words)
    assert (plain.shape[1], both.shape[1]) == (2, 4)
    assert torch.equal(both[:, :2], plain)


def test_what_is_said_of_errors_need_not_be_linear_in_the_maps():
    network = doubting()
    maps = torch.randn(1, 14, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    said = [network.doubts[0](m) - network.doubts[0](torch.zeros_like(maps)) for m in (maps, -maps)]
    assert (said[0] + said[1]).abs().max() > 1e-2 * said[0].abs().max()


def test_the_end_of_a_target_sees_the_input_where_it_lies():
    network, x = spade(), latents(2)
    for end in network.ends:
        torch.nn.init.zeros_(end.weight[:, :8])  # nothing of the maps
    expected = torch.einsum("oc,bcdhw->bodhw", network.ends[1].weight[:, 8:, 0, 0, 0], x)
    assert torch.allclose(network(x, 1), expected + network.ends[1].bias.view(1, -1, 1, 1, 1), atol=1e-5)
