"""3D pix2pix: sizes, what it shares with the network for slices, and discriminators for few slices."""

from __future__ import annotations

import pytest
import torch
from comparators import count, make_batch, make_state

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.models.pix2pix import Pix2PixConfig, Pix2PixNetwork
from MedXlateCore.models.pix2pix3d import Pix2Pix3dConfig, VolumePairedRecipeConfig
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset

PIX2PIX3D = get_method("pix2pix3d")
SMALL = Pix2Pix3dConfig(width=2, levels=3)
VOLUME = (16, 16, 24)


def on_meta(config):
    with torch.device("meta"):
        return Pix2PixNetwork(config)


def test_the_paper_preset_has_the_parameters_of_its_convolutions_and_norms():
    widths = (32, 64, 128, 256)
    down = 64 * (1 * 32 + 32 * 64 + 64 * 128 + 128 * 256) + 2 * (64 + 128)
    up = 64 * (256 * 128 + 2 * 128 * 64 + 2 * 64 * 32 + 2 * 32 * 1) + 1 + 2 * (128 + 64 + 32)
    network = on_meta(Pix2Pix3dConfig(inputs=1))
    assert count(network) == down + up == 6_167_361
    assert [m.out_channels for m in network.downs.modules() if isinstance(m, torch.nn.Conv3d)] == [*widths]
    assert {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_it_is_the_network_for_slices_with_one_dimension_more(norm):
    flat = on_meta(Pix2PixConfig(width=8, levels=4, norm=norm)).state_dict()
    deep = on_meta(Pix2Pix3dConfig(width=8, levels=4, norm=norm)).state_dict()
    assert {name: [*value.shape] for name, value in flat.items()} == {
        name: [*value.shape][: 4 if value.ndim == 5 else None] for name, value in deep.items()
    }
    assert {value.shape[-1] for value in deep.values() if value.ndim == 5} == {4}


def test_slices_see_each_other():
    torch.manual_seed(0)
    network, images = Pix2PixNetwork(SMALL).eval(), torch.rand(1, 2, *VOLUME, requires_grad=True)
    network(images)[:, :, 0].sum().backward()
    assert (images.grad.abs().amax(dim=(0, 1, 3, 4)) > 0).all()


def test_sixteen_slices_are_enough_for_the_paper_preset():
    config = get_preset(PIX2PIX3D, "paper")
    assert PIX2PIX3D.size_multiple(config) == 16
    with torch.device("meta"):
        assert PIX2PIX3D.build(config)(torch.empty(1, 2, 16, 48, 32)).shape == (1, 1, 16, 48, 32)


@pytest.mark.parametrize("size", [(12, 16, 16), (16, 12, 16), (16, 16, 12)])
def test_no_axis_may_be_other_than_a_multiple(size):
    with pytest.raises(InputError, match="MX-MOD-007") as caught:
        Pix2PixNetwork(SMALL)(torch.zeros(1, 2, *size))
    assert "depth" in caught.value.expected


@pytest.mark.parametrize(("levels", "least"), [(2, 12), (3, 24)])
def test_the_discriminators_levels_say_how_few_slices_it_can_judge(levels, least):
    recipe = VolumePairedRecipeConfig(discriminator_width=1, discriminator_levels=levels)
    judge = PIX2PIX3D.recipe(SMALL, recipe).networks()["discriminator"]
    image, condition = torch.zeros(1, 1, least, 24, 32), torch.zeros(1, 2, least, 24, 32)
    assert judge(image, condition).shape[2] == 1
    with pytest.raises(InputError, match="MX-MOD-007") as caught:
        judge(image[:, :, 1:], condition[:, :, 1:])
    assert f"{least} x {least} x {least}" in caught.value.expected


def test_its_losses_are_pix2pixs():
    paper = get_recipe_preset(PIX2PIX3D, "paper")
    assert (paper.learning_rate, paper.l1_weight, paper.adversarial_weight) == (2e-4, 100, 1)
    assert (paper.adversarial, paper.constant_part) == ("cross_entropy", 0.5)
    torch.manual_seed(0)
    recipe = PIX2PIX3D.recipe(SMALL, VolumePairedRecipeConfig(discriminator_width=2, discriminator_levels=2))
    generator, judge = recipe.networks().values()
    batch = make_batch(1, VOLUME)
    fake = generator(batch.images).detach()
    real_scores, fake_scores = judge(batch.target, batch.images).sigmoid(), judge(fake, batch.images).sigmoid()
    losses = recipe.step(batch, make_state(recipe))
    expected = -0.5 * (real_scores.log().mean() + (1 - fake_scores).log().mean())
    assert losses["discriminator"] == pytest.approx(expected.item(), rel=1e-4)
    assert losses["l1"] == pytest.approx((fake - batch.target).abs().mean().item(), rel=1e-5)
    assert losses["generator"] == pytest.approx(losses["adversarial"] + 100 * losses["l1"], rel=1e-5)


@pytest.mark.parametrize("levels", [0, 6])
def test_a_number_of_levels_that_cannot_be_is_refused(levels):
    with pytest.raises(UsageError, match="MX-MOD-006"):
        VolumePairedRecipeConfig(discriminator_levels=levels)
