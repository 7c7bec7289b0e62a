"""Training data: prepared cases, the slices they hold, and the order in which training sees them.

Nothing is held in memory: batches are read from memory-mapped arrays. The order is a pure function of the seed and of
the position in the stream, so that a resumed run goes on exactly where it stopped. With several directions of
translation a case has an entry for each, and every batch holds one direction.

All slices of a batch need one size. Where the grid's crop leaves cases with different sizes, slices are padded in the
middle of the largest size of the training cases (images with -1, the background; masks with 0). Validation and
translation never pad: there each case is a stack of its own.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from MedXlateCore.errors import InputError, Warned
from MedXlateCore.files import remove_stale_temporaries
from MedXlateCore.inference.slices import with_neighbours
from MedXlateCore.models.method import Batch
from MedXlateCore.training.cache import PreparedCase, open_case
from MedXlateCore.training.config import TrainingConfig
from MedXlateCore.training.table import CaseRow, check_leakage, read_table
from MedXlateCore.transforms.planes import centred
from MedXlateCore.volume import Modality

__all__ = [
    "Examples",
    "SliceData",
    "TrainingData",
    "fit_to_size",
    "mean_image",
    "named_warning",
    "of_split",
    "output_scale",
    "prepare_all",
    "prepare_data",
    "stream_positions",
]

Float32Array = NDArray[np.float32]
_MEAN_IMAGE_SLICES = 512
Wanted = TypeVar("Wanted")
Case = TypeVar("Case", bound=PreparedCase)


@dataclass(frozen=True)
class TrainingData:
    """All prepared cases of a run.

    Attributes:
        train, val: the cases of these splits, sorted by name.
        warnings: what was left out or noticed.
        scans: for methods that learn from many scans a patient, the training cases with all of theirs; ``train`` and
            ``val`` are then pairs of their scans.
    """

    train: tuple[PreparedCase, ...]
    val: tuple[PreparedCase, ...]
    warnings: tuple[Warned, ...]
    scans: tuple[PreparedCase, ...] = ()

    def fingerprint(self) -> str:
        """Return a hash of the cases' names, splits and content."""
        cases = (*self.scans, *self.train, *self.val)
        lines = [f"{case.row.split} {case.row.case} {case.key}" + f" {case.direction}" * bool(case.direction)
                 for case in cases]  # fmt: skip
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def prepare_data(
    config: TrainingConfig, cache: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> TrainingData:
    """Read the table of cases and prepare, or find in the cache, every training and validation case.

    Args:
        config: the run's configuration.
        cache: folder of prepared cases.
        progress: called with the number of cases done and their total.

    Raises:
        UsageError, InputError: from the table (``MX-DAT-001`` to ``-009``) or from a case; the message names the case.
    """
    wanted: list[tuple[CaseRow, TrainingConfig, int]] = []
    warnings: list[Warned] = []
    for number, direction in enumerate(config.directions):
        single = config.towards(direction)
        table = read_table(single.data)
        val = table.split("val")[: config.training.validation_cases or None]
        wanted += [(row, single, number) for row in (*table.split("train"), *val)]
        warnings += table.warnings

    def prepare(entry: tuple[CaseRow, TrainingConfig, int]) -> PreparedCase:
        """Prepare one case for one direction, or find it in the cache."""
        row, single, number = entry
        return open_case(row, single, cache, number)

    cases = prepare_all(wanted, prepare, config, cache, progress)
    warnings += [named_warning(w, case) for case in cases for w in case.warnings]
    return TrainingData(of_split(cases, "train"), of_split(cases, "val"), tuple(dict.fromkeys(warnings)))


def prepare_all(
    wanted: Sequence[Wanted],
    prepare: Callable[[Wanted], Case],
    config: TrainingConfig,
    cache: Path,
    progress: Callable[[int, int], None],
) -> list[Case]:
    """Prepare cases, some at a time, in the order given, and check that no image is in two splits.

    Args:
        wanted: what stands for each case.
        prepare: makes a case of it, or finds it in the cache.
        config: the run's configuration.
        cache: folder of prepared cases.
        progress: called with the number of cases done and their total.

    Raises:
        InputError: ``MX-DAT-006`` (an image in two splits), or from a case.
    """
    cache.mkdir(parents=True, exist_ok=True)
    remove_stale_temporaries(cache)
    cases: list[Case] = []
    with ThreadPoolExecutor(config.data.workers) as pool:
        try:
            for case in pool.map(prepare, wanted):
                cases.append(case)
                progress(len(cases), len(wanted))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    images = ((case.image_sha256[:16], case.row.split, case.row.case) for case in cases)
    check_leakage(images, "image", Path(config.data.table))
    return cases


def of_split(cases: Iterable[Case], name: str) -> tuple[Case, ...]:
    """Return the cases of one split."""
    return tuple(case for case in cases if case.row.split == name)


def named_warning(warning: Warned, case: PreparedCase) -> Warned:
    """Return a warning that names the case it is about."""
    where = f"case '{case.row.case}'" + (f", {warning.where}" if warning.where else "")
    return Warned(warning.code, warning.found, where, warning.fix)


def used_slices(case: PreparedCase, window: tuple[int, int] | None) -> list[int]:
    """Return the positions of a case's slices that show anything and lie in ``[data] slices``."""
    first, stop = window or (0, case.shape[0])
    return [k for k in case.slices if first <= k < stop]


class Examples(ABC):
    """Training examples by number, and the order in which training sees them: a function of the seed and the step.

    Args:
        directions: each example's direction of translation.
        unpaired: give each source the target of another example, drawn from all of its direction.

    Attributes:
        size: of a batch's images, without batch and channels; smaller ones are padded around the middle.
    """

    size: tuple[int, ...]

    def __init__(self, directions: Sequence[int], unpaired: bool) -> None:
        self._unpaired, self._count = unpaired, len(directions)
        by_direction: dict[int, list[int]] = {}
        for number, direction in enumerate(directions):
            by_direction.setdefault(direction, []).append(number)
        self._by_direction = sorted(by_direction.items())

    def __len__(self) -> int:
        return self._count

    @abstractmethod
    def batch(
        self, numbers: Sequence[int], mirrored: Sequence[bool] | None = None, targets: Sequence[int] | None = None
    ) -> Batch:
        """Read examples of one direction.

        Args:
            numbers: which examples.
            mirrored: for each, whether it is mirrored left-right.
            targets: examples whose targets are used instead of their own (unpaired training).

        Returns:
            A batch on the CPU, all images of the size ``self.size``.
        """

    @property
    def directions(self) -> tuple[int, ...]:
        """Positions of the directions that any example is there for."""
        return tuple(direction for direction, _ in self._by_direction)

    def numbers_of(self, direction: int) -> list[int]:
        """Return the numbers of a direction's examples."""
        return dict(self._by_direction)[direction]

    def at_step(self, step: int, config: TrainingConfig, rank: int = 0, world_size: int = 1) -> Batch:
        """Return the batch of an optimiser step for one of ``world_size`` processes; depends on nothing but these.

        Directions take turns, in an order that is shuffled every round; all processes have the same one.
        """
        size, seed = config.training.batch_size, config.training.seed
        turn = _epoch_order(len(self._by_direction), seed, step // len(self._by_direction))
        own = self._by_direction[turn[step % len(self._by_direction)]][1]
        start = (step // len(self._by_direction) * world_size + rank) * size
        numbers = [own[n] for n in stream_positions(len(own), seed, start, size)]
        draws = np.random.default_rng([seed, step, rank]).random(size)
        mirrored = [bool(draw < 0.5) for draw in draws] if config.training.flip else None
        others = np.random.default_rng([seed, step, rank, 1]).choice(own, size).tolist() if self._unpaired else None
        return self.batch(numbers, mirrored, others)


class SliceData(Examples):
    """The training slices of all cases, numbered in order of cases and positions.

    Args:
        cases: prepared cases, of one direction or more.
        window: first and past-the-last slice to use; None for all.
        context: neighbouring slices of each source that a network sees, an odd number; at the ends of a stack the last
            slice stands for its missing neighbours.
        unpaired: give each source slice the target of another slice, drawn from all cases.

    Raises:
        InputError: ``MX-DAT-011``, no case has a slice that shows anything.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        window: tuple[int, int] | None = None,
        *,
        context: int = 1,
        unpaired: bool = False,
    ) -> None:
        self.cases = tuple(cases)
        self._context = context
        self._index = [(n, k) for n, case in enumerate(self.cases) for k in used_slices(case, window)]
        if not self._index:
            raise InputError(
                "MX-DAT-011",
                f"none of {len(self.cases)} training cases has a slice to train on"
                + (f" within slices {window[0]} to {window[1] - 1}" if window else ""),
                expected="slices with foreground",
                fix="check [data] slices and the volumes",
            )
        self.size = tuple(max(sizes) for sizes in zip(*(case.size for case in self.cases), strict=True))
        super().__init__([self.cases[n].direction for n, _ in self._index], unpaired)

    def batch(
        self, numbers: Sequence[int], mirrored: Sequence[bool] | None = None, targets: Sequence[int] | None = None
    ) -> Batch:
        """Read slices [B, C, H, W] of one direction; see :meth:`Examples.batch`."""
        height, width = self.size
        n_channels = (self.cases[0].shape[1] - 1) * self._context + 1
        images = np.full((len(numbers), n_channels, height, width), -1.0, dtype=np.float32)
        masks = np.zeros((len(numbers), 3, height, width), dtype=np.float32)
        for position, number in enumerate(numbers):
            case, k = self._case(number)
            rows, columns = centred(case.size, self.size)
            images[position, :-1, rows, columns] = with_neighbours(case.images[:, :-1], [k], self._context, axis=0)[0]
            masks[position, :, rows, columns] = case.masks[k]
            case, k = self._case(number if targets is None else targets[position])
            rows, columns = centred(case.size, self.size)
            images[position, -1, rows, columns] = case.images[k, -1]
            if mirrored is not None and mirrored[position]:
                images[position] = images[position, ..., ::-1].copy()
                masks[position] = masks[position, ..., ::-1].copy()
        whole, marks = torch.from_numpy(images), torch.from_numpy(masks)
        direction = self._case(numbers[0])[0].direction
        return Batch(whole[:, :-1], whole[:, -1:], marks[:, :2], marks[:, 2:], direction)

    def _case(self, number: int) -> tuple[PreparedCase, int]:
        """Return the case of a slice, and its position there."""
        n, k = self._index[number]
        return self.cases[n], k


def fit_to_size(image: Float32Array, size: Sequence[int]) -> Float32Array:
    """Cut or pad (with background) the middle of a normalised image [H, W] to a size."""
    common = [max(pair) for pair in zip(image.shape, size, strict=True)]
    padded = np.full(common, -1.0, dtype=np.float32)
    padded[centred(image.shape, common)] = image
    return padded[centred(size, common)]


def stream_positions(n_slices: int, seed: int, start: int, count: int) -> list[int]:
    """Return the slices at positions ``start`` to ``start + count`` of an endless stream of shuffled epochs."""
    return [
        int(_epoch_order(n_slices, seed, position // n_slices)[position % n_slices])
        for position in range(start, start + count)
    ]


@lru_cache(maxsize=4)
def _epoch_order(n_slices: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(n_slices)


def mean_image(data: SliceData, direction: int = 0) -> Float32Array:
    """Return a direction's mean training target [H, W], over at most 512 slices: the baseline that knows no patient."""
    own = data.numbers_of(direction)
    numbers = own[:: max(1, -(-len(own) // _MEAN_IMAGE_SLICES))]
    total = np.zeros(data.size, dtype=np.float64)
    for number in numbers:
        total += data.batch([number]).target[0, 0].numpy()
    return (total / len(numbers)).astype(np.float32)


def output_scale(cases: Sequence[PreparedCase], reference: str, target: str) -> dict[str, Any]:
    """Return how the network's [-1, 1] becomes intensities of the target, for the model card's ``output``.

    CT, CBCT and PET have units: the median fitted limits (``absolute``, in HU or SUV). MR has none: the median limits
    relative to the upper limit of the first source (``relative``), where that is above 0 in all cases.
    """
    fits = [(case.fitted[target], case.fitted[reference].high) for case in cases]
    if Modality.parse(target).unit != "arbitrary" or min(high for _, high in fits) <= 0:
        return {"kind": "absolute", "low": median(f.low for f, _ in fits), "high": median(f.high for f, _ in fits)}
    return {
        "kind": "relative",
        "low": median(fit.low / high for fit, high in fits),
        "high": median(fit.high / high for fit, high in fits),
    }
