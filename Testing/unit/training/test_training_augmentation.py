"""Random changes of slices: all maps alike, drawn from the generator, within a batch of one direction."""

from __future__ import annotations

import pytest
import torch

from MedXlateCore.errors import UsageError
from MedXlateCore.models.method import Batch
from MedXlateCore.training.augmentation import Augmentation

NONE = dict.fromkeys(("flip", "rotate90", "transpose", "rotate", "crop", "mix"), 0.0)


def batch(n=2, height=24, width=24, direction=3):
    image = torch.rand(n, 1, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = (image > 0).float()
    return Batch(image, -image, torch.cat((mask, 1 - mask), 1), mask, direction)


def changed(seed=0, given=None, **settings):
    return Augmentation(**(NONE | settings)).apply(given or batch(), torch.Generator().manual_seed(seed))


def test_nothing_asked_for_changes_nothing():
    given = batch()
    assert changed(given=given) is given


def test_a_flip_is_exact():
    result = changed(flip=1.0)
    assert torch.allclose(result.images, batch().images.flip(3), atol=1e-5)
    assert torch.equal(result.foreground, batch().foreground.flip(3))


def test_a_quarter_turn_is_exact_and_turns_all_maps_alike():
    result = changed(rotate90=1.0)
    for n in range(2):
        turns = [torch.rot90(batch().images[n], k, (1, 2)) for k in (1, 2, 3)]
        errors = [(result.images[n] - turn).abs().max() for turn in turns]
        k = 1 + int(torch.stack(errors).argmin())
        assert min(errors) < 1e-4
        assert torch.allclose(result.target[n], torch.rot90(batch().target[n], k, (1, 2)), atol=1e-4)
        assert torch.equal(result.regions[n], torch.rot90(batch().regions[n], k, (1, 2)))


def test_transposing_exchanges_rows_and_columns():
    assert torch.allclose(changed(transpose=1.0).images, batch().images.transpose(2, 3), atol=1e-5)


def test_a_rotation_keeps_shapes_whatever_the_sides():
    """A disc stays a disc in a slice that is not square."""
    y, x = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(64) - 31.5, indexing="ij")
    disc = ((x**2 + y**2) < 144).float()[None, None] * 2 - 1
    given = Batch(disc, disc, torch.zeros(1, 2, 40, 64), torch.ones(1, 1, 40, 64))
    result = changed(seed=3, given=given, rotate=1.0)
    assert ((result.images > 0) != (disc > 0)).float().mean() < 0.01


def test_outside_is_background():
    given = Batch(*(torch.ones(1, c, 64, 64) for c in (1, 1, 2, 1)))
    result = changed(seed=2, given=given, rotate=1.0, largest_angle=45)
    assert result.images.min() == -1
    assert result.foreground.min() == 0


def test_a_crop_enlarges_and_stays_inside():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 24), indexing="ij")
    given = Batch(x[None, None], y[None, None], torch.zeros(1, 2, 24, 24), torch.ones(1, 1, 24, 24))
    result = changed(seed=1, given=given, crop=1.0, smallest_crop=0.5)
    step = (result.images[0, 0, 0, 13] - result.images[0, 0, 0, 12]) / (2 / 23)
    assert 0.5 <= step < 1
    assert result.foreground.min() == 1


def test_mixing_uses_one_share_for_source_and_target():
    result, given = changed(mix=1.0, mix_alpha=1.0), batch()
    share = ((result.images - given.images.roll(1, 0)) / (given.images - given.images.roll(1, 0))).median()
    assert 0.5 <= share < 1
    for name in ("images", "target"):
        whole = getattr(given, name)
        assert torch.allclose(getattr(result, name), share * whole + (1 - share) * whole.roll(1, 0), atol=1e-4)
    assert result.direction == 3


def test_a_single_slice_cannot_be_mixed():
    given = batch(1)
    assert changed(given=given, mix=1.0) is given


def test_shares_follow_the_beta_distribution():
    draws = torch.Generator().manual_seed(0)
    shares = torch.stack([Augmentation(mix_alpha=0.5)._share(torch.rand(2, 64, generator=draws)) for _ in range(2000)])
    # of |2b - 1| / 2 + 1/2 with b ~ Beta(1/2, 1/2), the arcsine law: mean 1/2 + 1/pi
    assert float(shares.mean()) == pytest.approx(0.5 + 1 / torch.pi, abs=0.01)


def test_the_same_generator_gives_the_same_batch_and_takes_the_same_draws():
    assert torch.equal(changed(4, rotate=1.0, crop=1.0).images, changed(4, rotate=1.0, crop=1.0).images)
    assert not torch.equal(changed(4, rotate=1.0).images, changed(5, rotate=1.0).images)
    ends = []
    for settings in ({}, {"rotate": 1.0}, {"mix": 1.0}):
        generator = torch.Generator().manual_seed(9)
        Augmentation(**(NONE | settings)).apply(batch(), generator)
        ends.append(float(torch.rand((), generator=generator)))
    assert len(set(ends)) == 1


@pytest.mark.parametrize("wrong", [{"flip": 1.5}, {"smallest_crop": 0.0}, {"largest_angle": -1.0}, {"mix_alpha": 0.0}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match="MX-MOD-006"):
        Augmentation(**wrong)
