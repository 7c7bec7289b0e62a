"""Region prompts: encodings, fuzzy prompt generation on hand-made masks, sham regions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.prompts.roi import (
    DEFAULT_LABELS,
    FuzzyPromptGenerator,
    correlate,
    encode_labels,
    encode_regions,
    fuzzy_kernels,
    regions_from_labels,
    sham_regions,
)

PLUS = 8


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def mask_of(*rows):
    """Return [1, 1, H, W] from rows of '.' and '#'."""
    return torch.tensor([[[[c == "#" for c in row] for row in rows]]]).float()


def one_step(mask, kernel, threshold):
    kernels = fuzzy_kernels(torch.device("cpu"))[kernel].expand(*mask.shape[:2], 3, 3)
    return (correlate(mask, kernels) > threshold).float()


def lesion(n=4, size=(40, 36)):
    regions = torch.zeros(n, 2, *size)
    regions[:, 0, 10:22, 8:18] = 1
    regions[:, 1, 13:18, 11:15] = 1
    return regions


# --- encodings ------------------------------------------------------------------------------------------------------


def test_core_overwrites_oedema():
    labels = np.array([[0, 2, 1, 3, 4, 7]])
    assert encode_labels(labels, DEFAULT_LABELS).tolist() == [[0, 0.5, 1, 1, 1, 0]]
    assert encode_labels(labels, DEFAULT_LABELS, "binary").tolist() == [[0, 1, 1, 1, 1, 0]]
    both = encode_labels(labels, {"oedema": [2, 1], "core": [1]})
    assert both.tolist() == [[0, 0.5, 1, 0, 0, 0]]
    assert both.dtype == np.float32


def test_a_map_with_the_single_label_1_is_one_core_region():
    assert encode_labels(np.array([0, 1, 1]), DEFAULT_LABELS).tolist() == [0, 1, 1]


def test_labels_and_tensors_are_encoded_alike():
    labels = np.random.default_rng(0).integers(0, 5, (6, 5))
    regions = torch.from_numpy(regions_from_labels(labels, DEFAULT_LABELS)).float()
    for encoding in ("two_region", "binary"):
        encoded = encode_regions(regions[None, :1], regions[None, 1:], encoding)[0, 0]
        assert torch.equal(encoded, torch.from_numpy(encode_labels(labels, DEFAULT_LABELS, encoding)))


def test_a_missing_region_is_empty():
    assert regions_from_labels(np.array([1, 2]), {"core": [1]}).tolist() == [[0, 0], [1, 0]]


def test_an_unknown_region_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="MX-ROI-032") as caught:
        regions_from_labels(np.zeros(3), {"edema": [2]})
    assert "oedema" in caught.value.fix


def test_an_unknown_encoding_is_refused():
    with pytest.raises(UsageError, match="MX-ROI-030"):
        encode_labels(np.zeros(3), DEFAULT_LABELS, "ternary")
    with pytest.raises(UsageError, match="MX-ROI-030"):
        FuzzyPromptGenerator(encoding="ternary")


def test_regions_of_different_shapes_are_refused():
    with pytest.raises(InputError, match="MX-ROI-031"):
        encode_regions(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))


# --- kernels on hand-made masks -------------------------------------------------------------------------------------


def test_there_are_eight_pairs_and_a_plus():
    kernels = fuzzy_kernels(torch.device("cpu"))
    assert kernels.shape == (9, 3, 3)
    assert kernels[:, 1, 1].min() == 1
    assert kernels[:8].sum(dim=(1, 2)).tolist() == [2] * 8
    assert len({tuple(k.flatten().tolist()) for k in kernels[:8]}) == 8
    assert kernels[PLUS].tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]


@pytest.mark.parametrize("kernel", range(9))
def test_a_single_pixel_grows_by_the_kernel_and_vanishes_when_eroded(kernel):
    mask = mask_of(".....", ".....", "..#..", ".....", ".....")
    grown = one_step(mask, kernel, 0)
    # cross-correlation: the pixel is seen from where the kernel's element points to it, so the kernel appears mirrored
    assert torch.equal(grown[0, 0, 1:4, 1:4], fuzzy_kernels(torch.device("cpu"))[kernel].flip(0, 1))
    assert one_step(mask, kernel, 1).sum() == 0


def test_a_straight_edge_keeps_its_place_under_the_plus():
    mask = mask_of("......", "......", "######", "######", "######")
    eroded = one_step(mask, PLUS, 1)
    assert torch.equal(eroded[..., 1:-1], mask[..., 1:-1])


def test_a_straight_edge_moves_by_one_under_a_pair():
    mask = mask_of("......", "......", "######", "######", "######", "######")
    up = next(n for n, k in enumerate(fuzzy_kernels(torch.device("cpu"))) if k[0, 1] == 1 and n != PLUS)
    eroded = one_step(mask, up, 1)
    assert torch.equal(eroded, mask_of("......", "......", "......", "######", "######", "######"))


def test_a_concave_corner_fills_under_the_plus():
    mask = mask_of("##....", "##....", "##....", "######", "######")
    eroded = one_step(mask, PLUS, 1)
    assert eroded[0, 0, 2, 2] == 1  # the corner's empty pixel has two neighbours in the mask
    assert eroded[0, 0, 1, 2] == 0


def test_a_convex_corner_stays_under_the_plus():
    mask = mask_of("......", "..####", "..####", "..####", "..####")
    assert one_step(mask, PLUS, 1)[0, 0, 1, 2] == 1


def test_threshold_erosion_by_a_pair_is_exact_erosion():
    mask = (torch.rand(1, 1, 20, 20, generator=rng()) < 0.6).float()
    right = next(n for n, k in enumerate(fuzzy_kernels(torch.device("cpu"))) if k[1, 2] == 1 and n != PLUS)
    shifted = torch.zeros_like(mask)
    shifted[..., :-1] = mask[..., 1:]
    assert torch.equal(one_step(mask, right, 1), mask * shifted)


def test_nothing_comes_in_at_the_border():
    mask = torch.ones(1, 1, 4, 4)
    left = next(n for n, k in enumerate(fuzzy_kernels(torch.device("cpu"))) if k[1, 0] == 1 and n != PLUS)
    assert one_step(mask, left, 1)[0, 0, :, 0].sum() == 0


# --- fuzzy prompt generation ----------------------------------------------------------------------------------------


def test_q_of_one_drops_every_prompt_and_q_of_zero_none():
    regions = lesion(16)
    assert FuzzyPromptGenerator(q=1.0)(regions, rng()).abs().max() == 0
    kept = FuzzyPromptGenerator(q=0.0)(regions, rng())
    assert (kept.flatten(1).amax(1) == 1).all()


def test_about_half_of_the_prompts_are_dropped_at_q_of_a_half():
    prompts = FuzzyPromptGenerator(q=0.5, t_edema=0, t_core=0)(lesion(400), rng())
    kept = (prompts.flatten(1).amax(1) > 0).float().mean().item()
    assert 0.4 < kept < 0.6


def test_without_iterations_the_prompt_is_the_region_as_drawn():
    regions = lesion()
    prompt = FuzzyPromptGenerator(q=0, t_edema=0, t_core=0)(regions, rng())
    assert torch.equal(prompt, encode_regions(regions[:, :1], regions[:, 1:]))
    assert set(prompt.unique().tolist()) == {0.0, 0.5, 1.0}


def test_dilation_never_loses_and_threshold_erosion_by_pairs_never_gains_a_pixel():
    regions = lesion(32)
    grown = FuzzyPromptGenerator(p=1.0, q=0).perturb(regions, rng())
    assert (grown >= regions).all()
    assert grown.sum() > regions.sum()
    shrunk = FuzzyPromptGenerator(p=0.0, q=0).perturb(regions, rng())
    assert (shrunk <= regions).all()  # rectangles have no concave corner that the plus could fill
    assert shrunk.sum() < regions.sum()


def test_growth_is_at_most_one_pixel_an_iteration():
    regions = torch.zeros(64, 2, 31, 31)
    regions[:, :, 15, 15] = 1
    grown = FuzzyPromptGenerator(p=1.0, q=0, t_edema=2, t_core=5).perturb(regions, rng())
    for region, iterations in ((0, 2), (1, 5)):
        rows = grown[:, region].amax(dim=(0, 2)).nonzero()
        assert abs(rows - 15).max() == iterations  # over 64 draws some went all the way, none further


def test_iterations_of_the_oedema_do_not_change_the_core():
    regions = lesion()
    longer, shorter = (FuzzyPromptGenerator(q=0, t_edema=t, t_core=3).perturb(regions, rng(4))[:, 1] for t in (0, 3))
    assert torch.equal(longer, shorter)


def test_samples_are_drawn_one_by_one_or_together():
    regions = lesion(16)
    separate = FuzzyPromptGenerator(q=0)(regions, rng())
    assert len({tuple(p.flatten().tolist()) for p in separate}) > 8
    shared = FuzzyPromptGenerator(q=0, per_sample=False)(regions, rng())
    assert all(torch.equal(shared[0], other) for other in shared)
    dropped = [FuzzyPromptGenerator(per_sample=False)(regions, rng(seed)) for seed in range(20)]
    together = [(p.flatten(1).amax(1) > 0).float().mean().item() for p in dropped]
    assert set(together) == {0.0, 1.0}  # the whole batch or nothing


def test_the_generator_alone_decides():
    regions = lesion(8)
    torch.manual_seed(1)
    first = FuzzyPromptGenerator()(regions, rng(7))
    torch.manual_seed(2)
    assert torch.equal(first, FuzzyPromptGenerator()(regions, rng(7)))
    assert not torch.equal(first, FuzzyPromptGenerator()(regions, rng(8)))


def test_a_binary_prompt_is_the_perturbed_union():
    regions = lesion(8)
    prompt = FuzzyPromptGenerator(q=0, t_core=0, t_edema=0, encoding="binary")(regions, rng())
    assert torch.equal(prompt, regions.amax(dim=1, keepdim=True))
    perturbed = FuzzyPromptGenerator(p=1, q=0, encoding="binary")(regions, rng())
    assert set(perturbed.unique().tolist()) == {0.0, 1.0}
    assert (perturbed >= prompt).all()


def test_an_empty_region_stays_empty():
    assert FuzzyPromptGenerator(q=0, p=1)(torch.zeros(4, 2, 16, 16), rng()).sum() == 0


def test_the_given_regions_are_not_modified():
    regions = lesion()
    before = regions.clone()
    FuzzyPromptGenerator()(regions, rng())
    sham_regions(regions, torch.ones(4, 1, 40, 36), rng(), fill_empty=True)
    assert torch.equal(regions, before)


@pytest.mark.parametrize("changes", [{"p": 1.1}, {"q": -0.1}, {"t_edema": -1}, {"t_core": 101}, {"q": float("nan")}])
def test_impossible_constants_are_refused(changes):
    with pytest.raises(UsageError, match="MX-ROI-033"):
        FuzzyPromptGenerator(**changes)


# --- sham regions ---------------------------------------------------------------------------------------------------


def head(n=4, size=(40, 36)):
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    inside = ((rows - size[0] / 2) / (size[0] / 2 - 2)) ** 2 + ((columns - size[1] / 2) / (size[1] / 2 - 2)) ** 2 <= 1
    return inside.float().expand(n, 1, *size).clone()


@pytest.mark.parametrize("seed", range(5))
def test_a_sham_region_is_of_like_size_in_healthy_tissue(seed):
    regions, foreground = lesion(8) * head(8), head(8)
    sham = sham_regions(regions, foreground, rng(seed))
    true = regions.amax(dim=1, keepdim=True)
    assert (sham.amax(dim=1, keepdim=True) * true).sum() == 0
    assert (sham * (1 - foreground)).sum() == 0
    area, true_area = sham[:, 0].sum(dim=(1, 2)), regions[:, 0].sum(dim=(1, 2))
    assert (area >= 0.9 * true_area).all()
    assert (area <= true_area).all()
    assert (sham[:, 1] <= sham[:, 0]).all()  # the core still lies in the oedema


def test_sham_regions_differ_between_slices_unless_they_belong_to_one_volume():
    regions, foreground = lesion(6), head(6)
    separate = sham_regions(regions, foreground, rng())
    assert len({tuple(s.flatten().tolist()) for s in separate}) > 1
    shared = sham_regions(regions, foreground, rng(), shared=True)
    assert all(torch.equal(shared[0], s) for s in shared)


def test_a_shared_move_keeps_a_lesion_in_one_piece():
    regions = torch.zeros(3, 2, 40, 36)
    for k, size in enumerate((4, 8, 4)):
        regions[k, 0, 10 : 10 + size, 8 : 8 + size] = 1
    sham = sham_regions(regions, torch.ones(3, 1, 40, 36), rng(1), shared=True)
    assert sham[:, 0].sum(dim=(1, 2)).tolist() == regions[:, 0].sum(dim=(1, 2)).tolist()
    assert (sham[0, 0] * sham[1, 0]).sum() > 0


def test_the_generator_alone_decides_where():
    regions, foreground = lesion(), head()
    assert torch.equal(sham_regions(regions, foreground, rng(3)), sham_regions(regions, foreground, rng(3)))


def test_empty_slices_stay_empty_unless_they_are_to_be_filled():
    empty, foreground = torch.zeros(4, 2, 40, 36), head()
    assert sham_regions(empty, foreground, rng()).sum() == 0
    filled = sham_regions(empty, foreground, rng(), fill_empty=True)
    assert (filled.amax(dim=(2, 3)) == 1).all()
    assert (filled[:, 1] <= filled[:, 0]).all()


def test_without_healthy_tissue_there_is_no_sham_region():
    assert sham_regions(lesion(), torch.zeros(4, 1, 40, 36), rng()).sum() == 0


def test_where_no_place_holds_it_all_the_best_place_is_taken():
    regions = torch.zeros(1, 2, 20, 20)
    regions[0, 0, 0:10, 0:10] = 1
    foreground = torch.zeros(1, 1, 20, 20)
    foreground[0, 0, 12:18, 12:18] = 1  # 36 pixels for a region of 100
    sham = sham_regions(regions, foreground, rng())
    assert sham[0, 0].sum() == 36
