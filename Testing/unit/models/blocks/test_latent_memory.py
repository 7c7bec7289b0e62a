"""A memory for latents: what is made once, what is told apart, what does not fit, what is forgotten."""

from __future__ import annotations

import pytest
import torch

from MedXlateCore.models.blocks.latent_memory import LatentMemory


@pytest.fixture
def made():
    """Return a maker of 1 MiB, and the volumes that it was called with."""
    calls = []

    def make(*volumes):
        calls.append(volumes)
        return {"sum": sum(volumes).sum() + torch.zeros(1 << 18)}

    return make, calls


def volume(value):
    return torch.full((1, 1, 2, 2, 2), float(value))


def test_equal_volumes_are_worked_on_once(made):
    memory, (make, calls) = LatentMemory(8), made
    first = memory.recall("stage", "", [volume(1), volume(2)], make)
    again = memory.recall("stage", "", [volume(1), volume(2)], make)
    assert len(calls) == 1
    assert torch.equal(first["sum"], again["sum"])
    assert float(again["sum"][0]) == 24


def test_other_volumes_words_and_orders_are_told_apart(made):
    memory, (make, calls) = LatentMemory(8), made
    for word, values in (("a", (1, 2)), ("b", (1, 2)), ("a", (2, 1)), ("a", (1, 3))):
        memory.recall("stage", word, [volume(value) for value in values], make)
    assert len(calls) == 4


def test_what_does_not_fit_is_made_anew(made):
    memory, (make, calls) = LatentMemory(1), made
    for _ in range(2):
        for value in (1, 2):
            assert float(memory.recall("stage", "", [volume(value)], make)["sum"][0]) == 8 * value
    assert [float(volumes[0].mean()) for volumes in calls] == [1, 2, 2]


def test_another_chapter_begins_with_an_empty_memory(made):
    memory, (make, calls) = LatentMemory(1), made
    for chapter in ("spade", "diffusion", "diffusion"):
        memory.recall(chapter, "", [volume(1)], make)
    assert len(calls) == 2


def test_without_room_it_says_so():
    assert not LatentMemory(0)
    assert LatentMemory(1)
