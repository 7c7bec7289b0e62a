"""Slice-wise prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from MedXlateCore.inference.slices import predict_slices


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(-1, 1, (2, 7, 16, 12)).astype(np.float32)


@pytest.fixture
def roi():
    prompt = np.zeros((7, 16, 12), np.float32)
    prompt[2:5, 4:10, 3:8] = 0.5
    prompt[3, 6:8, 4:6] = 1.0
    return prompt


@pytest.fixture
def network(tiny_model):
    return tiny_model.network


def predicted(network, images, roi=None, **options):
    """Return the predictions by slice."""
    batches = predict_slices(network, images, roi, **options)
    return {k: values for batch in batches for k, values in zip(batch.indices, batch.values, strict=True)}


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("chosen", [[4], [6, 2], [1, 2, 5], [0, 3, 4, 6]])
def test_a_slice_does_not_depend_on_its_neighbours_in_the_batch(network, images, roi, batch_size, chosen):
    full = predicted(network, images, roi, batch_size=batch_size)
    part = predicted(network, images, roi, batch_size=batch_size, slices=chosen)
    assert list(full) == list(range(7))
    assert list(part) == chosen
    for k in chosen:
        assert np.array_equal(part[k], full[k]), k


@pytest.mark.parametrize(("batch_size", "passes"), [(1, 7), (2, 4), (3, 3), (7, 1), (16, 1)])
def test_every_pass_has_the_same_number_of_slices(images, batch_size, passes):
    seen = []

    class Spy(nn.Module):
        def forward(self, images, roi):
            seen.append((tuple(images.shape), tuple(roi.shape)))
            return images[:, :1]

    result = predicted(Spy(), images, batch_size=batch_size)
    assert seen == [((batch_size, 2, 16, 12), (batch_size, 1, 16, 12))] * passes
    assert all(np.array_equal(result[k], images[0, k]) for k in range(7))


def test_no_prompt_is_a_prompt_of_zeros_bit_for_bit(network, images):
    without, zeros = predicted(network, images), predicted(network, images, np.zeros((7, 16, 12), np.float32))
    assert all(np.array_equal(without[k], zeros[k]) for k in range(7))


def test_a_prompt_reaches_its_own_slices_only(network, images, roi):
    without, prompted = predicted(network, images), predicted(network, images, roi)
    changed = [k for k in range(7) if not np.array_equal(without[k], prompted[k])]
    assert changed == [2, 3, 4]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("steps", [1, None])
def test_the_networks_mode_is_evaluation_meanwhile_and_as_before_afterwards(images, training, steps):
    modes = []

    class Spy(nn.Module):
        def forward(self, images, roi):
            modes.append(self.training)
            return images[:, :1]

    network = Spy().train(training)
    batches = predict_slices(network, images)
    for _ in range(steps or 7):
        next(batches)
    batches.close() if steps else next(batches, None)
    assert network.training is training
    assert modes == [False] * (steps or 7)


def test_the_mode_returns_after_an_error(images):
    class Fails(nn.Module):
        def forward(self, images, roi):
            raise ValueError("no")

    network = Fails().train()
    with pytest.raises(ValueError, match="no"):
        next(predict_slices(network, images))
    assert network.training


def test_bf16_stays_close_to_fp32(network, images, roi):
    exact, rough = (predicted(network, images, roi, precision=p) for p in ("fp32", "bf16"))
    difference = np.abs(np.stack(list(exact.values())) - np.stack(list(rough.values())))
    assert difference.mean() <= 0.015  # the contract of all methods, Testing/contract/test_models.py
    assert difference.max() <= 0.15
    assert difference.max() > 0  # it is another precision
    assert all(values.dtype == np.float32 for values in rough.values())


def test_predicting_needs_no_gradients_and_leaves_none(network, images):
    predicted(network, images, slices=[0])
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.is_grad_enabled()


def test_no_slices_are_no_work(images):
    assert predicted(nn.Identity(), images, slices=[]) == {}
