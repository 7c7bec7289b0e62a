"""Preprocessed cases on disk, memory-mapped: a case is prepared once, by the functions that translation uses.

An entry is three files named by a key: ``KEY.images.npy`` [K, S + 1, H, W] (sources, then the target, in [-1, 1]),
``KEY.masks.npy`` [K, 3, H, W] (oedema, core, foreground; 0 or 1) and ``KEY.json``, written last, without which there is
no entry. The key is the SHA-256 of the source files' hashes and of all settings that decide the voxels, so an
entry is never out of date; whatever changes leads to another one. Several processes may share a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
from MedXlateCore.volume import Geometry, Modality, Volume

__all__ = ["PreparedCase", "content_hash", "open_case"]

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
    facts = _facts(folder, key)
    if facts is None:
        with path_lock(folder / f"{key}.json", timeout_s=_LOCK_TIMEOUT_S):
            facts = _facts(folder, key)
            if facts is None:
                facts = _prepare_and_store(row, config, folder, key)
    n_slices, n_channels, height, width = facts["shape"]
    return PreparedCase(
        row=row,
        key=key,
        paths=_array_paths(folder, key),
        shape=(n_slices, n_channels, height, width),
        fitted={name: FittedNormaliser.from_dict(fit) for name, fit in facts["fitted"].items()},
        slices=tuple(facts["slices"]),
        grid=Geometry(tuple(facts["plan"]["grid"]["shape"]), np.array(facts["plan"]["grid"]["affine_ras"])),
        image_sha256=hashes[config.data.sources[0]],
        warnings=tuple(Warned(**warning) for warning in facts["warnings"]),
        direction=direction,
    )


def content_hash(path: Path, modality: Modality | str | None = None) -> str:
    """Return the hash of a volume's bytes, all its files included; ``modality`` chooses in a DICOM folder."""
    return source_sha256(path, modality)


def _key(hashes: Mapping[str, str], config: TrainingConfig) -> str:
    settings = {
        "format": CACHE_FORMAT,
        "version": __version__,
        "files": dict(hashes),
        "sources": config.data.sources,
        "grid": config.grid.to_dict(),
        "normalisers": {name: config.intensity[name] for name in config.modalities},
        "labels": config.data.labels,
        "ignored_labels": config.data.ignored_labels,
        "dtype": config.data.cache_dtype,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:40]


def _array_paths(folder: Path, key: str) -> tuple[Path, Path]:
    return folder / f"{key}.images.npy", folder / f"{key}.masks.npy"


def _facts(folder: Path, key: str) -> dict[str, Any] | None:
    """Return what the entry's JSON says, or None where there is no whole entry."""
    try:
        facts = read_json(folder / f"{key}.json")
        sizes = [path.stat().st_size for path in _array_paths(folder, key)]
    except (InputError, OSError):
        return None
    whole = isinstance(facts, dict) and facts.get("format") == CACHE_FORMAT and facts.get("bytes") == sizes
    return facts if whole else None


def _prepare_and_store(row: CaseRow, config: TrainingConfig, folder: Path, key: str) -> dict[str, Any]:
    try:
        images, masks, facts = _prepare(row, config)
    except MedXlateError as error:
        error.where = f"case '{row.case}'" + (f", {error.where}" if error.where else "")
        raise
    paths = _array_paths(folder, key)
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
    if row.regions:
        regions = read_volume(row.regions, Modality.LABEL)
        ignored = {"ignored": config.data.ignored_labels} if config.data.ignored_labels else {}
        known = {**config.data.labels, **ignored}
        warnings += [*regions.notes, *check_roi(regions, sources[0], known)]
        for channel, region in enumerate(
            regions_from_labels(prepared.plan.labels_to_model(regions), config.data.labels)
        ):
            masks[:, channel] = slice_stack(region)
    fitted = dict(zip(config.modalities, (*prepared.fitted, fit), strict=True))
    facts = {
        "shape": list(images.shape),
        "slices": prepared.occupied_slices,
        "fitted": {name: fit.to_dict() for name, fit in fitted.items()},
        "plan": prepared.plan.describe(),
        "warnings": [warning.as_dict() for warning in dict.fromkeys([*warnings, *prepared.warnings])],
    }
    return images.astype(config.data.cache_dtype), masks, facts


def _read(row: CaseRow) -> tuple[dict[str, Volume], list[Warned]]:
    volumes: dict[str, Volume] = {}
    warnings: list[Warned] = []
    for name, path in row.images.items():
        volume = read_volume(path, name)
        volumes[name], found = checked(volume)
        warnings += [*volume.notes, *found]
    return volumes, warnings
