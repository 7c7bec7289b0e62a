"""DCLIP: its losses against hand-computed cases, its sizes, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from MedXlateCore.errors import UsageError
from MedXlateCore.models.blocks.init import without_memory
from MedXlateCore.models.dclip import DCLIP_PRESETS, Dclip, DclipConfig, contrastive_loss, tokens_of

# two images and two texts on the axes of a plane: the first pair agrees, the second text is like the first
IMAGES = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
TEXTS = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
E = math.e


def test_the_equation_by_hand():
    positive = torch.eye(2, dtype=torch.bool)
    # texts: logits (1, 0) both, positives 1 and 0; images: logits (1, 1) and (0, 0)
    texts = -math.log(E / (E + 1)) - math.log(1 / (E + 1))
    images = -2 * math.log(1 / 2)
    loss = contrastive_loss(IMAGES, TEXTS, positive, "equation", temperature=1.0)
    assert loss.item() == pytest.approx(texts + images, abs=1e-6)


def test_the_equation_takes_means_over_the_positives_of_an_asymmetric_mask():
    positive = torch.tensor([[True, True], [False, True]])  # the first text also fits the second image
    first_text = -(math.log(E / (E + 1)) + math.log(1 / (E + 1))) / 2
    second_text = -math.log(1 / (E + 1))
    images = -2 * math.log(1 / 2)  # both rows of equal logits, whatever is positive
    loss = contrastive_loss(IMAGES, TEXTS, positive, "equation", temperature=1.0)
    assert loss.item() == pytest.approx(first_text + second_text + images, abs=1e-6)


def test_the_pooled_loss_by_hand():
    # pooled: t1, t2, i1, i2 = x, x, x, y; each sees three others
    two_x = -math.log(E / (2 * E + 1))  # of x: two others at 1, one at 0
    expected = (two_x + -math.log(1 / (2 * E + 1)) + two_x + math.log(3)) / 4
    loss = contrastive_loss(IMAGES, TEXTS, torch.eye(2, dtype=torch.bool), "supcon_pooled", temperature=1.0)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_in_the_pooled_loss_texts_attract_texts_too():
    positive = torch.tensor([[True, True], [False, True]])
    # t1: t2, i1, i2 are positive; t2: i2; i1: t1, t2, i2; i2: t2
    total = math.log(2 * E + 1)
    t1 = -(1 + 1 + 0 - 3 * total) / 3
    t2 = -(0 - total)
    i1 = -(1 + 1 + 0 - 3 * total) / 3
    i2 = math.log(3)
    loss = contrastive_loss(IMAGES, TEXTS, positive, "supcon_pooled", temperature=1.0)
    assert loss.item() == pytest.approx((t1 + t2 + i1 + i2) / 4, abs=1e-6)


@pytest.mark.parametrize("mode", ["equation", "supcon_pooled"])
def test_agreement_lowers_the_loss_and_the_temperature_sharpens_it(mode):
    positive, axes = torch.eye(3, dtype=torch.bool), torch.eye(3)
    good, bad = (contrastive_loss(axes, texts, positive, mode) for texts in (axes, axes.roll(1, 0)))
    assert good < 1e-4 < bad
    assert contrastive_loss(axes, axes, positive, mode, temperature=1.0) > 0.5


def test_the_published_sizes():
    with without_memory():
        network = Dclip(DclipConfig())
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    assert count == {"image": 29_935_584, "text": 123_345_408}


def test_vectors_have_unit_length_and_any_image_size_will_do():
    network = Dclip(DCLIP_PRESETS["tiny"]).eval()
    images = network.image_vectors(torch.rand(2, 1, 40, 52))
    texts = network.text_vectors(network.tokens(["T1-weighted MR image of the brain.", "CT image."]))
    for vectors in (images, texts):
        assert vectors.shape == (2, 32)
        assert (vectors.norm(dim=1) - 1).abs().max() < 1e-6


def test_weights_that_know_other_words_are_refused():
    network = Dclip(DCLIP_PRESETS["tiny"])
    assert torch.equal(network.tokens(["CT image."]), tokens_of(["CT image."], 256))
    network.load_state_dict({**network.state_dict(), "vocabulary_hash": torch.zeros(32, dtype=torch.int64)})
    with pytest.raises(UsageError, match="MX-MOD-100"):
        network.tokens(["CT image."])


@pytest.mark.parametrize(
    "change",
    [{"vocabulary": 10}, {"image_heads": 7}, {"image_depths": (1,)}, {"text_heads": 5}, {"context": 0}, {"vector": 0}],
)
def test_impossible_encoders_are_refused(change):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        DclipConfig(**change)
