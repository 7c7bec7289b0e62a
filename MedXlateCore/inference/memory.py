"""How much memory a network will need, found without computing: a forward pass on PyTorch's meta device."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from MedXlateCore.models.blocks.bands import bands_also_on
from MedXlateCore.models.blocks.init import without_memory
from MedXlateCore.models.package import LoadedModel

__all__ = ["estimate_memory", "estimate_model_memory"]

_known: dict[tuple[object, ...], int | None] = {}


def estimate_memory(
    network: nn.Module,
    channels: int,
    height: int,
    width: int,
    batch_size: int = 1,
    precision: str = "fp32",
    device_type: str = "cpu",
    depth: int | None = None,
) -> int:
    """Return the bytes that a forward pass without gradients needs at its peak, weights included.

    Followed are all tensors that live at the same time in a pass on the meta device, which computes nothing. To a
    convolution are added copies of its input and output, which kernels make to change the layout; attention is taken
    as fused (no matrix of all pixels by all pixels). Within a factor of 1.5 of what the network needs at its peak, on
    CPUs in fp32; the C library's heap may hold on to as much as a third more (SynDiff: to as much again). For bf16 the
    figure is an upper bound: activations as in fp32, and the weights' bf16 copies.

    Args:
        network: forward(images [B, C, H, W], roi [B, 1, H, W]), or of volumes; neither changed nor run itself. Of one
            that computes in steps its ``rehearse(images)`` is followed, which does each kind of step once.
        channels: C, sources times slices of context.
        height: H, pixels.
        width: W, pixels.
        batch_size: B.
        precision: ``fp32`` or ``bf16``.
        device_type: ``cpu``, where some blocks work in bands of rows, or another.
        depth: K, slices of the volumes that a volumetric network sees.
    """
    size = (height, width) if depth is None else (depth, height, width)
    shadow = _on_meta(network)
    tensors = [*shadow.parameters(), *shadow.buffers()]
    follower = _LiveStorages()
    for tensor in tensors:
        follower.add(tensor.detach())
    weights = follower.live
    bands = bands_also_on("meta") if device_type == "cpu" else nullcontext()
    with torch.no_grad(), bands, _FusedAttention(), follower:
        images = torch.empty((batch_size, channels, *size), device="meta")
        rehearse: Callable[[Tensor], object] | None = getattr(shadow, "rehearse", None)
        if rehearse is not None:
            rehearse(images)
        else:
            shadow(images, torch.empty((batch_size, 1, *size), device="meta"))
    return follower.peak + (weights // 2 if precision == "bf16" else 0)


def estimate_model_memory(
    model: LoadedModel,
    height: int,
    width: int,
    batch_size: int = 1,
    precision: str = "fp32",
    device_type: str = "cpu",
    depth: int | None = None,
) -> int | None:
    """Return :func:`estimate_memory` for a model, from its method and configuration; computed once a shape.

    None where a network does what the meta device cannot follow (no registered method does): the run then goes on
    without an estimate.
    """
    depth = depth if model.method.volumetric else None
    key = (model.method.name, repr(model.config), depth, height, width, batch_size, precision, device_type)
    if key not in _known:
        try:
            with without_memory():
                network = model.method.build(model.config).eval()
            channels = model.method.n_sources(model.config) * model.method.context_slices(model.config)
            _known[key] = estimate_memory(network, channels, height, width, batch_size, precision, device_type, depth)
        except (NotImplementedError, RuntimeError):
            _known[key] = None
    return _known[key]


def _on_meta(network: nn.Module) -> nn.Module:
    """Return a copy of a network whose weights have shapes and types only."""
    replaced: dict[int, Any] = {}
    for parameter in network.parameters():
        replaced[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in network.buffers():
        replaced[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(network, replaced).eval()


class _LiveStorages(TorchDispatchMode):
    """Follows the bytes of all tensors alive."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self.add(tensor)
        if func is torch.ops.aten.convolution.default and not _by_voxel(args[1]):
            self.peak = max(self.peak, self.live + _bytes(args[0]) + _bytes(result))
        return result

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, once, until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


class _FusedAttention(TorchFunctionMode):
    """Takes attention as one kernel with its output only; on the meta device PyTorch would build the whole matrix."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query = args[0] if args else named["query"]
            value = args[2] if len(args) > 2 else named["value"]
            return query.new_empty((*query.shape[:-1], value.shape[-1]))
        return func(*args, **named)


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, list | tuple):
        for item in result:
            yield from _tensors(item)


def _by_voxel(weights: Tensor) -> bool:
    """Return whether a convolution of volumes works voxel by voxel: its kernel takes maps as they then are."""
    wide = weights.ndim == 5 and weights[0, 0].numel() > 1  # of 1 x 1 x 1 both layouts are the same
    return wide and weights.is_contiguous(memory_format=torch.channels_last_3d)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
