"""MedPrompt: one network for several directions of translation, told apart by prompts (Chen et al., PRCV 2024).

A Restormer with a self-adaptive prompt block (SPB) after the latent blocks and after the two deeper decoders. A prompt
extraction block (PEB) weighs learned prompt components by what it sees of the features; a prompt fusion block (PFB)
merges the prompt into them. Equations 1 to 3 of arXiv 2310.02663; images are in [0, 1] inside the network.

No code was published and the paper leaves most sizes open. Where it is silent the sizes are Restormer's and PromptIR's,
whose mechanism it names, with the two changes that it states: the gate is a 1x1 convolution, and a 3x3 convolution
follows the fusion. Our readings: equation 2 sums w_i P_i over i (it prints another index); the fusion returns as many
channels as the features have, so that every prompt block can be left out; the output is linear and has no residual to
the input, because source and target show different things. Ablations, of which the paper only says "remove":
``peb=False`` takes the plain mean of the components, ``pfb=False`` adds a 1x1 projection of the prompt,
``transformer=False`` puts a residual block of two 3x3 convolutions in the place of each Transformer block.

**Directions.** In the paper the target is not an input of the network, so that with one network a CT would have to
become MR in one task and CBCT in another. With ``task_conditioning = "none"``, as published, two directions from the
same source are therefore refused; ``embedding`` (ours) adds a learned vector for each direction to the first features
and to what each gate sees.

Presets. ``paper`` has 44,170,812 parameters, ``light`` 15,521,166, ``tiny`` trains on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.directions import Direction
from MedXlateCore.errors import UsageError
from MedXlateCore.models.blocks.checks import MAX_INPUTS, check_architecture, check_constants, check_images
from MedXlateCore.models.blocks.domains import Towards
from MedXlateCore.models.blocks.restormer import Downsample, TransformerBlock, Upsample
from MedXlateCore.models.method import Batch, Method, Recipe, TrainingState, check_choices
from MedXlateCore.models.registry import register_model
from MedXlateCore.training.augmentation import Augmentation
from MedXlateCore.training.losses import ssim_loss

__all__ = ["MedPrompt", "MedPromptConfig", "MedPromptNetwork", "MedPromptRecipeConfig"]

HEADS = (1, 2, 4, 8)
LEVELS = len(HEADS)
MAX_DIM = 128
MAX_DIRECTIONS = 64


@dataclass(frozen=True)
class MedPromptConfig:
    """MedPrompt's architecture. The defaults are the published network as we read it.

    Attributes:
        inputs: number of sources of every direction, stacked as channels.
        dim: channels at full resolution, a multiple of 8; doubled with each of three downsamplings.
        blocks: Transformer blocks a resolution, finest first; the last are the latent ones.
        refinement_blocks: further blocks at full resolution.
        components: prompt components of each prompt block.
        prompt_sizes: stored height and width of the components, deepest block first; resized to the features.
        prompt_init: ``uniform`` draws components from U(0, 1), ``normal`` from N(0, 0.02).
        peb: prompt extraction by a gate; else the plain mean of the components.
        pfb: prompt fusion by a Transformer block; else by adding a 1x1 projection.
        transformer: Transformer blocks; else residual convolution blocks of the same width.
        task_conditioning: ``none`` (as published) or ``embedding`` of the direction.
        allow_shared_source: let directions share their sources though nothing tells the network which is wanted.
        global_residual: add the first source to the output.
        output_activation: ``none``, ``sigmoid`` (on [0, 1]) or ``tanh`` (on [-1, 1]).
        directions: the directions it learns; filled in by a training.

    Raises:
        UsageError: ``MX-MOD-004`` (a value that is not among the choices), ``MX-MOD-005`` (a number out of its range).
    """

    inputs: int = 1
    dim: int = 48
    blocks: tuple[int, ...] = (4, 6, 6, 8)
    refinement_blocks: int = 4
    components: int = 5
    prompt_sizes: tuple[int, ...] = (16, 32, 64)
    prompt_init: Literal["uniform", "normal"] = "uniform"
    peb: bool = True
    pfb: bool = True
    transformer: bool = True
    task_conditioning: Literal["none", "embedding"] = "none"
    allow_shared_source: bool = False
    global_residual: bool = False
    output_activation: Literal["none", "sigmoid", "tanh"] = "none"
    directions: tuple[str, ...] = ("T1->T2",)

    def __post_init__(self) -> None:
        check_choices(self)
        check_architecture(1 <= self.inputs <= MAX_INPUTS, "inputs", self.inputs, f"1 to {MAX_INPUTS}")
        check_architecture(
            8 <= self.dim <= MAX_DIM and self.dim % 8 == 0, "dim", self.dim, f"a multiple of 8 of at most {MAX_DIM}"
        )
        few = len(self.blocks) == LEVELS and all(1 <= n <= 32 for n in self.blocks)
        check_architecture(few, "blocks", self.blocks, f"{LEVELS} numbers from 1 to 32")
        few = 0 <= self.refinement_blocks <= 32
        check_architecture(few, "refinement_blocks", self.refinement_blocks, "0 to 32")
        check_architecture(1 <= self.components <= 64, "components", self.components, "1 to 64")
        few = len(self.prompt_sizes) == LEVELS - 1 and all(1 <= n <= 256 for n in self.prompt_sizes)
        check_architecture(few, "prompt_sizes", self.prompt_sizes, f"{LEVELS - 1} numbers from 1 to 256")
        few = 1 <= len(self.directions) <= MAX_DIRECTIONS
        check_architecture(few, "directions", self.directions, f"1 to {MAX_DIRECTIONS} directions")

    @property
    def tasks(self) -> int:
        """Number of directions that the network is told apart; 0 without conditioning."""
        return len(self.directions) if self.task_conditioning == "embedding" else 0


class ConvolutionBlock(nn.Module):
    """Stands in for a Transformer block (ablation): ``x`` + two 3x3 convolutions with ReLU between. Shape is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply both convolutions with their residual."""
        return x + self.second(F.relu(self.first(x)))


def _block(config: MedPromptConfig, channels: int, heads: int) -> nn.Module:
    return TransformerBlock(channels, heads) if config.transformer else ConvolutionBlock(channels)


def _blocks(config: MedPromptConfig, channels: int, heads: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_block(config, channels, heads) for _ in range(count)))


class PromptExtraction(nn.Module):
    """Prompt extraction block (equation 2): features [B, C, H, W] to a prompt of the same shape."""

    def __init__(self, config: MedPromptConfig, channels: int, size: int) -> None:
        super().__init__()
        shape = (config.components, channels, size, size)
        components = torch.rand(shape) if config.prompt_init == "uniform" else torch.randn(shape) * 0.02
        self.components = nn.Parameter(components)
        if config.peb:
            self.gate = nn.Conv2d(channels, config.components, 1, bias=False)
            self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            if config.tasks:
                self.tasks = nn.Parameter(torch.randn(config.tasks, channels) * 0.02)

    def weights(self, x: Tensor, direction: int) -> Tensor:
        """Return how much of each component is taken, [B, N]; they sum to 1."""
        if not hasattr(self, "gate"):
            return x.new_full((x.shape[0], len(self.components)), 1 / len(self.components))
        seen = x.float().mean(dim=(2, 3), keepdim=True)
        if hasattr(self, "tasks"):
            seen = seen + self.tasks[direction].float().view(1, -1, 1, 1)
        return self.gate(seen).float().flatten(1).softmax(dim=1)

    def forward(self, x: Tensor, direction: int) -> Tensor:
        """Weigh the components, bring them to the features' size, convolve."""
        weights = self.weights(x, direction)
        prompt = torch.einsum("bn,nchw->bchw", weights, self.components.float()).to(x.dtype)
        prompt = F.interpolate(prompt, x.shape[2:], mode="bilinear", align_corners=False)
        prompt = prompt.contiguous(memory_format=torch.channels_last)
        return self.conv(prompt) if hasattr(self, "conv") else prompt


class PromptFusion(nn.Module):
    """Prompt fusion block (equation 3): features and prompt, [B, C, H, W] each, to features of the same shape."""

    def __init__(self, config: MedPromptConfig, channels: int, heads: int) -> None:
        super().__init__()
        self.block = _block(config, 2 * channels, heads)
        self.conv = nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        """Let features and prompt attend to each other."""
        return self.conv(self.block(torch.cat((x, prompt), dim=1)))


class PromptAddition(nn.Module):
    """Stands in for the prompt fusion (ablation): adds a 1x1 projection of the prompt."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        """Add the projected prompt."""
        return x + self.project(prompt)


class PromptBlock(nn.Module):
    """Self-adaptive prompt block (equation 1): extraction, then fusion. [B, C, H, W] to the same shape."""

    def __init__(self, config: MedPromptConfig, channels: int, heads: int, size: int) -> None:
        super().__init__()
        self.extraction = PromptExtraction(config, channels, size)
        self.fusion = PromptFusion(config, channels, heads) if config.pfb else PromptAddition(channels)

    def forward(self, x: Tensor, direction: int) -> Tensor:
        """Prompt the features."""
        return self.fusion(x, self.extraction(x, direction))


class MedPromptNetwork(nn.Module):
    """MedPrompt; see ``MedPromptConfig``."""

    def __init__(self, config: MedPromptConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.dim * 2**s for s in range(LEVELS)]
        decoded = [2 * config.dim, *widths[1:-1]]  # the finest skip is concatenated and stays so
        self.stem = nn.Conv2d(config.inputs, config.dim, 3, padding=1, bias=False)
        if config.tasks:
            self.tasks = nn.Parameter(torch.randn(config.tasks, config.dim) * 0.02)
        self.encoders = nn.ModuleList(_blocks(config, *s) for s in zip(widths, HEADS, config.blocks, strict=True))
        self.downs = nn.ModuleList(Downsample(width) for width in widths[:-1])
        self.prompts = nn.ModuleList(
            PromptBlock(config, *size) for size in zip(widths[:0:-1], HEADS[:0:-1], config.prompt_sizes, strict=True)
        )
        self.ups = nn.ModuleList(Upsample(width) for width in widths[1:])
        self.reduces = nn.ModuleList(nn.Conv2d(2 * width, width, 1, bias=False) for width in widths[1:-1])
        self.decoders = nn.ModuleList(
            _blocks(config, *s) for s in zip(decoded, HEADS[:-1], config.blocks[:-1], strict=True)
        )
        self.refinement = _blocks(config, decoded[0], HEADS[0], config.refinement_blocks)
        self.output = nn.Conv2d(decoded[0], 1, 3, padding=1, bias=False)
        # pixel by pixel in memory: norms and attention need no copies, convolutions are faster
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor, roi: Tensor | None = None, direction: int = 0) -> Tensor:
        """Synthesise the target.

        Args:
            images: sources [B, S, H, W] in [-1, 1], in the order of the direction's sources.
            roi: not looked at; this network takes no region.
            direction: position of the direction in the configuration; without conditioning it does not matter.

        Returns:
            Target [B, 1, H, W] in [-1, 1]; while training, what lies beyond is left, so that losses see it.

        Raises:
            InputError: ``MX-MOD-007`` (height or width not a multiple of 8), ``MX-MOD-008`` (wrong number of channels).
        """
        check_images(images, self.config.inputs, 2 ** (LEVELS - 1))
        source = (images.contiguous(memory_format=torch.channels_last) + 1) / 2
        x = self.stem(source)
        if self.config.tasks:
            x = x + self.tasks[direction].view(1, -1, 1, 1).to(x.dtype)
        result = self._finished(self._decoded(x, direction), source)
        return result if self.training else result.clamp(-1, 1)

    def _decoded(self, x: Tensor, direction: int) -> Tensor:
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders[:-1], self.downs, strict=True):
            skips.append(encoder(x))
            x = down(skips[-1])
        x = self.prompts[0](self.encoders[-1](x), direction)
        for s in range(LEVELS - 2, -1, -1):
            x = torch.cat((self.ups[s](x), skips.pop()), dim=1)
            x = self.decoders[s](self.reduces[s - 1](x) if s else x)
            if s:
                x = self.prompts[LEVELS - 1 - s](x, direction)
        return self.refinement(x)

    def _finished(self, x: Tensor, source: Tensor) -> Tensor:
        image = self.output(x).float()
        if self.config.global_residual:
            image = image + source[:, :1]
        if self.config.output_activation == "tanh":
            return torch.tanh(image)
        return 2 * (torch.sigmoid(image) if self.config.output_activation == "sigmoid" else image) - 1

    @torch.no_grad()
    def prompt_weights(self, images: Tensor, direction: int = 0) -> Tensor:
        """Return how much of each prompt component is taken: [B, prompt blocks (deepest first), N].

        Args:
            images: as in ``forward``.
            direction: as in ``forward``.
        """
        seen: list[Tensor] = []

        def keep(module: nn.Module, inputs: tuple[Tensor, int]) -> None:
            """Keep the weights that a prompt block is about to use."""
            seen.append(cast(PromptExtraction, module).weights(*inputs))

        blocks = [module for module in self.prompts.modules() if isinstance(module, PromptExtraction)]
        hooks = [block.register_forward_pre_hook(keep) for block in blocks]
        try:
            self(images, None, direction)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(seen, dim=1)


@dataclass(frozen=True)
class MedPromptRecipeConfig:
    """MedPrompt's training: MSE + 0.4 (1 - SSIM) on [0, 1], Adam at 1e-4 with its default betas.

    Attributes:
        learning_rate: of Adam.
        schedule: ``constant``, or ``cosine`` to zero; the paper names none.
        ssim_weight: weight of ``1 - SSIM`` (Gaussian window of 11 pixels, sigma 1.5); the paper says 0.4 and not how
            SSIM is taken, this is a sister project's.
        augmentation: how slices are changed at random; mixing stays within a direction.

    Raises:
        UsageError: ``MX-MOD-004``, ``MX-MOD-006``, a value outside its range.
    """

    learning_rate: float = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    ssim_weight: float = 0.4
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        check_choices(self)
        check_constants(self, {"learning_rate": (0, 1), "ssim_weight": (0, 1e6)})


class MedPromptRecipe(Recipe):
    """One stage, nothing frozen, one direction a batch."""

    def __init__(self, config: MedPromptConfig, recipe_config: MedPromptRecipeConfig) -> None:
        self.recipe_config = recipe_config
        self._network = MedPromptNetwork(config)

    def networks(self) -> dict[str, nn.Module]:
        """Return ``generator``."""
        return {"generator": self._network}

    def optimisers(self, learning_rate: float | None = None) -> dict[str, torch.optim.Optimizer]:
        """Return Adam with its default betas."""
        rate = self.recipe_config.learning_rate if learning_rate is None else learning_rate
        return {"generator": torch.optim.Adam(self._network.parameters(), lr=rate)}

    def learning_rate_factor(self, progress: float) -> float:
        """Constant, or half a cosine to zero."""
        if self.recipe_config.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def step(self, batch: Batch, state: TrainingState) -> dict[str, float]:
        """Change the slices at random, predict, and do one step."""
        batch = self.recipe_config.augmentation.apply(batch, state.generator)
        made = (state.networks["generator"](batch.images, None, batch.direction) + 1) / 2
        truth = (batch.target + 1) / 2
        losses = {"mse": F.mse_loss(made, truth), "ssim": ssim_loss(made, truth)}
        total = losses["mse"] + self.recipe_config.ssim_weight * losses["ssim"]
        optimiser = state.optimisers["generator"]
        optimiser.zero_grad(set_to_none=True)
        state.backward(total)
        optimiser.step()
        values = torch.stack([loss.detach().float() for loss in (total, *losses.values())]).tolist()
        return dict(zip(("generator", *losses), values, strict=True))


@register_model("medprompt")
class MedPrompt(Method):
    """Restormer with self-adaptive prompts, for many directions of translation in one network."""

    config_type = MedPromptConfig
    recipe_type = MedPromptRecipeConfig
    presets = {
        "paper": MedPromptConfig(),
        "light": MedPromptConfig(dim=32, blocks=(2, 3, 3, 4), refinement_blocks=2),
        "tiny": MedPromptConfig(dim=8, blocks=(1, 1, 2, 2), refinement_blocks=1, prompt_sizes=(8, 16, 32)),
    }
    recipe_presets = {
        "tiny": MedPromptRecipeConfig(
            learning_rate=1e-3,
            schedule="cosine",
            augmentation=Augmentation(rotate90=0.0, transpose=0.0, rotate=0.3, largest_angle=10.0, mix=0.0),
        )
    }
    citation = (
        "Chen X, Pun CM, Wang S. MedPrompt: Cross-Modal Prompting for Multi-Task Medical Image Translation. "
        "PRCV 2024; arXiv:2310.02663."
    )

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised network."""
        return MedPromptNetwork(config)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with a fresh network."""
        return MedPromptRecipe(config, recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return the number of stacked sources."""
        return config.inputs

    def size_multiple(self, config: Any) -> int:
        """Return 8, for three downsamplings."""
        return 2 ** (LEVELS - 1)

    def check_directions(self, config: Any, directions: Sequence[Direction]) -> None:
        """Check that nothing the network cannot know decides the target.

        Raises:
            UsageError: ``MX-TRN-013``, see ``Method``; ``MX-TRN-014``, two directions have the same sources and the
                network is not told which is wanted.
        """
        super().check_directions(config, directions)
        if config.task_conditioning == "embedding" or config.allow_shared_source:
            return
        seen: dict[tuple[str, ...], Direction] = {}
        for direction in directions:
            other = seen.setdefault(tuple(sorted(direction.sources)), direction)
            if other is not direction:
                raise UsageError(
                    "MX-TRN-014",
                    f"{other} and {direction} start from the same source, and the network is not told which is wanted",
                    expected="directions from different sources, or conditioning on the direction",
                    where="[data] directions, [model.config] task_conditioning",
                    fix='set task_conditioning = "embedding" (or allow_shared_source, to see what happens)',
                )

    def towards(self, network: nn.Module, config: Any, direction: int) -> nn.Module:
        """Return the network for one of its directions."""
        return Towards(network, direction) if config.tasks else network
