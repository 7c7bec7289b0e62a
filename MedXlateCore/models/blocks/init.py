"""How networks start: the adversarial methods' normal weights, none where they come at once, and layout in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from MedXlateCore.models.blocks.dimensions import LAYOUT

__all__ = ["channels_last", "init_normal", "without_memory"]

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


def init_normal(network: nn.Module, std: float = 0.02) -> None:
    """Draw all convolution and linear weights of ``network`` from N(0, std) and set their biases to 0, in place."""
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS):
            nn.init.normal_(module.weight, 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def channels_last(network: nn.Module, dimensions: int = 2) -> None:
    """Store the weights of a network for slices or volumes pixel by pixel, in place, for images that are stored so too.

    Convolutions are then faster and copy neither their weights nor their maps; norms over channels and attention need
    no copies.
    """
    network.to(memory_format=LAYOUT[dimensions])  # type: ignore[call-overload]


@contextmanager
def without_memory() -> Iterator[None]:
    """Build networks on the meta device: names, shapes and types, without memory, random numbers or time to fill."""
    with torch.device("meta"), _NoFilling():
        yield


class _NoFilling(TorchFunctionMode):
    """Skips filling tensors in place: on the meta device that would only load PyTorch's slow Python decompositions."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func in _FILLING or getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else named["tensor"]
        return func(*args, **named)


_FILLING = {Tensor.normal_, Tensor.uniform_, Tensor.zero_, Tensor.fill_}
