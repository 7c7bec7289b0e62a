"""PatchGAN: published size, patches, options, initialisation."""

from __future__ import annotations

import pytest
import torch

from MedXlateCore.errors import InputError
from MedXlateCore.models.blocks.patchgan import PatchGan, StridedGan


def test_it_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in PatchGan().parameters()) == 2_763_585


def test_it_answers_one_score_a_patch():
    assert PatchGan(width=4)(torch.zeros(1, 1, 192, 160)).shape == (1, 1, 22, 18)


def test_one_score_sees_70_pixels():
    network = PatchGan(width=4, norm="none")
    x = torch.randn(1, 1, 192, 160, requires_grad=True)
    network(x)[0, 0, 11, 9].backward()
    rows = x.grad[0, 0].abs().sum(dim=1).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 70


def test_a_condition_is_judged_with_the_image():
    network = PatchGan(condition_channels=2, width=4, norm="instance")
    image, condition = torch.randn(1, 1, 32, 32), torch.randn(1, 2, 32, 32)
    assert not torch.equal(network(image, condition), network(image, -condition))


def test_an_image_without_a_single_patch_is_refused():
    network = PatchGan(width=4)
    assert network(torch.zeros(1, 1, 24, 24)).shape == (1, 1, 1, 1)
    with pytest.raises(InputError, match="MX-MOD-007"):
        network(torch.zeros(1, 1, 24, 16))


@pytest.mark.parametrize(("first_norm", "parameters"), [(False, 390_593), (True, 390_593 - 32 + 64)])
def test_hinets_discriminator_has_the_number_of_parameters_of_its_convolutions(first_norm, parameters):
    convolutions = 9 * (1 * 32 + 32 * 64 + 64 * 128 + 128 * 256 + 256 * 1) + 32 + 1  # two of them with bias
    assert convolutions + 2 * (64 + 128 + 256) == 390_593
    assert sum(p.numel() for p in StridedGan(first_norm=first_norm).parameters()) == parameters


def test_hinets_discriminator_answers_a_score_for_16_by_16_pixels():
    assert StridedGan(4)(torch.zeros(1, 1, 64, 48)).shape == (1, 1, 4, 3)
    with pytest.raises(InputError, match="MX-MOD-007"):
        StridedGan(4)(torch.zeros(1, 1, 16, 32))
