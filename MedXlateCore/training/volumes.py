"""Whole volumes as training examples, for methods that see all slices at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from MedXlateCore.errors import InputError
from MedXlateCore.models.method import Batch
from MedXlateCore.training.cache import PreparedCase
from MedXlateCore.training.data import Examples, used_slices
from MedXlateCore.transforms.planes import centred

__all__ = ["VolumeData"]


class VolumeData(Examples):
    """The training volumes of all cases, in their order.

    Args:
        cases: prepared cases, of one direction or more.
        window: first and past-the-last slice to use; None for all.
        unpaired: give each source volume the target of another case.

    Raises:
        InputError: ``MX-DAT-011``, no case has a slice that shows anything.
    """

    def __init__(
        self, cases: Sequence[PreparedCase], window: tuple[int, int] | None = None, *, unpaired: bool = False
    ) -> None:
        self.cases = tuple(case for case in cases if used_slices(case, window))
        if not self.cases:
            raise InputError(
                "MX-DAT-011",
                f"none of {len(cases)} training cases has a slice to train on",
                expected="volumes with foreground",
                fix="check [data] slices and the volumes",
            )
        self._windows = [slice(*(window or (0, case.shape[0]))) for case in self.cases]
        shapes = [
            (len(range(case.shape[0])[part]), *case.size) for case, part in zip(self.cases, self._windows, strict=True)
        ]
        self.size = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
        super().__init__([case.direction for case in self.cases], unpaired)

    def batch(
        self, numbers: Sequence[int], mirrored: Sequence[bool] | None = None, targets: Sequence[int] | None = None
    ) -> Batch:
        """Read volumes [B, C, K, H, W] of one direction; see :meth:`Examples.batch`."""
        n_channels = self.cases[0].shape[1]
        images = np.full((len(numbers), n_channels, *self.size), -1.0, dtype=np.float32)
        masks = np.zeros((len(numbers), 3, *self.size), dtype=np.float32)
        for position, number in enumerate(numbers):
            self._place(number, images[position, :-1], slice(0, n_channels - 1), masks[position])
            other = number if targets is None else targets[position]
            self._place(other, images[position, -1:], slice(n_channels - 1, n_channels))
            if mirrored is not None and mirrored[position]:
                images[position] = images[position, ..., ::-1].copy()
                masks[position] = masks[position, ..., ::-1].copy()
        whole, marks = torch.from_numpy(images), torch.from_numpy(masks)
        direction = self.cases[numbers[0]].direction
        return Batch(whole[:, :-1], whole[:, -1:], marks[:, :2], marks[:, 2:], direction)

    def _place(self, number: int, images: np.ndarray, channels: slice, masks: np.ndarray | None = None) -> None:
        """Copy a case's channels, and its masks, into the middle of arrays [C, K, H, W]."""
        case, part = self.cases[number], self._windows[number]
        found = case.images[part, channels].swapaxes(0, 1)
        where = (slice(None), *centred(found.shape[1:], self.size))
        images[where] = found
        if masks is not None:
            masks[where] = case.masks[part].swapaxes(0, 1)
