"""Dynamic convolutions against a loop over the images, and the blocks made of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from MedXlateCore.errors import InputError
from MedXlateCore.models.blocks.conditioned_gan import ConditionedGan
from MedXlateCore.models.blocks.convnext import bordered
from MedXlateCore.models.blocks.hyper import DynamicConv, HyperBlock, HyperStage


def looped(conv, x, vectors):
    """Convolve each image by itself, with a kernel put together place by place as the equation says."""
    results = []
    for image, vector in zip(x, vectors, strict=True):
        out, inner, size, _ = conv.weight.shape
        rows = conv.rows(vector).view(out, conv.rank)
        columns = conv.columns(vector).view(conv.rank, inner)
        places = conv.places(vector).view(size, size)
        kernel = torch.empty_like(conv.weight)
        for o in range(out):
            for i in range(inner):
                kernel[o, i] = conv.weight[o, i] * (rows[o] * columns[:, i]).sum() * places
        results.append(F.conv2d(bordered(image[None], size // 2), kernel, groups=conv.groups))
    return torch.cat(results)


@pytest.mark.parametrize(
    ("out", "size", "depthwise"), [(6, 7, True), (8, 1, False), (5, 3, False)], ids=["depthwise", "1x1", "3x3"]
)
def test_a_grouped_dynamic_convolution_equals_a_loop(out, size, depthwise):
    torch.manual_seed(0)
    conv = DynamicConv(6, out, size, vector=5, rank=3, depthwise=depthwise)
    x, vectors = torch.randn(3, 6, 8, 9), torch.randn(3, 5)
    expected = looped(conv, x, vectors)
    assert expected.shape == (3, out, 8, 9)
    assert (conv(x, vectors) - expected).abs().max() < 1e-5
    shared = conv(x, vectors[:1])
    assert (shared - looped(conv, x, vectors[:1].expand(3, -1))).abs().max() < 1e-5
    assert (shared[1] - expected[1]).abs().max() > 1e-2  # the vector matters


def test_the_first_kernels_are_the_weights_for_a_vector_of_zeros():
    conv = DynamicConv(4, 4, 3, vector=5, rank=4)
    assert (conv.kernels(torch.zeros(1, 5))[0] - conv.weight).abs().max() < 1e-6


def test_gradients_reach_every_image_s_own_vector():
    conv, vectors = DynamicConv(4, 4, 3, vector=5), torch.randn(3, 5, requires_grad=True)
    conv(torch.randn(3, 4, 6, 6), vectors)[1].sum().backward()
    assert vectors.grad[1].abs().sum() > 0
    assert vectors.grad[[0, 2]].abs().sum() == 0


def test_a_hyper_block_starts_near_the_identity_and_keeps_the_shape():
    torch.manual_seed(0)
    block, x = HyperBlock(8, vector=5), torch.randn(2, 8, 6, 10)
    result = block(x, torch.randn(2, 5))
    assert result.shape == x.shape
    assert 0 < (result - x).abs().max() < 1e-4


def test_attention_stands_between_the_blocks_of_a_stage():
    stage = HyperStage(3, 8, 5, 2, 0.1)
    assert len(stage.attentions) == 2
    far = torch.zeros(1, 8, 40, 4)
    far[:, :, 39, 3] = torch.arange(8.0)
    vectors = torch.randn(1, 5)
    moved = stage(far, vectors) - stage(torch.zeros_like(far), vectors)
    assert moved[:, :, 0, 0].abs().max() > 0  # 39 pixels away: no 7x7 kernels reach that far


def test_the_discriminator_judges_patches_and_knows_the_words():
    judge, images = ConditionedGan((4, 8, 16), 5, 2, 2, 0.1), torch.randn(2, 1, 32, 48)
    vectors = torch.randn(2, 5)
    scores = judge(images, vectors)
    assert scores.shape == (2, 1, 3, 5)
    assert (scores - judge(images, vectors.flip(0))).abs().max() > 1e-6


def test_the_discriminator_refuses_images_that_are_too_small():
    with pytest.raises(InputError, match="MX-MOD-007"):
        ConditionedGan((4, 8, 16), 5)(torch.zeros(1, 1, 12, 32), torch.zeros(1, 5))
