"""Preprocessed cases on disk, memory-mapped: a case is prepared once, by the functions that translation uses.

An entry is three files named by a key: ``KEY.images.npy`` [K, S + 1, H, W] (sources, then the target, in [-1, 1]),
``KEY.masks.npy`` [K, 3, H, W] (oedema, core, foreground; 0 or 1) and ``KEY.json``, written last, without which there is
no entry. The key is the SHA-256 of the source files' hashes and of all settings that decide the voxels, so an
entry is never out of date; whatever changes leads to another one. Several processes may share a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedXlateCore import __version__
from MedXlateCore.checks import check_roi, check_sources, checked
from MedXlateCore.errors import InputError, MedXlateError, Warned
from MedXlateCore.files import atomic_write, check_writable, path_lock, read_json, write_json
from MedXlateCore.inference.prepare import normalise, prepare_sources, slice_stack
from MedXlateCore.io import read_volume, source_sha256
from MedXlateCore.prompts.roi import regions_from_labels
from MedXlateCore.training.config import TrainingConfig
from MedXlateCore.training.table import CaseRow
from MedXlateCore.transforms.intensity import FittedNormaliser
from MedXlateCore.transforms.spatial import SpatialPlan
from MedXlateCore.volume import Geometry, Modality, Volume

__all__ = ["PreparedCase", "array_paths", "content_hash", "fill_regions", "open_case", "settings_key", "stored_entry"]

CACHE_FORMAT = 1
_LOCK_TIMEOUT_S = 3600.0  # another process may be preparing the same case


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case ready for training; arrays are memory-mapped and read-only, and opened when they are asked for.

    Attributes:
        row: the case's row in the table.
        key: its name in the cache; changes with the case's content and with the settings.
        paths: files of the images and of the masks.
        shape: of the images, [K, S + 1, H, W].
        fitted: fitted normaliser by modality.
        slices: positions of the slices that show anything.
        grid: the model grid.
        image_sha256: hash of the first source's file.
        warnings: what was noticed while preparing.
        direction: position of the direction of translation among those of the run; a case has an entry for each.
    """

    row: CaseRow
    key: str
    paths: tuple[Path, Path]
    shape: tuple[int, int, int, int]
    fitted: dict[str, FittedNormaliser]
    slices: tuple[int, ...]
    grid: Geometry
    image_sha256: str
    warnings: tuple[Warned, ...]
    direction: int = 0

    @property
    def images(self) -> NDArray[np.floating]:
        """Sources in channel order, then the target, [K, S + 1, H, W] in [-1, 1]."""
        return _mapped(self.paths[0])

    @property
    def masks(self) -> NDArray[np.uint8]:
        """Oedema, core and foreground, [K, 3, H, W], uint8, 0 or 1."""
        return _mapped(self.paths[1])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its slices."""
        return self.shape[2], self.shape[3]


def _mapped(path: Path) -> NDArray:
    """Map a file into memory, for as long as the array is used.

    Maps are not kept: their pages count as the process's memory, which would grow with the number of cases, and each
    holds a file open. Mapping anew takes a tenth of a millisecond; the system's file cache keeps what is read often.
    """
    return np.load(path, mmap_mode="r", allow_pickle=False)


def open_case(row: CaseRow, config: TrainingConfig, folder: Path, direction: int = 0) -> PreparedCase:
    """Return a prepared case, from the cache where it is there, else after preparing and storing it.

    Args:
        row: the case.
        config: the run's configuration with one direction only (``TrainingConfig.towards``).
        folder: of the cache.
        direction: position of that direction among those of the run.

    Raises:
        InputError: from reading, checking or normalising a volume; the message names the case.
        ResourceError: ``MX-FIL-013`` (no room in the cache's folder), ``MX-FIL-015`` (another process holds the entry).
    """
    hashes = {name: content_hash(path, name) for name, path in row.images.items()}
    hashes["regions"] = content_hash(row.regions, Modality.LABEL) if row.regions else ""
    key = _key(hashes, config)
    facts = stored_entry(folder, key, row.case, lambda: _prepare(row, config))
    n_slices, n_channels, height, width = facts["shape"]
    return PreparedCase(
        row=row,
        key=key,
        paths=array_paths(folder, key),
        shape=(n_slices, n_channels, height, width),
        fitted={name: FittedNormaliser.from_dict(fit) for name, fit in facts["fitted"].items()},
        slices=tuple(facts["slices"]),
        grid=Geometry(tuple(facts["plan"]["grid"]["shape"]), np.array(facts["plan"]["grid"]["affine_ras"])),
        image_sha256=hashes[config.data.sources[0]],
        warnings=tuple(Warned(**warning) for warning in facts["warnings"]),
        direction=direction,
    )


def stored_entry(
    folder: Path, key: str, case: str, prepare: Callable[[], tuple[NDArray, NDArray[np.uint8], dict[str, Any]]]
) -> dict[str, Any]:
    """Return the facts of an entry, after preparing and storing it where it is not there.

    Args:
        folder: of the cache.
        key: name of the entry.
        case: whose entry it is, for messages.
        prepare: returns images, masks and facts.

    Raises:
        ResourceError: ``MX-FIL-013`` (no room in the cache's folder), ``MX-FIL-015`` (another process holds the entry).
    """
    facts = _facts(folder, key)
    if facts is None:
        with path_lock(folder / f"{key}.json", timeout_s=_LOCK_TIMEOUT_S):
            facts = _facts(folder, key)
            if facts is None:
                facts = _prepare_and_store(case, folder, key, prepare)
    return facts


def content_hash(path: Path, modality: Modality | str | None = None) -> str:
    """Return the hash of a volume's bytes, all its files included; ``modality`` chooses in a DICOM folder."""
    return source_sha256(path, modality)


def _key(hashes: Mapping[str, str], config: TrainingConfig) -> str:
    normalisers = {name: config.intensity[name] for name in config.modalities}
    return settings_key(hashes, config, {"sources": config.data.sources, "normalisers": normalisers})


def settings_key(hashes: Mapping[str, str], config: TrainingConfig, own: Mapping[str, Any]) -> str:
    """Return an entry's name: a hash of its files and of all settings that decide its voxels.

    Args:
        hashes: of the files, by role.
        config: the run's configuration.
        own: what the kind of entry adds.
    """
    settings = {
        "format": CACHE_FORMAT,
        "version": __version__,
        "files": dict(hashes),
        **own,
        "grid": config.grid.to_dict(),
        "labels": config.data.labels,
        "ignored_labels": config.data.ignored_labels,
        "dtype": config.data.cache_dtype,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:40]


def array_paths(folder: Path, key: str) -> tuple[Path, Path]:
    """Return where an entry's images and masks are."""
    return folder / f"{key}.images.npy", folder / f"{key}.masks.npy"


def _facts(folder: Path, key: str) -> dict[str, Any] | None:
    """Return what the entry's JSON says, or None where there is no whole entry."""
    try:
        facts = read_json(folder / f"{key}.json")
        sizes = [path.stat().st_size for path in array_paths(folder, key)]
    except (InputError, OSError):
        return None
    whole = isinstance(facts, dict) and facts.get("format") == CACHE_FORMAT and facts.get("bytes") == sizes
    return facts if whole else None


def _prepare_and_store(
    case: str, folder: Path, key: str, prepare: Callable[[], tuple[NDArray, NDArray[np.uint8], dict[str, Any]]]
) -> dict[str, Any]:
    try:
        images, masks, facts = prepare()
    except MedXlateError as error:
        error.where = f"case '{case}'" + (f", {error.where}" if error.where else "")
        raise
    paths = array_paths(folder, key)
    check_writable(paths[0], needed_bytes=images.nbytes + masks.nbytes)
    for path, array in zip(paths, (images, masks), strict=True):
        with atomic_write(path) as temporary:
            np.save(temporary, array, allow_pickle=False)
    facts = {"format": CACHE_FORMAT, "bytes": [path.stat().st_size for path in paths], **facts}
    write_json(folder / f"{key}.json", facts)
    return facts


def _prepare(row: CaseRow, config: TrainingConfig) -> tuple[NDArray, NDArray[np.uint8], dict[str, Any]]:
    """Return images [K, S + 1, H, W], masks [K, 3, H, W] and facts of a case, by the steps of translation."""
    volumes, warnings = _read(row)
    sources, target = [volumes[name] for name in config.data.sources], volumes[config.data.target]
    paired = [*sources, target]  # a target elsewhere, or a copy of a source, is a fault of the table
    warnings += check_sources(paired, [volume.modality for volume in paired])
    prepared = prepare_sources(sources, sources[0].geometry, config.grid, config.intensity)
    values, fit = normalise(prepared.plan.to_model(target), target.modality, config.intensity, where=target.name)
    images = np.concatenate([prepared.images.swapaxes(0, 1), slice_stack(values)[:, None]], axis=1)
    masks = np.zeros((images.shape[0], 3, *images.shape[2:]), dtype=np.uint8)
    masks[:, 2] = prepared.foreground
    warnings += fill_regions(masks, row, config, prepared.plan, sources[0])
    fitted = dict(zip(config.modalities, (*prepared.fitted, fit), strict=True))
    facts = {
        "shape": list(images.shape),
        "slices": prepared.occupied_slices,
        "fitted": {name: fit.to_dict() for name, fit in fitted.items()},
        "plan": prepared.plan.describe(),
        "warnings": [warning.as_dict() for warning in dict.fromkeys([*warnings, *prepared.warnings])],
    }
    return images.astype(config.data.cache_dtype), masks, facts


def fill_regions(
    masks: NDArray[np.uint8], row: CaseRow, config: TrainingConfig, plan: SpatialPlan, reference: Volume
) -> list[Warned]:
    """Write a case's annotated regions into the first channels of its masks [K, C, H, W], if there are any."""
    if not row.regions:
        return []
    regions = read_volume(row.regions, Modality.LABEL)
    ignored = {"ignored": config.data.ignored_labels} if config.data.ignored_labels else {}
    found = [*regions.notes, *check_roi(regions, reference, {**config.data.labels, **ignored})]
    for channel, region in enumerate(regions_from_labels(plan.labels_to_model(regions), config.data.labels)):
        masks[:, channel] = slice_stack(region)
    return found


def _read(row: CaseRow) -> tuple[dict[str, Volume], list[Warned]]:
    volumes: dict[str, Volume] = {}
    warnings: list[Warned] = []
    for name, path in row.images.items():
        volume = read_volume(path, name)
        volumes[name], found = checked(volume)
        warnings += [*volume.notes, *found]
    return volumes, warnings
