"""Methods that learn without pairs: after a short training on shuffled targets they make the paired target."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from comparators import make_state

from MedXlateCore.models.method import Batch
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset, list_methods

METHODS = [name for name in list_methods() if get_method(name).unpaired]
# how many steps at which learning rate; StarGAN v2, which is told nothing but the domain, needs the most
LENGTHS = {"cyclegan": (60, 2e-3), "syndiff": (30, 2e-3), "stargan_v2": (400, 1e-3), "cyclegan3d": (60, 2e-3)}


def heads(n: int, generator: torch.Generator, slices: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ellipses, or ellipsoids, with a spot in both contrasts, bright and dark, [n, 1, 32, 32] or volumes."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    z = torch.linspace(-1, 1, slices).view(-1, 1, 1) if slices else torch.zeros(())
    draws = torch.rand((5, n, 1, *[1] * (z + x).ndim), generator=generator)
    inside = ((x / (0.6 + 0.3 * draws[0])) ** 2 + (y / (0.6 + 0.3 * draws[1])) ** 2 + z**2 < 1).float()
    spot = ((x - draws[2] + 0.5) ** 2 + (y - draws[3] + 0.5) ** 2 + z**2 < 0.05).float() * inside
    return -1 + inside * 1.6 - 0.4 * spot, -1 + inside * 0.8 + 0.6 * spot


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", METHODS)
def test_training_on_shuffled_targets_brings_the_result_near_the_paired_target(name):
    torch.manual_seed(0)
    steps, rate = LENGTHS[name]
    method = get_method(name)
    config = get_preset(method, "tiny")
    recipe = method.recipe(config, get_recipe_preset(method, "tiny"))
    state = dataclasses.replace(make_state(recipe), optimisers=recipe.optimisers(rate))
    generator = torch.Generator().manual_seed(1)
    slices = 16 if method.volumetric else 0
    test, truth = heads(8, generator, slices)
    network = method.towards(state.networks["generator"], config, 0)

    def error() -> float:
        network.eval()
        with torch.no_grad():
            result = (network(test, torch.zeros_like(test)) - truth).abs().mean().item()
        network.train()
        return result

    for step in range(steps):
        state.step = step
        source, target = heads(4, generator, slices)[0], heads(4, generator, slices)[1]  # of other heads
        direction = step % len(getattr(config, "directions", ("",)))
        pair = (target, source) if direction else (source, target)
        regions = torch.zeros(4, 2, *source.shape[2:])
        recipe.step(Batch(*pair, regions, torch.ones_like(source), direction), state)
    assert error() < 0.6 * (test - truth).abs().mean().item()  # nearer than the source itself
