"""What the tests of the comparators share: batches, states, counting."""

from __future__ import annotations

import torch

from MedXlateCore.models.method import Batch, Recipe, TrainingState


def count(network: torch.nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in network.parameters())


def make_batch(n: int = 2, size: tuple[int, ...] = (32, 32), sources: int = 2, seed: int = 0) -> Batch:
    """Return random images and targets, of slices or volumes, with an annotated square."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, sources, *size, generator=generator) * 2 - 1
    target = torch.rand(n, 1, *size, generator=generator) * 2 - 1
    regions = torch.zeros(n, 2, *size)
    regions[..., 8:16, 8:16] = 1
    return Batch(images, target, regions, torch.ones(n, 1, *size))


def make_state(recipe: Recipe, seed: int = 0) -> TrainingState:
    """Return the state that a recipe's step gets."""
    generator = torch.Generator().manual_seed(seed)
    return TrainingState(recipe.networks(), recipe.optimisers(), lambda loss: loss.backward(), generator, 0)
