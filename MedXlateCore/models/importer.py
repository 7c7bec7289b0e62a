"""Authors' published checkpoints become model packages. The one place where a PyTorch checkpoint is opened.

A checkpoint is a pickle, and a pickle can run code. It is opened here only, with PyTorch's restricted loader (tensors
and plain containers, nothing else), without fallback, and only by a PyTorch whose loader has no known hole. What comes
out must have exactly the published names and shapes. Import files you trust all the same; use packages from then on.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError  # the name of the restricted loader's refusal; nothing is unpickled by this module
from typing import Any

import torch
from torch import Tensor

from MedXlateCore.config import nearest, to_mapping
from MedXlateCore.errors import InputError, ResourceError, UsageError
from MedXlateCore.files import require_file, sha256_file, shown
from MedXlateCore.models.blocks.init import without_memory
from MedXlateCore.models.card import ModelCard, brief
from MedXlateCore.models.method import Method
from MedXlateCore.models.package import save_package
from MedXlateCore.models.registry import get_method
from MedXlateCore.models.tlp import TlpConfig
from MedXlateCore.transforms.grid_spec import CropPolicy, GridSpec
from MedXlateCore.volume import Modality

__all__ = ["import_weights", "importable_methods"]

SAFE_TORCH = (2, 10)  # older restricted loaders have CVE-2025-32434 (below 2.6) and CVE-2026-24747 (below 2.10)
MAX_CHECKPOINT_BYTES = 4 << 30
WRAPPERS = ("state_dict", "G", "model", "generator", "netG")
MAX_WRAPPING = 3
_LOADER_ERRORS = (
    UnpicklingError, RuntimeError, EOFError, LookupError, AttributeError, ValueError, TypeError, AssertionError,
    ArithmeticError, OSError, struct.error, zipfile.BadZipFile,
)  # fmt: skip

# Published TLP names (Testing/golden/tlp_*_state_dict.json) to ours, applied in order.
_TLP_NAMES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"^encoder_([AB])\.", lambda m: f"encoders.{'AB'.index(m[1])}."),
    (r"\.patch_embed\.proj\.", lambda m: ".stem."),
    (r"\.encoder_level([1-4])\.", lambda m: f".levels.{int(m[1]) - 1}."),
    (r"\.down([1-3])_[2-4]\.body\.0\.", lambda m: f".downs.{int(m[1]) - 1}.conv."),
    (r"^decoder_level([1-4])\.", lambda m: f"decoder.levels.{int(m[1]) - 1}."),
    (r"^up[2-4]_([1-3])\.body\.0\.", lambda m: f"decoder.ups.{int(m[1]) - 1}.conv."),
    (r"^reduce_chan_level([2-4])\.", lambda m: f"decoder.reduces.{int(m[1]) - 1}."),
    (r"^refinement\.", lambda m: "decoder.refinement."),
    (r"^fusion_level([1-4])\.layer\.", lambda m: f"fusions.{int(m[1]) - 1}.conv."),
    (r"^cross_attention\.(norm|qkv|out)_([AB])\.", lambda m: f"global_fusion.{m[1]}s.{'AB'.index(m[2])}."),
    (r"^attention_spatial\.", lambda m: "bottleneck_attention."),
    (r"\.(norm[12])\.body\.", lambda m: f".{m[1]}."),
    (r"\.attn\.", lambda m: ".attention."),
    (r"\.qkv_dwconv\.", lambda m: ".qkv_depthwise."),
    (r"\.ffn\.dwconv\.", lambda m: ".feed_forward.conv."),
    (r"\.ffn\.", lambda m: ".feed_forward."),
)


@dataclass(frozen=True)
class PublishedFormat:
    """What the importer knows of a method's published checkpoints.

    Attributes:
        rename: published key to ours.
        infer: published keys and shapes to the method's configuration; raises ``InputError`` ``MX-MOD-033``.
        sources: usual sources by their number.
        target: usual target.
        grid: the authors' grid.
        training: what is known of the training.
        licence: licence of the published weights.
    """

    rename: Callable[[str], str]
    infer: Callable[[Mapping[str, tuple[int, ...]]], Any]
    sources: Mapping[int, tuple[str, ...]]
    target: str
    grid: GridSpec
    training: Mapping[str, Any]
    licence: str


def importable_methods() -> tuple[str, ...]:
    """Return the methods whose published checkpoints can be imported."""
    return tuple(sorted(_FORMATS))


def import_weights(
    method: str,
    file: Path | str,
    out_dir: Path | str,
    *,
    sources: Sequence[str] | None = None,
    target: str | None = None,
    name: str | None = None,
    licence: str | None = None,
    overwrite: bool = False,
) -> ModelCard:
    """Turn a published checkpoint into a model package with the authors' preprocessing.

    Args:
        method: registry name of the method.
        file: state dictionary, plain or under ``state_dict``, ``G`` or ``model``; a prefix ``module.`` is dropped.
        out_dir: folder of the new package.
        sources: modalities in channel order; None for the publication's (recorded in the card as an assumption).
        target: modality it makes; None for the publication's.
        name: the package's name; None for one made from method, sources and target.
        licence: licence of the weights; None for the publication's.
        overwrite: replace a package in ``out_dir``.

    Returns:
        The package's card.

    Raises:
        UsageError: ``MX-MOD-001`` (no such method), ``MX-MOD-021`` (``out_dir`` holds a package), ``MX-MOD-035`` (no
            importer for the method), ``MX-MOD-036`` (number of sources), ``MX-USE-010`` (no such modality).
        InputError: ``MX-MOD-030`` (not a checkpoint, or refused by the safe loader), ``MX-MOD-031`` (no weights in
            it), ``MX-MOD-032`` (names missing or left over), ``MX-MOD-033`` (shapes), ``MX-MOD-019`` (NaN or
            infinite); ``MX-FIL-001`` to ``MX-FIL-007`` for the file.
        ResourceError: ``MX-MOD-034``, this PyTorch is too old to open checkpoints safely; ``MX-FIL-010`` and on.
    """
    published = _format(method)
    path = Path(file)
    weights = _find_weights(_load(path), shown(path))
    config = published.infer({key: tuple(t.shape) for key, t in weights.items()})
    kind = get_method(method)
    modalities = _modalities(sources, published.sources, kind.n_sources(config))
    makes = Modality.parse(target or published.target).value
    with without_memory():
        network = kind.build(config)
    _fill(network, {published.rename(key): tensor for key, tensor in weights.items()}, shown(path))
    origin = {
        "imported_from": brief(path.name),
        "imported_sha256": sha256_file(path),
        "sources_and_target": "as given by the user" if sources else "assumed; the checkpoint does not say",
    }
    card = _card(published, kind, config, modalities, makes, origin)
    card = replace(card, name=name or card.name, licence=licence or card.licence)
    return save_package(out_dir, card, network, overwrite=overwrite)


def _card(
    published: PublishedFormat,
    method: Method,
    config: Any,
    sources: tuple[str, ...],
    target: str,
    origin: dict[str, str],
) -> ModelCard:
    return ModelCard(
        name="-".join([method.name, *sources, "to", target]).lower(),
        version="1.0.0",
        method=method.name,
        config=to_mapping(config),
        sources=sources,
        targets=(target,),
        prompts="region" if method.uses_regions else "none",
        grid=published.grid.to_dict(),
        normalisers={modality: {"kind": "minmax"} for modality in (*sources, target)},
        # the publication gives no scale between source and target; 1 keeps the target's brightest as the source's
        output={target: {"kind": "relative", "low": 0.0, "high": 1.0}},
        training={**published.training, **origin},
        licence=published.licence,
        citation=method.citation,
    )


def _format(method: str) -> PublishedFormat:
    get_method(method)
    if method not in _FORMATS:
        raise UsageError(
            "MX-MOD-035",
            f"published checkpoints of '{method}' cannot be imported",
            expected=f"one of {', '.join(importable_methods())}",
            where="--method",
            fix="train the method instead",
        )
    return _FORMATS[method]


def _load(path: Path) -> Any:
    """Open a checkpoint with the restricted loader."""
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < SAFE_TORCH:
        raise ResourceError(
            "MX-MOD-034",
            f"PyTorch {torch.__version__} cannot open checkpoints safely",
            expected=f"PyTorch {'.'.join(map(str, SAFE_TORCH))} or newer, whose restricted loader has no known hole",
            fix="import the checkpoint in an environment with a newer PyTorch; the package then works here",
        )
    size = require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        inflated = sum(entry.file_size for entry in entries)
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or inflated > size:
            raise ValueError("its parts are compressed, which PyTorch never does")
        if size > MAX_CHECKPOINT_BYTES:
            raise ValueError(f"it has {size} bytes, more than {MAX_CHECKPOINT_BYTES}")
        return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise _not_a_checkpoint("it asks for more memory than there is", shown(path)) from error
    except _LOADER_ERRORS as error:
        raise _not_a_checkpoint(" ".join(str(error).split())[:300] or type(error).__name__, shown(path)) from error


def _not_a_checkpoint(problem: str, where: str) -> InputError:
    return InputError(
        "MX-MOD-030",
        f"the file is not a checkpoint that can be opened safely: {brief(problem)}",
        expected="a checkpoint as torch.save writes it, with tensors, numbers, texts and plain containers only",
        where=where,
        fix="get the authors' file again; a file that needs code to be opened is not opened here",
    )


def _find_weights(loaded: Any, where: str) -> dict[str, Tensor]:
    """Return the state dictionary, unwrapped and without the prefix of data-parallel training."""
    for _ in range(MAX_WRAPPING):
        inner = [key for key in WRAPPERS if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping)]
        if not inner:
            break
        loaded = loaded[inner[0]]
    usable = isinstance(loaded, Mapping) and len(loaded) > 0
    if not usable or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
        held = ", ".join(map(str, list(loaded)[:8])) if isinstance(loaded, Mapping) else type(loaded).__name__
        raise InputError(
            "MX-MOD-031",
            f"the checkpoint holds no weights where they are looked for (it holds: {brief(held) or 'nothing'})",
            expected=f"named tensors, plain or under one of {', '.join(WRAPPERS)}",
            where=where,
            fix="save the generator's state dictionary alone",
        )
    return {key.removeprefix("module."): tensor for key, tensor in loaded.items()}


def _fill(network: torch.nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Give a network (on the meta device) its weights; names and shapes must agree exactly."""
    expected = network.state_dict()
    missing = [key for key in expected if key not in weights]
    extra = [key for key in weights if key not in expected]
    if missing or extra:
        listed = [f"{key} is missing" for key in missing[:4]] + [f"{key} is left over" for key in extra[:4]]
        raise InputError(
            "MX-MOD-032",
            f"the checkpoint is not the published network: {len(missing)} names are missing, {len(extra)} are left "
            f"over ({brief('; '.join(listed))})",
            expected=f"the {len(expected)} published names",
            where=where,
            fix="check that this is the authors' generator, of the method named with --method",
        )
    wrong = [
        f"{key} is {list(weights[key].shape)}, not {list(tensor.shape)}"
        for key, tensor in expected.items()
        if weights[key].shape != tensor.shape or not weights[key].is_floating_point()
    ]
    if wrong:
        raise _wrong_shapes(f"{len(wrong)} tensors differ ({'; '.join(wrong[:4])})", where)
    network.load_state_dict({key: tensor.float() for key, tensor in weights.items()}, assign=True)


def _wrong_shapes(problem: str, where: str) -> InputError:
    return InputError(
        "MX-MOD-033",
        f"the checkpoint's shapes are not those of the published network: {brief(problem)}",
        expected="the shapes of the publication, at one base width throughout",
        where=where,
        fix="check that this is the authors' generator; variants of it are not imported",
    )


def _modalities(given: Sequence[str] | None, usual: Mapping[int, tuple[str, ...]], number: int) -> tuple[str, ...]:
    names = tuple(Modality.parse(name).value for name in (given or usual[number]))
    if len(names) != number:
        raise UsageError(
            "MX-MOD-036",
            f"{len(names)} sources are named ({', '.join(names)})",
            expected=f"{number}, for the checkpoint's network takes {number}",
            where="--sources",
            fix="name the sources in the order of the network's channels, such as T1,T2",
        )
    return names


def _tlp_name(key: str) -> str:
    for pattern, replacement in _TLP_NAMES:
        key = re.sub(pattern, replacement, key)
    return key


def _tlp_config(shapes: Mapping[str, tuple[int, ...]]) -> TlpConfig:
    """Infer number of sources, base width and number of downsamplings."""
    stem = shapes.get("encoder_A.patch_embed.proj.weight", ())
    if len(stem) != 4 or stem[1:] != (2, 3, 3):
        guess = nearest("encoder_A.patch_embed.proj.weight", shapes)
        raise _wrong_shapes(
            f"encoder_A.patch_embed.proj.weight is {list(stem) or 'missing'}, not [width, 2, 3, 3]",
            guess or "checkpoint",
        )
    found = [int(m[1]) for key in shapes if (m := re.match(r"encoder_A\.encoder_level([1-9])\.", key))]
    try:
        base = TlpConfig(inputs=2 if any(key.startswith("encoder_B.") for key in shapes) else 1)
        levels: Any = max(found, default=1) - 1
        return replace(base, dim=stem[0], levels=levels)
    except UsageError as error:
        raise _wrong_shapes(error.found, "checkpoint") from error


_FORMATS = {
    "tlp": PublishedFormat(
        rename=_tlp_name,
        infer=_tlp_config,
        sources={1: ("T1",), 2: ("T1", "T2")},
        target="T1ce",
        # 1 mm BraTS volumes, 240 x 240 x 155: columns 40:200, rows 34:226, that is ten voxels behind the centre
        grid=GridSpec(
            orientation="LPS",
            spacing_mm=(1.0, 1.0, None),
            crop=CropPolicy(kind="fixed", size=(160, 192, None), centre="grid", offset_voxels=(0, 10, 0)),
            size_multiple=(4, 4, 1),
        ),
        training={
            "data": "BraTS2021: 850 training cases, axial slices 27 to 126 (as published; not verified here)",
            "preprocessing": "skull-stripped, 1 mm, min-max over each cropped volume",
        },
        licence="MIT (the authors' code release; ask whoever gave you the file about the weights)",
    ),
}
