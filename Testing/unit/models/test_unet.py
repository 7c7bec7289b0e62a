"""U-Net: the published widths, the switches, and a training that is regression and nothing else."""

from __future__ import annotations

import pytest
import torch
from comparators import count, make_batch, make_state

from MedXlateCore.errors import UsageError
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset
from MedXlateCore.models.unet import UnetConfig, UnetNetwork

UNET = get_method("unet")


def by_hand(inputs, widths):
    """Sum the weights: pairs of 3x3 convolutions with norms and no bias, 2x2 transposed ones, the 1x1 at the end."""

    def pair(channels, out):
        return 9 * channels * out + 9 * out * out + 2 * 2 * out

    down = sum(pair(a, b) for a, b in zip([inputs, *widths[:-1]], widths, strict=True))
    up = sum(4 * 2 * w * w + w + pair(2 * w, w) for w in widths[:-1])
    return down + up + widths[0] + 1


@pytest.mark.parametrize(
    ("changes", "widths", "parameters"),
    [
        ({"inputs": 1}, [64, 128, 256, 512, 1024], 31_036_481),
        ({"inputs": 2}, [64, 128, 256, 512, 1024], 31_037_057),
        ({"levels": 5}, [64, 128, 256, 512, 1024, 2048], 124_373_633),
        ({"width": 16, "levels": 3}, [16, 32, 64, 128], 482_593),
    ],
)
def test_it_has_the_expected_number_of_parameters(changes, widths, parameters):
    assert by_hand(changes.get("inputs", 2), widths) == parameters
    with torch.device("meta"):
        assert count(UnetNetwork(UnetConfig(**changes))) == parameters


def test_the_widest_map_of_the_paper_preset_has_1024_channels():
    with torch.device("meta"):
        network = UNET.build(get_preset(UNET, "paper"))
    assert [down[0].out_channels for down in network.downs] == [64, 128, 256, 512, 1024]


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_every_switch_gives_an_image_of_the_same_size(levels, upsampling, norm):
    network = UnetNetwork(UnetConfig(width=4, levels=levels, upsampling=upsampling, norm=norm))
    assert network(torch.rand(1, 2, 64, 96)).shape == (1, 1, 64, 96)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_the_smallest_image_leaves_one_pixel_at_the_bottom_and_still_gives_a_result(norm):
    network = UnetNetwork(UnetConfig(width=4, levels=3, norm=norm)).eval()
    assert torch.isfinite(network(torch.rand(1, 2, 8, 8))).all()


def test_bilinear_upsampling_has_no_transposed_convolution():
    kinds = [type(m) for m in UnetNetwork(UnetConfig(width=4, upsampling="bilinear")).modules()]
    assert torch.nn.ConvTranspose2d not in kinds


def test_the_finest_skip_carries_detail_that_no_lower_level_sees():
    torch.manual_seed(0)  # with four channels, one network in thirty has no ReLU that is alive there
    network = UnetNetwork(UnetConfig(width=4, levels=2, norm="none")).eval()
    for enlarge in network.enlarge:
        torch.nn.init.zeros_(enlarge.conv.weight)
    images = torch.rand(1, 2, 16, 16)
    changed = images.clone()
    changed[..., 5, 5] += 1
    difference = (network(images) - network(changed)).abs()[0, 0]
    assert difference[5, 5] > 0
    assert difference[:, 12:].max() == 0


@pytest.mark.parametrize("changes", [{"inputs": 0}, {"inputs": 17}, {"width": 0}, {"width": 10_000_000}])
def test_a_size_that_cannot_be_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        UnetConfig(**changes)


@pytest.mark.parametrize("changes", [{"levels": 1}, {"norm": "layer"}, {"upsampling": "nearest"}])
def test_a_choice_that_is_not_offered_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-004"):
        UnetConfig(**changes)


@pytest.mark.parametrize("preset", ["paper", "tiny"])
def test_it_is_trained_with_the_mean_absolute_error_alone(preset):
    recipe = UNET.recipe(get_preset(UNET, "tiny"), get_recipe_preset(UNET, preset))
    batch = make_batch()
    expected = (recipe.networks()["generator"](batch.images).detach() - batch.target).abs().mean().item()
    losses = recipe.step(batch, make_state(recipe))
    assert list(recipe.networks()) == ["generator"]
    assert losses == {"generator": pytest.approx(expected, rel=1e-5), "l1": pytest.approx(expected, rel=1e-5)}


def test_the_regions_are_not_looked_at():
    network = UnetNetwork(get_preset(UNET, "tiny")).eval()
    images = make_batch().images
    assert torch.equal(network(images), network(images, torch.ones(2, 1, 32, 32)))
    assert not UNET.uses_regions
