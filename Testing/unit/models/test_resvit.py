"""ResViT: published size, shared Transformer, positions for other sizes, and its switches."""

from __future__ import annotations

import pytest
import torch
from comparators import count, make_batch

from MedXlateCore.errors import UsageError
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset
from MedXlateCore.models.resvit import ResvitConfig, ResvitNetwork

RESVIT = get_method("resvit")
SMALL = {"width": 4, "blocks": 3, "transformer_blocks": (1, 3), "hidden": 16, "layers": 1, "heads": 2, "image_size": 32}


def on_meta(**changes):
    with torch.device("meta"):
        return ResvitNetwork(ResvitConfig(**changes))


@pytest.mark.parametrize(
    ("changes", "parameters"),
    # ResNet-9 has 11,365,633, and batch norms have 5,248 more than the biases that they make needless; ViT-B has 12
    # layers of 12 * 768^2 + 13 * 768 and a last norm; a branch has convolutions 9 * (256 * 512 + 512 * 1024 + 768 * 512
    # + 512 * 256), the embedding 1025 * 768, 256 positions of 768 and norms of 2 * (512 + 1024 + 512 + 256); its
    # compression convolutions 9 * (512 + 256) * 256 + 512 * 256 and norms of 2 * 3 * 256
    [
        ({"inputs": 1, "transformer_blocks": ()}, 11_370_881),
        ({"inputs": 1}, 11_370_881 + 85_056_000 + 2 * 13_507_328),
        ({}, 11_370_881 + 64 * 49 + 85_056_000 + 2 * 13_507_328),
        ({"inputs": 1, "transformer_blocks": (1,)}, 11_370_881 + 85_056_000 + 13_507_328),
    ],
)
def test_it_has_the_number_of_parameters_of_its_parts(changes, parameters):
    assert count(on_meta(**changes)) == parameters


def test_the_transformer_has_the_size_of_vit_b_and_stands_there_once():
    network = on_meta()
    assert count(network.transformer) == 85_056_000  # 12 layers and the last norm
    for n in (0, 5):
        assert count(network.blocks[n].branch) < 20_000_000  # no layers of its own


def test_the_first_and_the_sixth_of_nine_blocks_have_a_transformer_branch():
    assert [n for n, block in enumerate(on_meta().blocks, 1) if block.branch is not None] == [1, 6]
    assert len(on_meta().blocks) == 9


def test_both_branches_train_the_one_transformer():
    torch.manual_seed(0)
    gradients = {}
    for kept in ((1, 3), (1,), (3,)):
        torch.manual_seed(0)
        network = ResvitNetwork(ResvitConfig(**SMALL))
        for n in {1, 3} - set(kept):
            network.blocks[n - 1].branch.requires_grad_(False)
            network.blocks[n - 1].branch.forward = lambda x, transformer: torch.zeros_like(x)
        network(make_batch().images).sum().backward()
        gradients[kept] = network.transformer[0].mlp[0].weight.grad.abs().sum()
    assert all(value > 0 for value in gradients.values())


def test_without_transformer_blocks_it_is_the_network_of_the_first_phase():
    network = ResvitNetwork(ResvitConfig(**(SMALL | {"transformer_blocks": ()})))
    assert not [key for key in network.state_dict() if "transformer" in key or "branch" in key or "compress" in key]
    assert network(make_batch().images).shape == (2, 1, 32, 32)


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (48, 80)])
def test_other_sizes_than_the_trained_one_get_interpolated_positions(size):
    network = ResvitNetwork(ResvitConfig(**SMALL)).eval()
    assert network(make_batch(size=size).images).shape == (2, 1, *size)


def test_with_group_normalisation_the_smallest_image_works_too():
    network = ResvitNetwork(ResvitConfig(**SMALL, norm="group")).eval()
    assert torch.isfinite(network(make_batch(1, (16, 16)).images)).all()


def test_a_normalisation_that_is_not_offered_is_refused():
    with pytest.raises(UsageError, match="MX-MOD-004"):
        ResvitConfig(norm="layer")


def test_positions_matter():
    torch.manual_seed(0)
    network = ResvitNetwork(ResvitConfig(**SMALL)).eval()
    images = make_batch().images
    before = network(images)
    with torch.no_grad():
        network.blocks[0].branch.positions += torch.arange(4.0).reshape(1, 1, 2, 2)
    assert not torch.equal(before, network(images))


def test_a_distant_pixel_reaches_the_output_through_the_transformer_only():
    reached = {}
    for chosen in ((1,), ()):
        torch.manual_seed(0)
        config = ResvitConfig(**(SMALL | {"blocks": 1, "transformer_blocks": chosen, "image_size": 128}))
        network = ResvitNetwork(config).eval()
        images = make_batch(1, (128, 128)).images.requires_grad_(True)
        network(images)[0, 0, 4, 4].backward()
        reached[chosen] = images.grad[..., 100:, 100:].abs().max()
    assert reached[()] == 0
    assert reached[(1,)] > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": 0},
        {"width": 0},
        {"hidden": 10_000_000},
        {"heads": 5},
        {"heads": 0},
        {"layers": 0},
        {"blocks": 0},
        {"transformer_blocks": (0,)},
        {"transformer_blocks": (10,)},
        {"transformer_blocks": (1, 1)},
        {"image_size": 40},
        {"image_size": 0},
    ],
)
def test_a_size_that_cannot_be_is_refused(changes):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        ResvitConfig(**changes)


def test_the_paper_recipe_has_the_published_constants():
    config = get_recipe_preset(RESVIT, "paper")
    assert (config.learning_rate, config.l1_weight, config.adversarial_weight) == (2e-4, 100, 1)
    assert config.adversarial == "least_squares"


def test_the_tiny_preset_has_the_stated_number_of_parameters():
    assert count(RESVIT.build(get_preset(RESVIT, "tiny"))) == 1_737_777


def test_it_takes_slices_of_multiples_of_16():
    assert RESVIT.size_multiple(get_preset(RESVIT, "paper")) == 16
