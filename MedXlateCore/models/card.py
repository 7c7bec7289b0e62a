"""The model card, ``model.json``: what a model is, what it accepts, what it was trained on and what it is not for.

A card is data. It is read with limits on size, depth and text before anything looks at it; it names its architecture
from the registry and never a class, a path or an expression. Reading cards needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from MedXlateCore.config import read_dataclass, to_mapping
from MedXlateCore.directions import Direction, choose_direction, modalities_of, parse_direction
from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.files import json_text, read_bytes, shown
from MedXlateCore.transforms.grid_spec import GridSpec
from MedXlateCore.transforms.intensity import normaliser_from_dict
from MedXlateCore.volume import Modality

__all__ = ["CARD_FILE", "ModelCard", "OutputScale", "read_card", "sealed", "strict_json"]

CARD_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"

MAX_CARD_BYTES = 1 << 20
MAX_DEPTH = 12
MAX_ITEMS = 20_000
MAX_TEXT = 8192
MAX_LIST = 16  # sources, targets
MAX_DIRECTIONS = 64
MAX_VOXELS = 2048
MAX_MULTIPLE = 512
MAX_MARGIN_MM = 200.0
MIN_SPACING_MM, MAX_SPACING_MM = 0.1, 50.0
MAX_BF16_DEVIATION = 1e-3  # of the result's range

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){0,3}([.+-][A-Za-z0-9.+-]{1,40})?")
_WEIGHTS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.safetensors")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control characters, direction marks, halves of characters


@dataclass(frozen=True)
class OutputScale:
    """How the network's [-1, 1] becomes a target's intensities.

    Attributes:
        kind: ``relative``: ``low`` and ``high`` are multiples of the reference source's fitted upper limit (MR has no
            unit); ``absolute``: they are in the modality's own unit (HU, SUV).
        low: intensity at -1.
        high: intensity at +1.
    """

    kind: Literal["relative", "absolute"]
    low: float
    high: float


@dataclass(frozen=True)
class ModelCard:
    """The contents of ``model.json``.

    Attributes:
        name, version: of the model.
        method: registry name of its method.
        config: the method's configuration.
        sources: required modalities in channel order.
        targets: modalities it makes, in channel order.
        optional_sources: modalities it can do without; their channels follow the required ones.
        directions: of a model for several directions of translation: each, such as ``T1->T2``. ``sources`` and
            ``targets`` then list what occurs in any of them, and a translation needs the sources of one.
        prompts: ``region`` if it takes a region of interest, else ``none``.
        draws_samples: its method draws samples (``Method.draws_samples``), so that callers without torch know; filled
            in when the package is saved, and False in cards from before.
        grid: ``GridSpec`` as a dictionary.
        normalisers: by modality, a normaliser as a dictionary.
        output: by target, or by direction where there are several, an ``OutputScale`` as a dictionary.
        training: how and on what it was trained; free plain data.
        metrics: measured quality with intervals; free plain data.
        licence, intended_use, not_for, citation: texts shown before the first use.
        bf16_deviation: largest difference between results in bf16 and fp32, measured, as a fraction of the result's
            range; None if not measured. Up to 0.001 a GPU may use bf16 without being told to.
        weights: ``file`` (a plain name in the package's folder) and ``sha256``; empty until the package is saved.
        spec_sha256: see ``architecture_sha256``; empty until the package is saved.
        card_sha256: hash of everything else in the card, see ``sealed``; empty until the package is saved.
        format: version of this layout.

    Raises:
        InputError: ``MX-MOD-012`` (a field that is not as described), ``MX-MOD-014`` (``weights.file`` is not a plain
            ``.safetensors`` name).
    """

    name: str
    version: str
    method: str
    config: dict[str, Any]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    grid: dict[str, Any]
    normalisers: dict[str, dict[str, Any]]
    output: dict[str, dict[str, Any]]
    optional_sources: tuple[str, ...] = ()
    directions: tuple[str, ...] = ()
    prompts: Literal["none", "region"] = "none"
    draws_samples: bool = False
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    licence: str = "not stated"
    intended_use: str = "Research on image synthesis. Research use only, not for diagnosis."
    not_for: tuple[str, ...] = ("diagnosis", "treatment decisions", "judging whether a lesion is present or enhances")
    citation: str = ""
    bf16_deviation: float | None = None
    weights: dict[str, str] = field(default_factory=dict)
    spec_sha256: str = ""
    card_sha256: str = ""
    format: Literal[1] = 1

    def __post_init__(self) -> None:
        _check_plain(to_mapping(self), "")
        _require(self.format == 1, "format", self.format, "1; a newer layout needs a newer MedXlate")
        _require(bool(_NAME.fullmatch(self.name)), "name", self.name, "letters, digits, '.', '_' and '-', at most 80")
        _require(bool(_VERSION.fullmatch(self.version)), "version", self.version, "numbers such as 1.0.0")
        _require(self.prompts in ("none", "region"), "prompts", self.prompts, "none or region")
        deviation = self.bf16_deviation
        _require(deviation is None or 0 <= deviation <= 1, "bf16_deviation", deviation, "a fraction from 0 to 1")
        _check_modalities(self)
        _check_tables(self)
        _check_hashes(self)

    @property
    def bf16_allowed(self) -> bool:
        """True if the card says that bf16 changes results by no more than 0.001 of their range."""
        return self.bf16_deviation is not None and self.bf16_deviation <= MAX_BF16_DEVIATION

    @property
    def all_sources(self) -> tuple[str, ...]:
        """Required and optional sources in channel order."""
        return (*self.sources, *self.optional_sources)

    def directions_listed(self) -> tuple[Direction, ...]:
        """Return every direction of translation, in the order that the network knows them by."""
        if self.directions:
            return tuple(parse_direction(text, "directions") for text in self.directions)
        return tuple(Direction(self.sources, target) for target in self.targets)

    def sources_for(self, target: str, present: Collection[str] = ()) -> tuple[str, ...]:
        """Return the sources that a translation to ``target`` needs, given the modalities that are there.

        With several directions to the target: the first whose sources are all present, else the first.

        Raises:
            ValueError: the model does not make this target.
        """
        known = self.directions_listed()
        return known[choose_direction(known, target, present)].sources

    def output_of(self, direction: int) -> dict[str, Any]:
        """Return the ``OutputScale`` of a direction, as a dictionary."""
        return self.output[self.directions[direction] if self.directions else self.targets[direction]]

    def architecture_sha256(self) -> str:
        """Return the SHA-256 of what the weights mean: method, configuration, sources, targets and prompts.

        It stands in the card and in the weights' header, so that weights cannot be used with another description.
        """
        keys = ["method", "config", "sources", "optional_sources", "targets", "prompts"]
        keys += ["directions"] if self.directions else []
        meaning = {key: to_mapping(getattr(self, key)) for key in keys}
        return hashlib.sha256(json.dumps(meaning, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, the layout's version first."""
        return {"format": self.format, **to_mapping(self)}

    @classmethod
    def from_dict(cls, data: Any, where: str = CARD_FILE) -> ModelCard:
        """Read and check plain data.

        Raises:
            InputError: ``MX-MOD-012`` or ``MX-MOD-014``, as the class; ``MX-MOD-022``, another card than was saved.
        """
        _check_plain(data, "")
        try:
            card = read_dataclass(cls, data, where)
        except UsageError as error:
            raise _refused(error.found, error.expected, error.where, error.fix) from error
        complete = card.weights and card.spec_sha256 and card.card_sha256 and data.get("format") is not None
        wanted = "weights, spec_sha256, card_sha256 and format, as in a saved package"
        _require(bool(complete), "weights", card.weights, wanted, where)
        if (found := _contents_sha256(data)) != card.card_sha256:
            raise InputError(
                "MX-MOD-022",
                f"the card's contents have the SHA-256 {found}",
                expected=f"{card.card_sha256}, as the card itself says",
                where=where,
                fix="the card was damaged or changed after it was saved; get the package again from its source",
            )
        return card


def read_card(folder: Path) -> ModelCard:
    """Read and check the card of a package folder; the weights are not looked at.

    Raises:
        InputError: ``MX-MOD-010`` (no card there), ``MX-MOD-011`` (not readable as plain JSON within the limits),
            ``MX-MOD-012`` and ``MX-MOD-014`` (a field is refused), ``MX-MOD-022`` (the card is not as it was saved);
            ``MX-FIL-001`` to ``MX-FIL-008`` for the file.
    """
    path = inside_package(folder, CARD_FILE)
    if not path.exists():
        raise InputError(
            "MX-MOD-010",
            "there is no model package",
            expected=f"a folder with {CARD_FILE} and its weights",
            where=shown(folder),
            fix="give a package folder, or an installed model's name (medxlate models list)",
        )
    return ModelCard.from_dict(_parse(read_bytes(path, MAX_CARD_BYTES), shown(path)), shown(path))


def inside_package(folder: Path, name: str) -> Path:
    """Return the path of a package's file.

    Raises:
        InputError: ``MX-MOD-014``, it is a link that leads out of the package.
    """
    path = Path(folder) / name
    if path.is_symlink() and path.resolve().parent != Path(folder).resolve():
        raise InputError(
            "MX-MOD-014",
            f"the package's file {name} is a link that leads out of the package",
            expected="a file in the package's folder",
            where=shown(path),
            fix="copy the file itself into the folder",
        )
    return path


def brief(text: str) -> str:
    """Return a foreign text for messages: on one line, without hidden characters, not longer than 400."""
    return shown(text[:400]) + (" ..." if len(text) > 400 else "")


def card_text(card: ModelCard) -> str:
    """Return the text of ``model.json``."""
    return json_text(card.to_dict())


def sealed(card: ModelCard) -> ModelCard:
    """Return the card with the hash of its contents.

    A damaged digit or word in a card would otherwise pass: a scale of the output, a licence, a figure. The hash is that
    of the values, not of the file's bytes, so that spaces and the order of keys do not matter. It shows damage; who
    changes a card on purpose can change the hash too.
    """
    return replace(card, card_sha256=_contents_sha256(card.to_dict()))


def strict_json(data: bytes) -> Any:
    """Parse UTF-8 JSON; raise ValueError or RecursionError for what is none, duplicate keys, NaN and Infinity."""
    return json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)


def _contents_sha256(data: Mapping[str, Any]) -> str:
    contents = {key: value for key, value in data.items() if key != "card_sha256"}
    return hashlib.sha256(json.dumps(contents, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _parse(data: bytes, where: str) -> Any:
    try:
        return strict_json(data)
    except (ValueError, RecursionError) as error:
        raise InputError(
            "MX-MOD-011",
            f"the model's card is not readable ({str(error)[:200]})",
            expected="plain UTF-8 JSON without duplicate keys, NaN or Infinity",
            where=where,
            fix="get the package again from its source",
        ) from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands there twice")
    return result


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _check_plain(data: Any, where: str, depth: int = 0) -> int:
    """Check depth, number of values, texts and numbers of plain data; return the number of values."""
    _require(depth <= MAX_DEPTH, where, "deeper", f"at most {MAX_DEPTH} levels")
    if isinstance(data, Mapping | list):
        pairs = data.items() if isinstance(data, Mapping) else enumerate(data)
        count = 0
        for key, value in pairs:
            _check_plain_text(str(key), where)
            count += 1 + _check_plain(value, f"{where}.{key}".strip(".")[:200], depth + 1)
        _require(count <= MAX_ITEMS, where, f"{count} values", f"at most {MAX_ITEMS}")
        return count
    if isinstance(data, str):
        _check_plain_text(data, where)
    elif isinstance(data, float):
        _require(math.isfinite(data), where, data, "a finite number")
    elif isinstance(data, int):
        _require(abs(data) < 2**63, where, "a larger number", "below 2^63")
    else:
        _require(data is None, where, type(data).__name__, "text, number, list, table, true, false or null")
    return 0


def _check_plain_text(text: str, where: str) -> None:
    _require(len(text) <= MAX_TEXT, where, f"{len(text)} characters", f"at most {MAX_TEXT}")
    hidden = [c for c in text if c not in "\n\t" and unicodedata.category(c) in _HIDDEN]
    _require(not hidden, where, repr("".join(hidden[:8])), "text without control characters")


def _check_modalities(card: ModelCard) -> None:
    for key in ("sources", "optional_sources", "targets"):
        names = getattr(card, key)
        _require(len(names) <= MAX_LIST, key, f"{len(names)} entries", f"at most {MAX_LIST}")
        _require(bool(names) or key == "optional_sources", key, "nothing", "at least one modality")
        for name in names:
            _require(name in _IMAGE_MODALITIES, key, name, f"one of {', '.join(_IMAGE_MODALITIES)}")
    for key, names in (("sources", card.all_sources), ("targets", card.targets)):
        _require(len(set(names)) == len(names), key, ", ".join(names), "each modality once")
    _check_directions(card)


def _check_directions(card: ModelCard) -> None:
    _require(len(card.directions) <= MAX_DIRECTIONS, "directions", len(card.directions), f"at most {MAX_DIRECTIONS}")
    if not card.directions:
        return
    try:
        known = card.directions_listed()
    except UsageError as error:
        raise _refused(error.found, error.expected, error.where, error.fix) from error
    spelled = tuple(str(direction) for direction in known)
    _require(spelled == card.directions, "directions", ", ".join(card.directions), ", ".join(spelled))
    _require(len(set(spelled)) == len(spelled), "directions", ", ".join(spelled), "each direction once")
    _require(len({len(d.sources) for d in known}) == 1, "directions", ", ".join(spelled), "as many sources in each")
    sources, targets = modalities_of(known)
    _require(card.sources == sources, "sources", ", ".join(card.sources), f"those of the directions: {sources}")
    _require(card.targets == targets, "targets", ", ".join(card.targets), f"those of the directions: {targets}")
    _require(not card.optional_sources, "optional_sources", ", ".join(card.optional_sources), "none with directions")


def _check_tables(card: ModelCard) -> None:
    try:
        _check_grid(GridSpec.from_dict(card.grid))
        for name, settings in card.normalisers.items():
            _require(name in _IMAGE_MODALITIES, "normalisers", name, f"one of {', '.join(_IMAGE_MODALITIES)}")
            normaliser_from_dict(settings)
        scales = {name: read_dataclass(OutputScale, entry, f"output.{name}") for name, entry in card.output.items()}
    except UsageError as error:
        raise _refused(error.found, error.expected, error.where, error.fix) from error
    missing = [name for name in card.all_sources if name not in card.normalisers]
    _require(not missing, "normalisers", f"none for {', '.join(missing)}", "one for each source")
    wanted = card.directions or card.targets
    _require(sorted(scales) == sorted(wanted), "output", ", ".join(scales), f"one for {', '.join(wanted)}")
    for name, scale in scales.items():
        _require(scale.low < scale.high, f"output.{name}", f"{scale.low} to {scale.high}", "low below high")


def _check_grid(grid: GridSpec) -> None:
    """Refuse a grid that no patient needs and no memory holds."""
    voxels = [*(grid.crop.size or ()), *grid.crop.offset_voxels, *grid.size_multiple]
    largest = max((abs(n) for n in voxels if n is not None), default=0)
    _require(largest <= MAX_VOXELS, "grid", f"{largest} voxels", f"at most {MAX_VOXELS} voxels along an axis")
    _require(
        max(grid.size_multiple) <= MAX_MULTIPLE, "grid.size_multiple", grid.size_multiple, f"at most {MAX_MULTIPLE}"
    )
    fine = [s for s in grid.spacing_mm if s is not None and not MIN_SPACING_MM <= s <= MAX_SPACING_MM]
    _require(not fine, "grid.spacing_mm", fine, f"{MIN_SPACING_MM} to {MAX_SPACING_MM} mm")
    margin = grid.crop.margin_mm
    _require(margin <= MAX_MARGIN_MM, "grid.crop.margin_mm", margin, f"at most {MAX_MARGIN_MM} mm")


def _check_hashes(card: ModelCard) -> None:
    for key in ("spec_sha256", "card_sha256"):
        if value := getattr(card, key):
            _require(bool(_SHA256.fullmatch(value)), key, value, "64 hexadecimal digits")
    if not card.weights:
        return
    _require(set(card.weights) == {"file", "sha256"}, "weights", ", ".join(card.weights), "file and sha256")
    for key, value in card.weights.items():
        _require(isinstance(value, str), f"weights.{key}", value, "a text")
    _require(bool(_SHA256.fullmatch(card.weights["sha256"])), "weights.sha256", card.weights["sha256"], "64 hex digits")
    if not _WEIGHTS_NAME.fullmatch(card.weights["file"]):
        raise InputError(
            "MX-MOD-014",
            f"the card names the weights file {card.weights['file']!r}",
            expected="a plain name that ends in .safetensors, in the package's own folder",
            where="weights.file",
            fix="get the package again from its source",
        )


_IMAGE_MODALITIES = tuple(m.value for m in Modality if m not in (Modality.LABEL, Modality.OTHER))


def _require(condition: bool, key: str, value: object, expected: str, where: str = "") -> None:
    if not condition:
        raise _refused(f"the card's field '{key or 'card'}' has {value}", expected, where or key, "correct the card")


def _refused(found: str, expected: str, where: str, fix: str) -> InputError:
    return InputError("MX-MOD-012", brief(found), expected=brief(expected), where=brief(where), fix=fix)
