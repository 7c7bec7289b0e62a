"""pGAN: neighbouring slices, published sizes and losses, and a perceptual term that needs weights."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from comparators import count, make_batch, make_state

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.models.pgan import PGanConfig, PGanRecipe, PGanRecipeConfig
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset
from MedXlateCore.training.perceptual import PerceptualLoss, VggFeatures

PGAN = get_method("pgan")
SMALL = PGanConfig(inputs=1, width=4, blocks=1, dropout=0.0)


@pytest.fixture
def weights(tmp_path):
    """Return a file with random weights of VGG-16's first layers, and one tensor more."""
    torch.manual_seed(3)
    tensors = {**VggFeatures().state_dict(), "classifier.6.bias": torch.zeros(1000)}
    safetensors.torch.save_file(tensors, tmp_path / "vgg16.safetensors")
    return tmp_path / "vgg16.safetensors"


def small_recipe(**changes):
    torch.manual_seed(0)
    return PGanRecipe(SMALL, PGanRecipeConfig(discriminator_width=4, **changes))


def test_the_networks_have_the_published_numbers_of_parameters():
    config = PGanConfig(inputs=1)
    with torch.device("meta"):
        networks = PGAN.recipe(config, get_recipe_preset(PGAN, "paper")).networks()
    # ResNet-9 with three channels in and out has 11,378,179; each channel out is 49 x 64 weights and a bias
    assert count(networks["generator"]) == 11_378_179 - 2 * (49 * 64 + 1)
    # 70 x 70 PatchGAN for three channels with instance normalisation: 2,764,737
    assert count(networks["discriminator"]) == 2_764_737 + 16 * 64


def test_three_slices_of_each_source_go_in():
    paper = get_preset(PGAN, "paper")
    assert (PGAN.n_sources(paper), PGAN.context_slices(paper), paper.channels) == (2, 3, 6)


def test_the_recipe_has_the_published_constants():
    paper = get_recipe_preset(PGAN, "paper")
    assert (paper.learning_rate, paper.l1_weight, paper.perceptual_weight, paper.adversarial_weight) == (
        2e-4,
        100,
        100,
        1,
    )
    assert paper.adversarial == "least_squares"
    assert [small_recipe().learning_rate_factor(p) for p in (0, 0.5, 0.75, 1)] == [1, 1, 0.5, 0]


def test_without_weights_there_is_no_perceptual_term():
    recipe = small_recipe()
    losses = recipe.step(make_batch(sources=3), make_state(recipe))
    assert set(losses) == {"discriminator", "generator", "l1", "adversarial"}


def test_with_weights_a_step_gives_the_published_losses(weights):
    recipe = small_recipe(perceptual_weights=str(weights))
    batch = make_batch(sources=3)
    features = VggFeatures()
    features.load_state_dict(safetensors.torch.load_file(weights), strict=False)

    def seen(image):
        colour = torch.cat([(image + 1) / 2] * 3, dim=1)
        mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        return features((colour - mean.view(3, 1, 1)) / spread.view(3, 1, 1))

    with torch.no_grad():
        made = recipe.networks()["generator"](batch.images)
        expected = (seen(made) - seen(batch.target)).abs().mean()
    losses = recipe.step(batch, make_state(recipe))
    assert losses["perceptual"] == pytest.approx(expected.item(), rel=1e-4)
    total = losses["adversarial"] + 100 * losses["l1"] + 100 * losses["perceptual"]
    assert losses["generator"] == pytest.approx(total, rel=1e-4)


def test_the_perceptual_term_sees_every_image_of_a_batch_and_gives_it_gradients(weights):
    image = torch.rand(3, 1, 16, 16, requires_grad=True)
    PerceptualLoss(weights)(image, torch.zeros(3, 1, 16, 16)).backward()
    assert (image.grad.abs().amax(dim=(1, 2, 3)) > 0).all()


def test_the_features_are_those_before_the_second_pooling():
    assert VggFeatures()(torch.zeros(1, 3, 16, 24)).shape == (1, 128, 8, 12)


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"no safetensors", "MX-MOD-016"), (safetensors.torch.save({"features.0.weight": torch.zeros(2)}), "MX-MOD-018")],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, content, code):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=code):
        small_recipe(perceptual_weights=str(tmp_path / "w.safetensors"))


def test_weights_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(InputError, match="MX-FIL-001"):
        small_recipe(perceptual_weights=str(tmp_path / "none.safetensors"))


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    network = PGAN.build(PGanConfig(inputs=1, width=4, blocks=1))
    images = make_batch(sources=3).images
    assert not torch.equal(network.train()(images), network(images))
    assert torch.equal(network.eval()(images), network(images))


@pytest.mark.parametrize("changes", [{"slices": 2}, {"slices": 11}, {"inputs": 0}, {"dropout": 1.0}, {"width": 0}])
def test_a_size_that_cannot_be_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        PGanConfig(**changes)


@pytest.mark.parametrize("name", ["perceptual_weight", "l1_weight", "discriminator_width"])
def test_a_recipe_constant_out_of_range_is_refused(name):
    with pytest.raises(UsageError, match="MX-MOD-006"):
        PGanRecipeConfig(**{name: -1})
