"""Seq2Seq: one network from any sequence to any other, its decoder's kernels made for the wanted one.

Han et al., "Synthesis-based imaging-differentiation representation learning for multi-sequence 3D/4D MRI", Medical
Image Analysis 92, 2024. A residual encoder sees each of three neighbouring slices, a ConvLSTM runs over them, a second
one leads them to the decoder; the decoder's kernels are linear combinations of 16 learned ones, mixed by the one-hot
code (length 64) of the target sequence. Several directions of translation are learned at once; each has one source.

Presets. ``paper`` has the published sizes: width 64, six residual blocks on both sides, ConvLSTMs of three layers of
256 channels, smooth L1 (times 10) to the target, to the source itself and around the cycle, Adam at 2e-4 with
polynomial decay. ``tiny`` has width 12, two blocks, one LSTM layer and four kernels; it trains on a CPU.

Our readings, where the sources we have are silent: the second ConvLSTM starts from the first one's last state, so that
the middle slice, the one that is kept, sees its neighbours on both sides; the code mixes kernels without a softmax; all
decoder convolutions, the last too, have mixed kernels; upsampling repeats pixels; the decay has power 0.9; cycles use
smooth L1 as well. The published perceptual term (times 0.01) needs weights that are not part of MedXlate and is off as
long as ``perceptual_weights`` names no file; the card of a model tells. The published scaling maps twice the 99th
percentile to 1; the presets use the tree's normalisers. It takes no region prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.checks import check_architecture, check_constants, check_images
from MedXlateCore.models.blocks.domains import Domains, Towards
from MedXlateCore.models.blocks.norms import InstanceNorm
from MedXlateCore.models.blocks.resnet import ResidualBlock, resnet_encoder
from MedXlateCore.models.blocks.updates import descend, figures
from MedXlateCore.models.method import Batch, Method, Recipe, TrainingState
from MedXlateCore.models.registry import register_model
from MedXlateCore.training.perceptual import PerceptualLoss

__all__ = ["Seq2Seq", "Seq2SeqConfig", "Seq2SeqNetwork", "Seq2SeqRecipe", "Seq2SeqRecipeConfig"]

MULTIPLE = 4
MAX_WIDTH, MAX_BLOCKS, MAX_LAYERS, MAX_KERNELS, MAX_SLICES, MAX_CODE = 256, 32, 8, 64, 9, 64


@dataclass(frozen=True)
class Seq2SeqConfig:
    """The network's architecture. The defaults are the published one.

    Attributes:
        width: channels at full resolution, four times this in blocks and ConvLSTMs.
        blocks: residual blocks of the encoder, and of the decoder.
        lstm_layers: layers of each ConvLSTM.
        kernels: learned kernels of which each decoder kernel is mixed.
        slices: neighbouring slices that the network sees, an odd number.
        code_length: length of the one-hot code; so many sequences can be told apart.
        directions: the directions it learns; filled in by a training.

    Raises:
        UsageError: ``MX-MOD-005``, a number out of its range; from ``Domains.of`` for the directions.
    """

    width: int = 64
    blocks: int = 6
    lstm_layers: int = 3
    kernels: int = 16
    slices: int = 3
    code_length: int = MAX_CODE
    directions: tuple[str, ...] = ("T1->T2", "T2->T1")

    def __post_init__(self) -> None:
        ranges = {"width": MAX_WIDTH, "blocks": MAX_BLOCKS, "lstm_layers": MAX_LAYERS, "kernels": MAX_KERNELS}
        for name, most in (ranges | {"code_length": MAX_CODE}).items():
            check_architecture(1 <= getattr(self, name) <= most, name, getattr(self, name), f"1 to {most}")
        odd = 1 <= self.slices <= MAX_SLICES and self.slices % 2 == 1
        check_architecture(odd, "slices", self.slices, f"an odd number from 1 to {MAX_SLICES}")
        self.domains()

    def domains(self) -> Domains:
        """Return the sequences of the directions; a sequence's number is its place in the code."""
        return Domains.of(self.directions, self.code_length)


class DynamicConv(nn.Module):
    """A convolution whose kernel is mixed for a code: [B, C, H, W] to [B, out, H, W].

    Args:
        channels: C.
        out: channels of the result.
        size: of the kernel; borders are mirrored.
        kernels: how many are mixed.
        codes: length of the one-hot code.
        bias: add a learned constant a channel, the same for every code.
    """

    def __init__(self, channels: int, out: int, size: int, kernels: int, codes: int, bias: bool = False) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.randn(kernels, out, channels, size, size) / (channels * size**2) ** 0.5)
        self.mix = nn.Parameter(torch.randn(codes, kernels) / kernels**0.5)
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None
        self.padding = size // 2

    def forward(self, x: Tensor, code: int) -> Tensor:
        """Convolve with the kernel of the code's position ``code``."""
        kernel = torch.einsum("n,nochw->ochw", self.mix[code].float(), self.kernels.float())
        padded = F.pad(x, (self.padding,) * 4, mode="reflect")
        return F.conv2d(padded, kernel, self.bias)


class DynamicLayer(nn.Module):
    """Mixed 3x3 convolution and instance normalisation: [B, C, H, W] to [B, out, H, W]."""

    def __init__(self, config: Seq2SeqConfig, channels: int, out: int) -> None:
        super().__init__()
        self.conv = DynamicConv(channels, out, 3, config.kernels, config.code_length)
        self.norm = InstanceNorm(out, affine=False)

    def forward(self, x: Tensor, code: int) -> Tensor:
        """Convolve and normalise."""
        return self.norm(self.conv(x, code))


class DynamicBlock(nn.Module):
    """Two mixed convolutions with ReLU between, added to the input; shape is kept."""

    def __init__(self, config: Seq2SeqConfig, channels: int) -> None:
        super().__init__()
        self.first, self.second = (DynamicLayer(config, channels, channels) for _ in range(2))

    def forward(self, x: Tensor, code: int) -> Tensor:
        """Add the convolutions' result."""
        return x + self.second(F.relu(self.first(x, code)), code)


class Decoder(nn.Module):
    """Features [B, 4 * width, H/4, W/4] to an image [B, 1, H, W] in [-1, 1] of the sequence that a code names."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        width = config.width
        self.blocks = nn.ModuleList(DynamicBlock(config, 4 * width) for _ in range(config.blocks))
        self.ups = nn.ModuleList(DynamicLayer(config, n * width, n * width // 2) for n in (4, 2))
        self.output = DynamicConv(width, 1, 7, config.kernels, config.code_length, bias=True)

    def forward(self, x: Tensor, code: int) -> Tensor:
        """Decode."""
        for block in self.blocks:
            x = block(x, code)
        for up in self.ups:
            x = F.relu(up(F.interpolate(x, scale_factor=2, mode="nearest"), code))
        return torch.tanh(self.output(x, code))


class ConvLstm(nn.Module):
    """Layers of convolutional LSTM (Shi et al., NeurIPS 2015, equation 3, without peepholes) with 3x3 kernels.

    Args:
        channels: of its input, state and output.
        layers: how many.
    """

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Conv2d(2 * channels, 4 * channels, 3, padding=1) for _ in range(layers))

    def forward(
        self, steps: list[Tensor], states: list[tuple[Tensor, Tensor]] | None = None
    ) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
        """Run over maps [B, C, H, W]; return one map a step, and the last output and cell of each layer.

        Args:
            steps: the maps in their order.
            states: output and cell of each layer to start from; zeros by default.
        """
        zeros = torch.zeros_like(steps[0])
        states = list(states or [(zeros, zeros)] * len(self.gates))
        results = []
        for x in steps:
            for n, gates in enumerate(self.gates):
                output, cell = states[n]
                entry, forget, leave, new = gates(torch.cat((x, output), dim=1)).chunk(4, dim=1)
                cell = forget.sigmoid() * cell + entry.sigmoid() * new.tanh()
                x = leave.sigmoid() * cell.tanh()
                states[n] = (x, cell)
            results.append(x)
        return results, states


class Seq2SeqNetwork(nn.Module):
    """Seq2Seq; see ``Seq2SeqConfig``."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config, self.domains = config, config.domains()
        channels = 4 * config.width
        residual = (ResidualBlock(channels, "instance") for _ in range(config.blocks))
        self.encoder = nn.Sequential(resnet_encoder(1, config.width, "instance"), *residual)
        self.encoder_lstm, self.decoder_lstm = (ConvLstm(channels, config.lstm_layers) for _ in range(2))
        self.decoder = Decoder(config)

    def forward(
        self, images: Tensor, roi: Tensor | None = None, direction: int = 0, codes: tuple[int, ...] = ()
    ) -> Tensor:
        """Synthesise the target.

        Args:
            images: the source's slices [B, K, H, W] in [-1, 1], from below to above.
            roi: not looked at; this network takes no prompt.
            direction: position of the direction in the configuration.
            codes: instead of a direction, for training: numbers of the sequences to make.

        Returns:
            Target [B, 1, H, W] in [-1, 1]; with ``codes`` every slice of each sequence, [len(codes), B, K, H, W].

        Raises:
            InputError: ``MX-MOD-007`` (height or width not a multiple of 4), ``MX-MOD-008`` (wrong number of channels).
        """
        check_images(images, self.config.slices, MULTIPLE)
        steps = [self.encoder(images[:, k : k + 1]) for k in range(self.config.slices)]
        steps, states = self.encoder_lstm(steps)
        if codes:
            features, _ = self.decoder_lstm(steps, states)
            made = [torch.cat([self.decoder(x, code) for x in features], dim=1) for code in codes]
            return torch.stack(made)
        features, _ = self.decoder_lstm(steps[: self.config.slices // 2 + 1], states)
        return self.decoder(features[-1], self.domains.pairs[direction][1])


@dataclass(frozen=True)
class Seq2SeqRecipeConfig:
    """Seq2Seq's training. The defaults are the published ones.

    Attributes:
        learning_rate: of Adam.
        decay_power: of the polynomial decay of the learning rate.
        target_weight: weight of the smooth L1 to the target.
        self_weight: weight of the smooth L1 to the source, made from itself.
        cycle_weight: weight of the smooth L1 around the cycle.
        perceptual_weight: weight of the perceptual term.
        perceptual_weights: safetensors file with VGG-16's first layers, see ``PerceptualLoss``; empty for no such term.

    Raises:
        UsageError: ``MX-MOD-006``, a constant outside its range.
    """

    learning_rate: float = 2e-4
    decay_power: float = 0.9
    target_weight: float = 10.0
    self_weight: float = 10.0
    cycle_weight: float = 10.0
    perceptual_weight: float = 0.01
    perceptual_weights: str = ""

    def __post_init__(self) -> None:
        weights = ("target_weight", "self_weight", "cycle_weight", "perceptual_weight")
        ranges = {"learning_rate": (0.0, 1.0), "decay_power": (0.0, 10.0)}
        check_constants(self, ranges | dict.fromkeys(weights, (0.0, 1e6)))


class Seq2SeqRecipe(Recipe):
    """One network, one direction a batch. Raises from ``PerceptualLoss`` where its file cannot be used."""

    def __init__(self, config: Seq2SeqConfig, recipe_config: Seq2SeqRecipeConfig) -> None:
        self.recipe_config, self._domains = recipe_config, config.domains()
        self._network = Seq2SeqNetwork(config)
        wanted = recipe_config.perceptual_weight > 0 and recipe_config.perceptual_weights
        self.perceptual = PerceptualLoss(recipe_config.perceptual_weights) if wanted else None

    def networks(self) -> dict[str, nn.Module]:
        """Return ``generator``."""
        return {"generator": self._network}

    def optimisers(self, learning_rate: float | None = None) -> dict[str, torch.optim.Optimizer]:
        """Return Adam with its default betas."""
        rate = self.recipe_config.learning_rate if learning_rate is None else learning_rate
        return {"generator": torch.optim.Adam(self._network.parameters(), lr=rate)}

    def learning_rate_factor(self, progress: float) -> float:
        """Polynomial decay to zero."""
        return max(0.0, 1.0 - progress) ** self.recipe_config.decay_power

    def step(self, batch: Batch, state: TrainingState) -> dict[str, float]:
        """Make the target and the source from the source, and the source again from what was made; do one step."""
        network, weights = state.networks["generator"], self.recipe_config
        source, target = self._domains.pairs[batch.direction]
        made, same = network(batch.images, None, codes=(target, source)).unbind()
        (back,) = network(made, None, codes=(source,)).unbind()
        middle = made.shape[1] // 2
        made = made[:, middle : middle + 1]
        terms = {
            "target": (weights.target_weight, F.smooth_l1_loss(made, batch.target)),
            "self": (weights.self_weight, F.smooth_l1_loss(same, batch.images)),
            "cycle": (weights.cycle_weight, F.smooth_l1_loss(back, batch.images)),
        }
        if self.perceptual:
            terms["perceptual"] = (weights.perceptual_weight, self.perceptual(made, batch.target))
        total = torch.stack([weight * value for weight, value in terms.values()]).sum()
        descend(state, ["generator"], total)
        return figures({"generator": total, **{name: value for name, (_, value) in terms.items()}})


@register_model("seq2seq")
class Seq2Seq(Method):
    """Any sequence to any other with kernels made for the target, for one source at a time."""

    config_type = Seq2SeqConfig
    recipe_type = Seq2SeqRecipeConfig
    presets = {
        "paper": Seq2SeqConfig(),
        "tiny": Seq2SeqConfig(width=12, blocks=2, lstm_layers=1, kernels=4),
    }
    citation = (
        "Han L, Tan T, Zhang T, et al. Synthesis-based Imaging-Differentiation Representation Learning for "
        "Multi-Sequence 3D/4D MRI. Medical Image Analysis 92:103044, 2024."
    )

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised network."""
        return Seq2SeqNetwork(config)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with a fresh network."""
        return Seq2SeqRecipe(config, recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return 1."""
        return 1

    def context_slices(self, config: Any) -> int:
        """Return the number of neighbouring slices."""
        return config.slices

    def size_multiple(self, config: Any) -> int:
        """Return 4."""
        return MULTIPLE

    def towards(self, network: nn.Module, config: Any, direction: int) -> nn.Module:
        """Return the network for one of its directions."""
        return Towards(network, direction)
