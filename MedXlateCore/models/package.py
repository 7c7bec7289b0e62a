"""Model packages: a folder with ``model.json`` (the card) and safetensors weights. Data only: nothing is executed.

Loading checks, in this order: the card; that the registry knows its method and accepts its configuration; that the
weights file is a plain file of a plausible size inside the folder; its SHA-256; its header (architecture hash, names,
shapes and types of all tensors); and that every value is finite. Only then do weights reach a network.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from MedXlateCore.config import read_dataclass
from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.files import (
    atomic_write_bytes,
    atomic_write_text,
    check_writable,
    path_lock,
    read_bytes,
    remove_stale_temporaries,
    require_file,
    shown,
)
from MedXlateCore.models.blocks.init import without_memory
from MedXlateCore.models.card import (
    CARD_FILE,
    WEIGHTS_FILE,
    ModelCard,
    brief,
    card_text,
    inside_package,
    read_card,
    sealed,
    strict_json,
)
from MedXlateCore.models.catalogue import InstalledPackage, find_package, list_packages, user_models_folder
from MedXlateCore.models.method import Method
from MedXlateCore.models.registry import get_method

__all__ = [
    "InstalledPackage",
    "LoadedModel",
    "ModelCard",
    "find_package",
    "list_packages",
    "load_package",
    "read_card",
    "save_package",
    "user_models_folder",
]

HEADER_LIMIT_BYTES = 16 << 20
_LOCK_TIMEOUT_S = 60.0  # another process may be writing the same package
_OUR_WEIGHTS = re.compile(r"model(-[0-9a-f]{12})?\.safetensors")
SPEC_KEY = "spec_sha256"  # the only metadata entry: with several, safetensors writes them in random order
_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64"}
_FLOATS = {"F32", "F16", "BF16"}


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be used.

    Attributes:
        card: its card.
        network: on the CPU, in evaluation mode; forward(images [B, S, H, W] in [-1, 1], roi [B, 1, H, W] of 0, 0.5, 1)
            -> [B, 1, H, W] in [-1, 1]; for one of several directions see :meth:`towards`.
        method: its method.
        config: the method's configuration.
        path: the package's folder.
    """

    card: ModelCard
    network: nn.Module
    method: Method
    config: Any
    path: Path

    @property
    def context_slices(self) -> int:
        """Neighbouring slices of each source that the network sees."""
        return self.method.context_slices(self.config)

    def towards(self, direction: int) -> nn.Module:
        """Return the network for one of the card's directions; it shares all weights with ``network``."""
        return self.method.towards(self.network, self.config, direction)


def save_package(directory: Path | str, card: ModelCard, network: nn.Module, *, overwrite: bool = False) -> ModelCard:
    """Write a package. It appears, or replaces the earlier one, in one moment: with its card, which is written last.

    Args:
        directory: the package's folder; created if needed. Other files in it are left alone.
        card: the card; hashes, the weights' file name and whether the method draws samples are filled in.
        network: the network that the card's method and configuration describe.
        overwrite: replace a package that is already there.

    Returns:
        The complete card.

    Raises:
        UsageError: ``MX-MOD-021``, there is a package already.
        InputError: ``MX-MOD-013`` (the registry refuses the card), ``MX-MOD-018`` (the network is another one than the
            card describes), ``MX-MOD-019`` (weights that are not finite).
        ResourceError: ``MX-FIL-010`` to ``MX-FIL-016``, the folder cannot be written, or another run is writing it.
    """
    folder = Path(directory)
    _refuse_earlier(folder, overwrite)
    architecture = _architecture(card, shown(folder))
    expected = architecture.expected
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
    _check_tensors({key: (_type_name(t), tuple(t.shape)) for key, t in tensors.items()}, expected, "the network")
    _check_finite(tensors, "the network")
    spec = card.architecture_sha256()
    data = safetensors.torch.save(tensors, metadata={SPEC_KEY: spec})
    check_writable(folder / CARD_FILE, needed_bytes=len(data))
    with path_lock(folder / CARD_FILE, _LOCK_TIMEOUT_S):
        _refuse_earlier(folder, overwrite)  # another process may have been faster
        card = replace(card, spec_sha256=spec, draws_samples=architecture.method.draws_samples)
        return _store(folder, card, data)


def _refuse_earlier(folder: Path, overwrite: bool) -> None:
    if (folder / CARD_FILE).exists() and not overwrite:
        raise UsageError(
            "MX-MOD-021",
            "there is a model package already",
            expected="a new folder",
            where=shown(folder),
            fix="choose another folder, or ask to overwrite it",
        )


def _store(folder: Path, card: ModelCard, data: bytes) -> ModelCard:
    """Write weights, then card, then delete earlier weights; return the complete card."""
    remove_stale_temporaries(folder)
    sha256 = hashlib.sha256(data).hexdigest()
    # under another name than the earlier weights, so that at every moment the card finds the weights it was written for
    name = f"model-{sha256[:12]}.safetensors" if (folder / CARD_FILE).exists() else WEIGHTS_FILE
    complete = sealed(replace(card, weights={"file": name, "sha256": sha256}))
    replaced = _weights_of(folder)
    atomic_write_bytes(folder / name, data)
    atomic_write_text(folder / CARD_FILE, card_text(complete))
    for old in replaced - {name}:
        (folder / old).unlink(missing_ok=True)
    return complete


def load_package(package: Path | str, folders: Sequence[Path] | None = None) -> LoadedModel:
    """Load a package by folder or installed name.

    Args:
        package: a folder, or the name of a package in one of the model folders.
        folders: model folders to look names up in; None for those shipped with MedXlate and the user's own.

    Raises:
        InputError: ``MX-MOD-010`` to ``-020`` and ``-022`` (see ``Docs/reference/errors.md``), ``MX-FIL-001`` to
            ``-008``.
    """
    path = find_package(package, folders)
    card = read_card(path)
    architecture = _architecture(card, shown(path))
    method, config = architecture.method, architecture.config
    tensors = _read_weights(path, card, architecture.expected)
    with without_memory():
        network = method.build(config)
    network.load_state_dict(tensors, strict=True, assign=True)
    if any(t.is_meta for t in (*network.parameters(), *network.buffers())):  # buffers that are not part of the weights
        network = method.build(config)
        network.load_state_dict(tensors, strict=True)
    return LoadedModel(card, network.eval(), method, config, path)


def _weights_of(folder: Path) -> set[str]:
    """Return the names of earlier weights: the card's, and those that runs killed before writing a card left."""
    names = {path.name for path in folder.glob("model*.safetensors") if _OUR_WEIGHTS.fullmatch(path.name)}
    try:
        return names | {read_card(folder).weights["file"]}
    except InputError:  # no card, or none that can be read
        return names


@dataclass(frozen=True)
class _Architecture:
    method: Method
    config: Any
    expected: Mapping[str, Tensor]  # on the meta device


def _architecture(card: ModelCard, where: str) -> _Architecture:
    """Return what a card describes, without taking memory for it.

    Raises:
        InputError: ``MX-MOD-013``.
    """
    try:
        method = get_method(card.method)
        config: Any = read_dataclass(method.config_type, card.config, "config")
        with without_memory():
            expected = method.build(config).state_dict()
    except UsageError as error:
        raise _refused_architecture(f"{error.code}, {error.found}", error.expected, where) from error
    sources, taken = len(card.directions_listed()[0].sources) + len(card.optional_sources), method.n_sources(config)
    if sources != taken:
        raise _refused_architecture(f"the card lists {sources} sources", f"{taken}, as its configuration says", where)
    known = tuple(getattr(config, "directions", ()))
    if card.directions and card.directions != known:
        raise _refused_architecture(f"the card lists the directions {', '.join(card.directions)}",
                                    f"{', '.join(known) or 'one'}, as its configuration says", where)  # fmt: skip
    if card.prompts == "region" and not method.uses_regions:
        raise _refused_architecture("the card promises region prompts", f"none, for {card.method} takes none", where)
    return _Architecture(method, config, expected)


def _refused_architecture(found: str, expected: str, where: str) -> InputError:
    return InputError(
        "MX-MOD-013",
        f"the card describes no network that this version can build: {brief(found)}",
        expected=expected,
        where=where,
        fix="get the package again from its source, or update MedXlate",
    )


def _read_weights(folder: Path, card: ModelCard, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    path = inside_package(folder, card.weights["file"])
    most = sum(t.numel() * t.element_size() for t in expected.values()) + HEADER_LIMIT_BYTES
    if (size := require_file(path)) > most:
        raise InputError(
            "MX-MOD-020",
            f"the weights file has {size} bytes",
            expected=f"at most {most} for the architecture that the card describes",
            where=shown(path),
            fix="get the package again from its source",
        )
    data = read_bytes(path, most)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != card.weights["sha256"]:
        raise InputError(
            "MX-MOD-015",
            f"the weights file has the SHA-256 {sha256}",
            expected=f"{card.weights['sha256']}, as the card says",
            where=shown(path),
            fix="the file is damaged or not the card's own; get the package again from its source",
        )
    header = _read_header(data, shown(path))
    _check_spec(header.pop("__metadata__", {}), card, shown(path))
    found = {key: (str(entry["dtype"]), tuple(entry["shape"])) for key, entry in header.items()}
    _check_tensors(found, expected, shown(path))
    tensors = _decode(data, shown(path))
    _check_finite(tensors, shown(path))
    return {key: value.to(expected[key].dtype) for key, value in tensors.items()}


def _read_header(data: bytes, where: str) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(len(data) - 8, HEADER_LIMIT_BYTES):
        raise _not_safetensors(f"its header's length is {length}", where)
    try:
        header = strict_json(data[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise _not_safetensors(brief(str(error)), where) from error
    if not isinstance(header, dict) or not all(_is_entry(k, v) for k, v in header.items()):
        raise _not_safetensors("its header does not list tensors", where)
    return header


def _is_entry(key: str, entry: Any) -> bool:
    if key == "__metadata__":
        return isinstance(entry, dict)
    return isinstance(entry, dict) and {"dtype", "shape"} <= set(entry) and isinstance(entry["shape"], list)


def _check_spec(metadata: Mapping[str, Any], card: ModelCard, where: str) -> None:
    wanted = card.architecture_sha256()
    if card.spec_sha256 != wanted or metadata.get(SPEC_KEY) != wanted:
        raise InputError(
            "MX-MOD-017",
            f"the weights are for architecture {brief(str(metadata.get(SPEC_KEY)))}, the card names {card.spec_sha256}",
            expected=f"{wanted}, the hash of the card's method, configuration, sources, targets and prompts",
            where=where,
            fix="card and weights do not belong together; get the package again from its source",
        )


def _decode(data: bytes, where: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise _not_safetensors(brief(str(error)), where) from error


def _not_safetensors(problem: str, where: str) -> InputError:
    return InputError(
        "MX-MOD-016",
        f"the weights are not a safetensors file ({problem})",
        expected="a complete safetensors file",
        where=where,
        fix="get the package again from its source; checkpoints (.pt, .pth) come in through `medxlate import-weights`",
    )


def _type_name(tensor: Tensor) -> str:
    return _TYPES.get(tensor.dtype, str(tensor.dtype))


def _check_tensors(
    found: Mapping[str, tuple[str, tuple[int, ...]]], expected: Mapping[str, Tensor], where: str
) -> None:
    """Compare names, shapes and types; half-precision floats may stand for floats."""
    problems = [f"{key} is missing" for key in expected if key not in found]
    problems += [f"{key} is not part of the network" for key in found if key not in expected]
    for key, tensor in expected.items():
        if key not in found:
            continue
        kind, shape = found[key]
        wanted = _type_name(tensor)
        if shape != tuple(tensor.shape):
            problems.append(f"{key} has shape {list(shape)} instead of {list(tensor.shape)}")
        elif kind != wanted and not {kind, wanted} <= _FLOATS:
            problems.append(f"{key} has type {kind} instead of {wanted}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(
            "MX-MOD-018",
            f"the weights do not fit the network: {'; '.join(brief(p) for p in problems[:3])}{more}",
            expected=f"the {len(expected)} tensors of the architecture that the card describes",
            where=where,
            fix="card and weights do not belong together; get the package again from its source",
        )


def _check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    bad = [key for key, t in tensors.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if bad:
        raise InputError(
            "MX-MOD-019",
            f"{len(bad)} of {len(tensors)} tensors hold NaN or infinite values, the first is {brief(bad[0])}",
            expected="finite weights",
            where=where,
            fix="the training diverged or the file is damaged; use another checkpoint or package",
        )
