"""Pictures: sides, proportions, colours and outlines are where they belong."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from MedXlateCore.errors import InputError
from MedXlateCore.metrics import pictures
from MedXlateCore.metrics.drawing import Frame
from MedXlateCore.volume import Geometry, Modality, Volume

RAS = np.eye(4)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def marked(affine):
    """A volume that is bright at the patient's right, anterior, superior corner only."""
    array = np.zeros((8, 10, 12), np.float32)
    corner = [0 if affine[axis, axis] < 0 else -1 for axis in range(3)]
    array[tuple(corner)] = 1.0
    return Volume(array, Geometry(array.shape, affine))


@pytest.mark.parametrize("affine", [RAS, LPS, np.diag([1.0, -1.0, -1.0, 1.0])])
@pytest.mark.parametrize("plane, index", [("axial", 11), ("coronal", 0), ("sagittal", 0)])
def test_right_is_left_front_is_up_and_head_is_up(affine, plane, index):
    volume = marked(affine)
    picture = Frame.of(volume.geometry, plane, index, None, 100).slice_of(volume.array)
    assert picture[0, 0] == 1.0  # right or anterior on the left; anterior or superior at the top
    assert picture.sum() == 1.0


def test_display_order_is_lps_and_voxels_keep_their_places():
    volume = marked(RAS)
    shown = pictures.to_display(volume)
    assert (np.diag(shown.geometry.affine_ras)[:3] == (-1, -1, 1)).all()
    index = np.append(np.argwhere(shown.array == 1.0)[0], 1.0)
    np.testing.assert_allclose(shown.geometry.affine_ras @ index, [7, 9, 11, 1])


def test_anisotropic_voxels_are_shown_in_true_proportion():
    geometry = Geometry((20, 30, 10), np.diag([1.0, 1.0, 4.0, 1.0]))
    frame = Frame.of(geometry, "coronal", 5, None, 200)
    width, height = frame.size(frame.slice_of(np.zeros(geometry.shape)))
    assert width / height == pytest.approx(20 / 40, abs=0.01)


def test_the_error_is_signed_and_scaled(head):
    reference, synthetic, _ = head
    error = pictures.difference(reference, synthetic, scale=100.0, factor=2.0, offset=-5.0)
    expected = (synthetic.array * 2 - 5 - reference.array) * 100
    np.testing.assert_allclose(error.array, expected, rtol=1e-4, atol=1e-2)


def panel_pixels(volume, **tile):
    panel = pictures.slice_panel([pictures.Tile("t", volume, **tile)], 0, height=64)
    return np.asarray(panel)[24 : 24 + 64, 8 : 8 + 64]  # below the title, right of the gap


def test_too_bright_is_red_too_dark_is_blue_and_no_error_is_white(volume_of):
    error = volume_of(np.array([[-1.0, -1.0], [1.0, 1.0]]))  # RAS: i grows to the right, shown on the left
    pixels = panel_pixels(error, window=(-1.0, 1.0), colours="difference").astype(int)
    left, right = pixels[8, 4], pixels[8, 58]
    assert left[0] > left[2] + 50
    assert right[2] > right[0] + 50
    none = panel_pixels(volume_of(np.zeros((2, 2))), window=(-1.0, 1.0), colours="difference")
    assert (none[8, 30] >= 240).all()


def test_outside_the_mask_the_error_map_is_neutral(volume_of):
    volume = volume_of(np.ones((2, 2)))
    inside = np.zeros((2, 2, 1), bool)
    pixels = panel_pixels(volume, window=(-1.0, 1.0), colours="difference", inside=inside)
    assert (pixels[8, 30] == 225).all()


def test_an_outline_surrounds_even_one_voxel_without_covering_it(volume_of):
    volume = volume_of(np.full((16, 16), 0.5))
    mask = np.zeros((16, 16, 1), bool)
    mask[8, 8] = True
    colour = pictures.region_colour(0)
    tile = pictures.Tile("t", volume, (0.0, 1.0))
    panel = pictures.slice_panel([tile], 0, outlines=[pictures.Outline("lesion", mask, colour)], height=64)
    pixels = np.asarray(panel)[24:88, 8:72]
    rows, columns = np.nonzero((pixels == colour).all(axis=-1))
    assert rows.size > 8
    centre = pixels[(rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2]
    assert (centre == 127).all()


def test_a_tile_can_be_left_without_outlines(volume_of):
    mask = np.zeros((16, 16, 1), bool)
    mask[4:9, 4:9] = True
    outlines = [pictures.Outline("lesion", mask, pictures.region_colour(0))]
    volume = volume_of(np.full((16, 16), 0.5))
    drawn, plain = (
        np.asarray(pictures.slice_panel([pictures.Tile("t", volume, (0.0, 1.0), outlined=flag)], 0, outlines=outlines))
        for flag in (True, False)
    )
    assert (drawn[24:-26] != plain[24:-26]).any()
    assert not (plain[24:-26] == pictures.region_colour(0)).all(axis=-1).any()


def test_tiles_of_different_grids_are_refused(volume_of):
    tiles = [pictures.Tile("t", volume_of(np.zeros((4, n))), (0.0, 1.0)) for n in (4, 5)]
    with pytest.raises(InputError, match="MX-MET-010"):
        pictures.slice_panel(tiles, 0)


def test_the_lesions_largest_slice_comes_first_then_quartiles_apart_from_it():
    geometry = Geometry((10, 10, 100), LPS)
    foreground = np.ones(geometry.shape, bool)
    lesion = np.zeros(geometry.shape, bool)
    lesion[2, 2, 20:30] = True
    lesion[2:6, 2:6, 26] = True
    assert pictures.slices_of_interest(geometry, foreground, lesion) == [26, 49, 74]
    assert pictures.slices_of_interest(geometry, foreground) == [24, 49, 74]
    assert pictures.slices_of_interest(geometry, np.zeros(geometry.shape, bool)) == [50]


def test_the_crop_keeps_a_margin_in_millimetres_around_the_foreground():
    geometry = Geometry((40, 40, 20), np.diag([-1.0, -2.0, 3.0, 1.0]))
    foreground = np.zeros(geometry.shape, bool)
    foreground[10:20, 10:20, 5:15] = True
    assert pictures.crop_to(geometry, foreground, 6.0) == (slice(4, 26), slice(7, 23), slice(3, 17))
    assert pictures.crop_to(geometry, foreground & False) == (slice(0, 40), slice(0, 40), slice(0, 20))


def test_captions_say_where_a_slice_lies():
    affine = LPS.copy()
    affine[2, 3] = -10.0
    geometry = Geometry((5, 5, 30), affine)
    assert pictures.slice_caption(geometry, 4) == "axial slice 5 of 30, I 6.0 mm"
    assert pictures.slice_caption(geometry, 22) == "axial slice 23 of 30, S 12.0 mm"
    assert pictures.slice_caption(geometry, 3, "coronal") == "coronal slice 4 of 5, P 3.0 mm"


def test_the_grey_scale_follows_the_masked_percentiles_and_ct_starts_no_lower_than_minus_200_hu(volume_of):
    array = np.zeros((10, 10, 10))
    array[2:8, 2:8, 2:8] = np.linspace(100, 200, 216).reshape(6, 6, 6)
    low, high = pictures.display_window(volume_of(array), array > 0)
    assert low == 0.0
    assert 199 < high < 200
    assert pictures.display_window(volume_of(array * 10 - 1000, "CT"))[0] == -200.0
    assert pictures.display_window(volume_of(np.ones((3, 3)))) == (1.0, 2.0)


def test_names_in_other_letters_do_not_break_a_picture(volume_of):
    volume = volume_of(np.zeros((8, 8)))
    panel = pictures.slice_panel([pictures.Tile("Größe − 大脑", volume, (0.0, 1.0))], 0, height=64)
    stacked = pictures.stack_panels([panel, panel], ["Œdème", "β"])
    assert stacked.height == 2 * (panel.height + 24)


def test_a_data_uri_holds_the_png():
    uri = pictures.png_data_uri(Image.new("RGB", (3, 2), "red"))
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (3, 2)


def test_a_difference_has_no_modality_of_its_own(head):
    assert pictures.difference(*head[:2]).modality is Modality.OTHER
