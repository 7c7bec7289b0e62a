"""A memory for latents: what is made once, what is told apart, what does not fit, how much is kept."""

from __future__ import annotations

import torch

from MedXlateCore.models.blocks.latent_memory import LatentMemory


def volume(value, shape=(1, 1, 2, 2, 2)):
    return torch.full(shape, float(value))


class Maker:
    """Makes 1 MiB of a volume's sum, as a part of something twice as large, and counts."""

    def __init__(self):
        self.calls = []

    def __call__(self, given):
        self.calls.append(float(given.mean()))
        return (given.sum() + torch.zeros(2, 1 << 18)).chunk(2)[0]


def recall(memory, make, value, word="", shape=(1, 1, 2, 2, 2)):
    return float(memory.recall(word, volume(value, shape), volume(value, shape), make)[0, 0])


def test_equal_volumes_are_worked_on_once():
    memory, make = LatentMemory(8), Maker()
    assert [recall(memory, make, value) for value in (1, 2, 1, 2)] == [8, 16, 8, 16]
    assert make.calls == [1, 2]


def test_other_volumes_words_and_shapes_are_told_apart():
    memory, make = LatentMemory(8), Maker()
    for word, value, shape in (("a", 1, (2, 2)), ("b", 1, (2, 2)), ("a", 2, (2, 2)), ("a", 1, (1, 4))):
        recall(memory, make, value, word, shape)
    assert len(make.calls) == 4


def test_what_it_is_made_of_may_be_given():
    make = Maker()
    made = LatentMemory(8).recall("", volume(1), volume(3), make)
    assert (float(made[0, 0]), make.calls) == (24, [3])


def test_what_does_not_fit_is_made_anew():
    memory, make = LatentMemory(1), Maker()
    for _ in range(2):
        assert [recall(memory, make, value) for value in (1, 2)] == [8, 16]
    assert make.calls == [1, 2, 2]


def test_no_more_is_kept_than_is_counted():
    memory, make = LatentMemory(4), Maker()
    for value in range(6):
        recall(memory, make, value)
    assert memory.left == 0
    assert sum(kept.untyped_storage().nbytes() for kept in memory._kept.values()) == memory.room


def test_what_is_kept_has_no_graph():
    make = torch.nn.Linear(2, 2)
    assert not LatentMemory(1).recall("", volume(1), volume(1), make).requires_grad


def test_without_room_it_says_so():
    assert not LatentMemory(0)
    assert LatentMemory(1)
