"""The end on the full grid: both inputs count, only the chosen class learns, and detail passes that patches lose."""

from __future__ import annotations

import pytest
import torch

from MedXlateCore.models.blocks.detail import DetailEnd
from MedXlateCore.models.blocks.latent_unet import LatentUnet
from MedXlateCore.models.blocks.ms_spade import MsSpade


def maps(channels, seed):
    return torch.randn(1, channels, 4, 8, 4, generator=torch.Generator().manual_seed(seed))


def spade(detail):
    torch.manual_seed(0)
    return MsSpade(3, 2, (4,), 4, 4, size=3, patch=4, detail=detail)


def unet(detail):
    torch.manual_seed(0)
    return LatentUnet(4, 2, (8,), 1, (), 8, 3, patch=4, detail=detail)


@pytest.mark.parametrize("normed", [False, True])
def test_both_inputs_and_the_class_are_seen(normed):
    torch.manual_seed(0)
    end, fine, said = DetailEnd(5, 8, 2, 3, normed), maps(3, 0), maps(2, 1)
    made = end(fine, said, 0)
    assert made.shape == (1, 2, 4, 8, 4)
    for other in (end(maps(3, 2), said, 0), end(fine, maps(2, 3), 0), end(fine, said, 1)):
        assert (made - other).abs().max() > 1e-3


def test_only_the_chosen_class_gets_a_gradient():
    torch.manual_seed(0)
    end = DetailEnd(5, 8, 2, 3, normed=True)
    end(maps(3, 0), maps(2, 1), 2).square().mean().backward()
    assert [layer.weight.grad is not None for layer in end.ends] == [False, False, True]


def from_shuffled_patch(network):
    """Return how much the output changes if a patch's values change places within it, as part of all changes."""
    calm = maps(2, 0)
    shuffled = calm.clone()
    shuffled[:, :, :4, :4] = calm[:, :, :4, :4].flip((2, 3, 4))
    change = (network(shuffled) - network(calm)).abs()
    return float(change[:, :, :4, :4].mean() / change.mean())


def test_what_lies_inside_a_patch_reaches_its_own_place():
    """Without such an end a change inside one patch spreads over all that its few channels reach."""
    with torch.no_grad():
        with_end = from_shuffled_patch(lambda x: spade(detail=8)(x, 1))
        without = from_shuffled_patch(lambda x: spade(detail=0)(x, 1))
    assert with_end > 1.3 * without  # an end that is deaf to the fine maps has 1.04


def test_a_u_net_with_it_starts_close_to_zero_and_learns_from_everything_but_the_other_classes():
    network, x = unet(detail=8), maps(4, 0)
    made = network(x, torch.tensor([5]), 0)
    assert made.shape == (1, 2, 4, 8, 4)
    assert made.abs().max() < 0.2
    made.square().mean().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert still == [f"detail.ends.{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")]
