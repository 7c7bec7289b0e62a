"""Slices of a stack in three planes."""

from __future__ import annotations

import numpy as np

from MedXlateCore.transforms.planes import PLANES, middle_part, plane_sizes, plane_slice


def test_slices_have_the_announced_sizes():
    stack = np.zeros((4, 5, 6))
    for plane, size in plane_sizes((4, 5, 6)).items():
        assert plane_slice(stack, plane, 2).shape == size


def test_the_head_is_at_the_top_and_each_plane_cuts_its_own_axis():
    stack = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    assert np.array_equal(plane_slice(stack, "axial", 3), stack[3])
    assert np.array_equal(plane_slice(stack, "coronal", 2), stack[::-1, 2])
    assert np.array_equal(plane_slice(stack, "sagittal", 1), stack[::-1, :, 1])


def test_the_middle_of_the_foreground():
    foreground = np.zeros((30, 20, 20), bool)
    foreground[5:16, 3:14, 10] = True
    parts = {plane: middle_part(foreground, plane) for plane in PLANES}
    assert parts == {"axial": range(7, 14), "coronal": range(5, 12), "sagittal": range(10, 11)}
    assert len(middle_part(np.zeros((4, 4, 4), bool), "axial")) == 0
