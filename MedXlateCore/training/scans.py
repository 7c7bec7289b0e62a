"""Training on many scans a patient: prepared cases, their pairs for validation, and the batches of triples.

A case is an entry of the cache with all of its scans on one grid, each in the normalised intensities of its modality.
What training draws (patients, scans, planes, slices, wordings) is a function of the seed and of the step, so that a
resumed run goes on exactly where it stopped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from MedXlateCore.acquisition import Acquisition, Plane
from MedXlateCore.checks import check_together, checked
from MedXlateCore.errors import InputError, Warned
from MedXlateCore.inference.prepare import prepare_sources, slice_stack
from MedXlateCore.io import read_volume
from MedXlateCore.models.dclip import tokens_of
from MedXlateCore.models.eva_i2i import known_domains
from MedXlateCore.models.scan_batch import ScanBatch
from MedXlateCore.prompts.acquisition_text import describe
from MedXlateCore.prompts.compatibility import compatible_pairs
from MedXlateCore.prompts.domains import nearest_domain
from MedXlateCore.training.cache import (
    PreparedCase,
    array_paths,
    content_hash,
    fill_regions,
    settings_key,
    stored_entry,
)
from MedXlateCore.training.config import TrainingConfig
from MedXlateCore.training.data import TrainingData, named_warning, of_split, prepare_all
from MedXlateCore.training.scan_table import ScanRow, domain_of, read_scans
from MedXlateCore.transforms.foreground import foreground_mask
from MedXlateCore.transforms.intensity import FittedNormaliser
from MedXlateCore.transforms.planes import PLANES, centred, middle_part, plane_sizes, plane_slice
from MedXlateCore.volume import Geometry

__all__ = ["Place", "ScanCase", "ScanData", "ScanPair", "open_scans", "prepare_scans", "slice_size"]

_MASKS = 3  # oedema, core, foreground of all; each scan's own foreground follows


@dataclass(frozen=True, eq=False)
class ScanCase(PreparedCase):
    """A case with its scans: images [K, S, H, W], masks [K, 3 + S, H, W] (oedema, core, foreground, each scan's own).

    Attributes:
        facts: of each scan.
        modalities: of each scan, by name.
        fits: fitted normaliser of each scan.
        parts: first and past-the-last slice of the foreground's middle in each of ``planes.PLANES``.
    """

    facts: tuple[Acquisition, ...] = ()
    modalities: tuple[str, ...] = ()
    fits: tuple[FittedNormaliser, ...] = ()
    parts: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, eq=False)
class ScanPair(PreparedCase):
    """Two scans of a case as source and target, looked at like a case of that direction: images [K, 2, H, W].

    Attributes:
        channels: positions of source and target among the case's scans.
        target_facts: facts of the target.
    """

    channels: tuple[int, int] = (0, 1)
    target_facts: Acquisition = field(default_factory=Acquisition)

    @property
    def images(self) -> NDArray[np.floating]:
        """Source and target, [K, 2, H, W] in [-1, 1]."""
        return super().images[:, list(self.channels)]

    @property
    def masks(self) -> NDArray[np.uint8]:
        """Oedema, core and foreground, [K, 3, H, W], uint8, 0 or 1."""
        return super().masks[:, :_MASKS]


def prepare_scans(
    config: TrainingConfig, cache: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> TrainingData:
    """Read the table of scans and prepare, or find in the cache, every training and validation case.

    Args:
        config: the run's configuration.
        cache: folder of prepared cases.
        progress: called with the number of cases done and their total.

    Raises:
        UsageError, InputError: from the table (``scan_table.read_scans``) or from a case; the message names the case.
    """
    table = read_scans(config.data)
    wanted = [*table.split("train"), *table.split("val")[: config.training.validation_cases or None]]
    cases = prepare_all(wanted, lambda row: open_scans(row, config, cache), config, cache, progress)
    warnings = [*table.warnings, *(named_warning(w, case) for case in cases for w in case.warnings)]
    train = of_split(cases, "train")
    names = [str(direction) for direction in config.directions]
    return TrainingData(
        train=tuple(pair for case in train for pair in _every_direction(case, names)),
        val=tuple(pair for case in of_split(cases, "val") for pair in _every_target(case, names)),
        warnings=tuple(dict.fromkeys(warnings)),
        scans=train,
    )


def open_scans(row: ScanRow, config: TrainingConfig, folder: Path) -> ScanCase:
    """Return a prepared case with its scans, from the cache where it is there, else after preparing and storing it.

    Raises:
        InputError: from reading, checking or normalising a volume; the message names the case.
        ResourceError: ``MX-FIL-013`` (no room in the cache's folder), ``MX-FIL-015`` (another process holds the entry).
    """
    hashes = {name: content_hash(path) for name, path in row.images.items()}
    hashes["regions"] = content_hash(row.regions) if row.regions else ""
    normalisers = [config.intensity.get(name) for name in row.modalities]
    own = {"scans": row.modalities, "normalisers": normalisers}
    key = settings_key(hashes, config, own)
    entry = stored_entry(folder, key, row.case, lambda: _prepare(row, config))
    n_slices, n_channels, height, width = entry["shape"]
    grid = entry["plan"]["grid"]
    return ScanCase(
        row=row,
        key=key,
        paths=array_paths(folder, key),
        shape=(n_slices, n_channels, height, width),
        fitted={},
        slices=tuple(entry["slices"]),
        grid=Geometry(tuple(grid["shape"]), np.array(grid["affine_ras"])),
        image_sha256=hashes["0"],
        warnings=tuple(Warned(**warning) for warning in entry["warnings"]),
        facts=row.facts,
        modalities=row.modalities,
        fits=tuple(FittedNormaliser.from_dict(fit) for fit in entry["fits"]),
        parts=tuple((first, stop) for first, stop in entry["parts"]),
    )


def _prepare(row: ScanRow, config: TrainingConfig) -> tuple[NDArray, NDArray[np.uint8], dict[str, Any]]:
    """Return images [K, S, H, W], masks [K, 3 + S, H, W] and facts of a case, by the steps of translation."""
    volumes, warnings = [], []
    for path, name in zip(row.images.values(), row.modalities, strict=True):
        volume = read_volume(path, name)
        sound, found = checked(volume)
        volumes.append(sound)
        warnings += [*volume.notes, *found]
    warnings += check_together(volumes)
    prepared = prepare_sources(volumes, volumes[0].geometry, config.grid, config.intensity)
    images = prepared.images.swapaxes(0, 1)
    masks = np.zeros((images.shape[0], _MASKS + len(volumes), *images.shape[2:]), dtype=np.uint8)
    masks[:, _MASKS - 1] = prepared.foreground
    warnings += fill_regions(masks, row, config, prepared.plan, volumes[0])
    for n, volume in enumerate(volumes):
        masks[:, _MASKS + n] = slice_stack(foreground_mask(prepared.plan.to_model(volume), volume.modality))
    parts = [middle_part(prepared.foreground, plane) for plane in PLANES]
    facts = {
        "shape": list(images.shape),
        "slices": prepared.occupied_slices,
        "fits": [fit.to_dict() for fit in prepared.fitted],
        "parts": [[part.start, part.stop] for part in parts],
        "plan": prepared.plan.describe(),
        "warnings": [warning.as_dict() for warning in dict.fromkeys([*warnings, *prepared.warnings])],
    }
    return images.astype(config.data.cache_dtype), masks, facts


def _every_direction(case: ScanCase, names: Sequence[str]) -> list[ScanPair]:
    """Return a pair for each direction that the case has images of: their first ones."""
    first = {name: case.modalities.index(name) for name in dict.fromkeys(case.modalities)}
    pairs = [(first[one], first[other]) for one in first for other in first if one != other]
    return [pair for channels in pairs if (pair := _pair(case, channels, names))]


def _every_target(case: ScanCase, names: Sequence[str]) -> list[ScanPair]:
    """Return a pair for each scan as target, from the next scan of another modality."""
    pairs = []
    for target in range(len(case.facts)):
        others = [(target + n) % len(case.facts) for n in range(1, len(case.facts))]
        found = [_pair(case, (source, target), names) for source in others]
        pairs += [pair for pair in found if pair][:1]
    return pairs


def _pair(case: ScanCase, channels: tuple[int, int], names: Sequence[str]) -> ScanPair | None:
    """Return two scans as source and target; None where their modalities are no direction of the run."""
    source, target = (case.modalities[n] for n in channels)
    if f"{source}->{target}" not in names:
        return None
    return ScanPair(
        row=case.row,
        key=case.key,
        paths=case.paths,
        shape=(case.shape[0], 2, *case.size),
        fitted={source: case.fits[channels[0]], target: case.fits[channels[1]]},
        slices=case.slices,
        grid=case.grid,
        image_sha256=case.image_sha256,
        warnings=(),
        direction=names.index(f"{source}->{target}"),
        channels=channels,
        target_facts=case.facts[channels[1]],
    )


def slice_size(cases: Sequence[PreparedCase], multiple: int) -> tuple[int, ...]:
    """Return height and width that the slices of all cases and planes have room in, multiples of a number."""
    sizes = [size for case in cases for size in plane_sizes((case.shape[0], *case.size)).values()]
    return tuple(-(-max(side) // multiple) * multiple for side in zip(*sizes, strict=True))


@dataclass(frozen=True)
class Place:
    """A slice of one scan: case, scan, plane and position."""

    case: int
    scan: int
    plane: Plane
    index: int


class ScanData:
    """Triples of slices of all training cases, see ``ScanBatch``.

    For each of a batch's examples a patient, a plane and a place in the middle of it are drawn, two of the patient's
    scans as source and target, and as intermediate any scan of any patient of the same organ in the same plane. All
    slices are padded, in their middle, to the largest slice of any plane and case, up to the network's multiple.

    Args:
        cases: prepared cases, each with two scans or more.
        config: the run's configuration.
        multiple: number that height and width must be a multiple of.

    Attributes:
        size: height and width of the slices.

    Raises:
        InputError: ``MX-DAT-011``, no case has a slice that shows anything.
    """

    def __init__(self, cases: Sequence[ScanCase], config: TrainingConfig, multiple: int) -> None:
        self.cases = tuple(case for case in cases if all(first < stop for first, stop in case.parts))
        if not self.cases:
            raise InputError(
                "MX-DAT-011",
                f"none of {len(cases)} training cases has a slice to train on",
                expected="slices with foreground",
                fix="check the volumes",
            )
        self.size = slice_size(self.cases, multiple)
        architecture = config.architecture()
        self._known = known_domains(architecture)
        self._numbers = {name: n for n, name in enumerate(self._known)}
        self._atlases: dict[str | None, str] = {}
        self._context = architecture.dclip.context
        self._dropout = config.recipe_config().prompt_dropout

    def __len__(self) -> int:
        return sum(stop - first for case in self.cases for first, stop in case.parts) * 2

    def at_step(self, step: int, config: TrainingConfig, rank: int = 0, world_size: int = 1) -> ScanBatch:
        """Return the batch of an optimiser step for one of ``world_size`` processes; depends on nothing but these."""
        rng = np.random.default_rng([config.training.seed, step, rank, world_size, 2])
        triples = [self._triple(case, rng) for case in self._drawn(config.training.batch_size, rng)]
        mirrored = [config.training.flip and bool(draw < 0.5) for draw in rng.random(len(triples))]
        places = [place for position in zip(*triples, strict=True) for place in position]
        return self.batch(places, mirrored * 3, random.Random(int(rng.integers(2**62))))

    def batch(self, places: Sequence[Place], mirrored: Sequence[bool], rng: random.Random) -> ScanBatch:
        """Read slices.

        Args:
            places: all sources, then all targets, then all intermediates.
            mirrored: for each, whether it is mirrored left-right (sagittal slices never are).
            rng: draws the sentences.
        """
        images = np.full((len(places), 1, *self.size), -1.0, dtype=np.float32)
        masks = np.zeros((len(places), 1, *self.size), dtype=np.float32)
        mapped = {n: (self.cases[n].images, self.cases[n].masks) for n in {place.case for place in places}}
        for n, (place, mirror) in enumerate(zip(places, mirrored, strict=True)):
            stack, inside = mapped[place.case]
            found = plane_slice(stack[:, place.scan], place.plane, place.index)
            where = centred(found.shape, self.size)
            images[n, 0][where] = found
            masks[n, 0][where] = plane_slice(inside[:, _MASKS + place.scan], place.plane, place.index)
            if mirror and place.plane != "sagittal":
                images[n], masks[n] = images[n, ..., ::-1].copy(), masks[n, ..., ::-1].copy()
        facts = [self.cases[place.case].facts[place.scan].with_facts(plane=place.plane) for place in places]
        return self._told(images, masks, facts, rng)

    def _told(self, images: NDArray, masks: NDArray, facts: list[Acquisition], rng: random.Random) -> ScanBatch:
        """Put slices and what is said of them together."""
        count = len(facts) // 3
        sources = facts[:count]
        texts = [describe(fact, rng=rng, optional="some", detail="varied", dropout=self._dropout) for fact in facts]
        domains = [self._domain(fact) for fact in facts] + [self._atlas(fact) for fact in sources]
        atlases = [
            describe(self._known[name], optional="none", plane=fact.plane)
            for name, fact in zip(domains[len(facts) :], sources, strict=True)
        ]
        tokens = tokens_of([*texts, *atlases], self._context)
        return ScanBatch(
            images=torch.from_numpy(images).unflatten(0, (3, count)),
            foregrounds=torch.from_numpy(masks).unflatten(0, (3, count)),
            tokens=tokens.view(4, count, -1),
            domains=torch.tensor([self._numbers[name] for name in domains]).view(4, count),
            positive=torch.from_numpy(compatible_pairs(texts, facts)),
        )

    def _domain(self, facts: Acquisition) -> str:
        name = domain_of(facts)
        return name if name in self._known else nearest_domain(facts, self._known).name

    def _atlas(self, facts: Acquisition) -> str:
        """Return the domain nearest to a plain T1-weighted image of the organ."""
        if facts.organ not in self._atlases:
            plain = Acquisition(modality="MR", sequence="T1", organ=facts.organ, contrast_agent=False)
            self._atlases[facts.organ] = nearest_domain(plain, self._known).name
        return self._atlases[facts.organ]

    def _drawn(self, count: int, rng: np.random.Generator) -> list[int]:
        """Return the patients of a batch: none twice before all had their turn."""
        rounds = -(-count // len(self.cases))
        return np.concatenate([rng.permutation(len(self.cases)) for _ in range(rounds)])[:count].tolist()

    def _triple(self, number: int, rng: np.random.Generator) -> tuple[Place, Place, Place]:
        case, n_plane = self.cases[number], int(rng.integers(len(PLANES)))
        plane = PLANES[n_plane]
        index = int(rng.integers(*case.parts[n_plane]))
        source, target = rng.permutation(len(case.facts))[:2].tolist()
        organ = case.facts[source].organ
        alike = [
            (n, scan)
            for n, other in enumerate(self.cases)
            for scan, facts in enumerate(other.facts)
            if facts.organ == organ
        ]
        n, scan = alike[int(rng.integers(len(alike)))]
        elsewhere = int(rng.integers(*self.cases[n].parts[n_plane]))
        return (
            Place(number, source, plane, index),
            Place(number, target, plane, index),
            Place(n, scan, plane, elsewhere),
        )
