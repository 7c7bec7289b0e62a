"""Whole heads and their images, at a small size."""

import numpy as np
import pytest

from MedXlateCore.errors import ResourceError, UsageError
from MedXlateCore.phantom.head import MODALITIES, build_subject, phantom_geometry, render_subject
from MedXlateCore.phantom.lesions import CORE, ENHANCING, OEDEMA, LesionKind
from MedXlateCore.phantom.physics import acquisition_for
from MedXlateCore.phantom.tissues import Tissue
from MedXlateCore.volume import Modality

SHAPE = (64, 80, 56)


def has_ring(subject):
    return any(lesion.kind is LesionKind.RING and lesion.radius_mm > 10 for lesion in subject.lesions)


@pytest.fixture(scope="module")
def subject():
    """A head with a ring-enhancing tumour of some size."""
    return next(s for s in (build_subject(n, SHAPE, lesion_count=1) for n in range(3, 40)) if has_ring(s))


@pytest.fixture(scope="module")
def images(subject):
    return {m: v.array for m, v in render_subject(subject).items()}


def mean(image, mask):
    assert mask.sum() >= 8
    return float(image[mask].mean())


def inner(mask):
    """Voxels whose six neighbours carry the same label: no partial volume."""
    from scipy.ndimage import binary_erosion

    eroded = binary_erosion(mask)
    return eroded if eroded.sum() >= 8 else mask


def test_one_seed_gives_the_same_bytes():
    first, second = (build_subject(3, (32, 40, 28)) for _ in range(2))
    assert first.tissues.tobytes() == second.tissues.tobytes()
    assert first.labels.tobytes() == second.labels.tobytes()
    for modality, volume in render_subject(first).items():
        assert volume.array.tobytes() == render_subject(second, [modality])[modality].array.tobytes()


def test_different_seeds_give_different_heads():
    first, second = (build_subject(seed, (32, 40, 28)) for seed in (3, 4))
    assert (first.tissues != second.tissues).mean() > 0.02
    assert first.traits != second.traits


def test_one_seed_gives_the_same_head_at_any_resolution():
    coarse, fine = build_subject(3, (32, 40, 26)), build_subject(3, (64, 80, 52))
    volumes = [np.count_nonzero(s.brain_mask) * s.geometry.voxel_volume_mm3 for s in (coarse, fine)]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.06)
    assert coarse.lesions == fine.lesions


def test_all_images_lie_on_one_grid_and_are_finite_float32(subject):
    volumes = render_subject(subject)
    assert set(volumes) == set(MODALITIES)
    for modality, volume in volumes.items():
        assert volume.modality is modality
        assert volume.array.dtype == np.float32
        assert volume.geometry is subject.geometry
        assert np.isfinite(volume.array).all()
    assert subject.label_volume().geometry is subject.geometry


def test_an_image_does_not_depend_on_which_others_are_rendered(subject, images):
    alone = render_subject(subject, ["FLAIR"])[Modality.FLAIR].array
    np.testing.assert_array_equal(alone, images[Modality.FLAIR])


def test_brain_contrasts_are_those_of_each_modality():
    # a part of the brain at fine spacing, so that the cortex has voxels without partial volume
    part = build_subject(3, (64, 72, 36), (1.2, 1.2, 1.2), lesion=False)
    grey, white, fluid = (
        inner(part.tissues == code) for code in (Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.VENTRICLE)
    )
    orders = {
        Modality.T1: [white, grey, fluid],
        Modality.T2: [fluid, grey, white],
        Modality.FLAIR: [grey, white, fluid],
        Modality.PD: [grey, white],
        Modality.CT: [grey, white, fluid],
        Modality.PET: [grey, white, fluid],
    }
    for modality, volume in render_subject(part, list(orders)).items():
        values = [mean(volume.array, mask) for mask in orders[modality]]
        assert values == sorted(values, reverse=True), (modality, values)


def test_fat_and_bone_look_as_they_do_in_each_modality(subject, images):
    white, fat, bone = (inner(subject.tissues == code) for code in (Tissue.WHITE_MATTER, Tissue.FAT, Tissue.BONE))
    orders = {Modality.T1: [fat, white, bone], Modality.T2: [white, bone], Modality.CT: [bone, white, fat]}
    for modality, order in orders.items():
        values = [mean(images[modality], mask) for mask in order]
        assert values == sorted(values, reverse=True), (modality, values)


def test_units_are_those_of_the_modality(subject, images):
    air = inner(subject.tissues == Tissue.AIR)
    assert mean(images[Modality.CT], air) == pytest.approx(-1000, abs=5)
    assert mean(images[Modality.CT], inner(subject.tissues == Tissue.BONE)) > 700
    assert 5 < mean(images[Modality.PET], subject.tissues == Tissue.PUTAMEN) < 13
    assert 500 < np.percentile(images[Modality.T2], 99.5) < 1500
    assert min(images[m].min() for m in MODALITIES if m.is_mr) >= 0


def test_the_tumour_shows_as_a_tumour_does(subject, images):
    rim, core, oedema = (subject.labels == code for code in (ENHANCING, CORE, OEDEMA))
    white = inner(subject.tissues == Tissue.WHITE_MATTER)
    t1, t1ce = images[Modality.T1], images[Modality.T1CE]
    assert mean(t1ce, rim) / mean(t1ce, white) > 1.15
    assert mean(t1, rim) < mean(t1, white)
    assert mean(t1, core) < mean(t1, white)
    for modality in (Modality.T2, Modality.FLAIR):
        assert mean(images[modality], oedema) > 1.15 * mean(images[modality], white)
    assert mean(images[Modality.PET], rim) > mean(images[Modality.PET], white)


def test_sinuses_and_plexus_enhance(subject, images):
    t1, t1ce = images[Modality.T1], images[Modality.T1CE]
    white = inner(subject.tissues == Tissue.WHITE_MATTER)
    for tissue in (Tissue.VEIN, Tissue.CHOROID_PLEXUS):
        mask = subject.tissues == tissue
        assert mean(t1ce, mask) / mean(t1ce, white) > 1.3 * mean(t1, mask) / mean(t1, white)


def test_hyperintensities_are_bright_in_flair_but_never_enhance():
    subject = next(
        s for s in (build_subject(n, SHAPE, lesion=False) for n in range(40)) if s.hyperintensity_burden > 0.5
    )
    flair, t1, t1ce = (v.array for v in render_subject(subject, ["FLAIR", "T1", "T1ce"]).values())
    spots = subject.tissues == Tissue.HYPERINTENSITY
    white = inner(subject.tissues == Tissue.WHITE_MATTER)
    assert mean(flair, spots) > 1.1 * mean(flair, white)
    assert mean(t1ce, spots) / mean(t1ce, white) == pytest.approx(mean(t1, spots) / mean(t1, white), rel=0.1)
    assert not subject.labels.any()


def test_labels_are_coded_and_lie_inside_the_brain(subject):
    assert subject.labels.dtype == np.uint8
    assert set(np.unique(subject.labels)) <= {0, CORE, OEDEMA, ENHANCING}
    assert {CORE, OEDEMA, ENHANCING} <= set(np.unique(subject.labels))
    assert subject.brain_mask[subject.labels > 0].all()
    outside = np.isin(subject.tissues, [Tissue.BONE, Tissue.SKIN, Tissue.FAT, Tissue.AIR, Tissue.VENTRICLE])
    assert not (outside & (subject.labels > 0)).any()


def test_tumour_labels_agree_with_the_tissues(subject):
    assert set(np.unique(subject.tissues[subject.labels == ENHANCING])) == {Tissue.ENHANCING_RIM}
    assert set(np.unique(subject.tissues[subject.labels == CORE])) <= {Tissue.NECROTIC_CORE, Tissue.SOLID_TUMOUR}


def test_a_head_without_lesion_has_no_labels():
    assert not build_subject(2, (32, 40, 28), lesion=False).labels.any()
    assert build_subject(2, (32, 40, 28), lesion_count=0).lesions == ()


def test_every_tissue_of_the_head_appears(subject):
    whole = build_subject(subject.seed, (96, 120, 84), lesion_count=1)
    missing = set(Tissue) - {Tissue(int(code)) for code in np.unique(whole.tissues)}
    assert missing <= {Tissue.HYPERINTENSITY, Tissue.SOLID_TUMOUR, Tissue.OPTIC_NERVE, Tissue.CALCIFICATION}


def test_brain_volumes_are_human():
    for seed in range(5):
        head = build_subject(seed, (40, 50, 36), lesion=False)
        litres = np.count_nonzero(head.brain_mask) * head.geometry.voxel_volume_mm3 / 1e6
        assert 0.95 < litres < 1.75


def test_the_cortex_is_folded(subject):
    """Sulci reach in: much fluid and grey matter lie more than 6 mm under the hull of the cerebrum."""
    from scipy.ndimage import binary_closing, binary_erosion

    brain = subject.brain_mask
    hull = binary_closing(np.pad(brain, 8), iterations=5)[8:-8, 8:-8, 8:-8]
    deep = binary_erosion(hull, iterations=3)
    cerebral = np.isin(subject.tissues, [Tissue.GREY_MATTER, Tissue.CSF]) & deep
    assert cerebral.sum() / deep.sum() > 0.12


def test_acquisition_settings_change_the_image(subject):
    scan = acquisition_for(Modality.T2, fat_suppressed=True)
    plain, suppressed = (render_subject(subject, ["T2"], a)[Modality.T2].array for a in (None, {Modality.T2: scan}))
    fat = inner(subject.tissues == Tissue.FAT)
    white = inner(subject.tissues == Tissue.WHITE_MATTER)
    assert mean(suppressed, fat) < 0.4 * mean(plain, fat)
    assert mean(suppressed, white) == pytest.approx(mean(plain, white), rel=0.02)


def test_brain_only_clears_everything_outside(subject):
    mask = subject.skull_strip_mask
    for modality in (Modality.T1, Modality.CT):
        array = render_subject(subject, [modality], brain_only=True)[modality].array
        assert (array[~mask] == modality.air_value).all()
    assert mask[subject.labels > 0].all()
    assert not mask[subject.tissues == Tissue.BONE].any()


def test_the_grid_runs_left_posterior_superior():
    affine = phantom_geometry().affine_ras
    assert (np.sign(np.diag(affine)[:3]) == [-1, -1, 1]).all()
    assert phantom_geometry().shape == (128, 160, 104)


def test_spacing_alone_and_shape_alone_hold_the_head():
    assert phantom_geometry(None, (2.0, 2.0, 2.0)).shape == (96, 120, 91)
    assert phantom_geometry((96, 120, 91)).spacing_mm == pytest.approx((2.0, 2.0, 2.0))


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((4, 80, 50), None),
        ((80, 80), None),
        (None, (0.0, 1.0, 1.0)),
        (None, (1.0, 1.0)),
        (None, (1.0, float("nan"), 1.0)),
        (None, (1.0, 1e-320, 1.0)),
        ((64, 64, 64), (1.0, 99.0, 1.0)),
    ],
)
def test_impossible_grids_are_refused(shape, spacing):
    with pytest.raises(UsageError, match="MX-USE-182"):
        phantom_geometry(shape, spacing)


def test_a_grid_too_large_for_memory_is_refused():
    with pytest.raises(ResourceError, match="MX-RES-180"):
        build_subject(0, (2000, 2000, 2000))


def test_a_grid_that_sees_no_head_still_renders():
    subject = build_subject(0, (8, 8, 8), (1.0, 1.0, 1.0))
    assert np.isfinite(render_subject(subject, ["T1"])[Modality.T1].array).all()


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"seed": 0, "lesion_count": 4}])
def test_impossible_subjects_are_refused(arguments):
    with pytest.raises(UsageError, match="MX-USE-183"):
        build_subject(**arguments)


def test_a_label_map_is_no_modality_to_render(subject):
    with pytest.raises(UsageError, match="MX-USE-180"):
        render_subject(subject, ["seg"])


def test_importing_the_phantom_does_not_import_torch():
    import subprocess
    import sys

    code = "import sys, MedXlateCore.phantom; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
