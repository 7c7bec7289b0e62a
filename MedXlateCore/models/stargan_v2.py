"""StarGAN v2: one generator for all domains, told by a style where to go; learned without pairs.

Choi et al., "StarGAN v2: Diverse Image Synthesis for Multiple Domains", CVPR 2020, section 3 and appendix; written from
the paper. **Training is unpaired**: the target of a training slice is a slice of another position and patient and
serves as an example of its domain only; the card of a model says so (``training.unpaired``). Domains are the modalities
of the directions that are trained; each direction has one source.

A mapping network makes styles of a domain from random codes, a style encoder reads them from images, and the generator
gets them by adaptive instance normalisation. **Evaluation has no randomness**: it takes the target domain's mean style,
over 64 random codes that are drawn once with a fixed seed and stored with the weights.

Presets. ``paper`` has the published sizes for slices of 256 x 256 pixels (style 64, code 16, mapping network of 4
shared and 4 own layers of 512), non-saturating GAN with R1, weights 1 for style, cycle and diversity, of which the last
falls to 0 over 100,000 steps, Adam (0, 0.99) at 1e-4 (mapping network 1e-6), weight decay 1e-4, batch 8. ``tiny``
trains on a CPU.

For medical images there is one channel and no high-pass branch. Ours: results by random codes and by reference images
are judged in one step of each network instead of two; larger slices than 256 x 256 are judged at all positions and
averaged; the output is linear as published, and cut to [-1, 1] in evaluation. A modality that is only ever a source has
a style (for the cycle) but no discriminator and no mapping network. It takes no region prompts.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.checks import check_architecture, check_constants, check_images
from MedXlateCore.models.blocks.domains import Domains, Towards
from MedXlateCore.models.blocks.init import channels_last
from MedXlateCore.models.blocks.norms import InstanceNorm
from MedXlateCore.models.blocks.style import StyleBlock, init_he
from MedXlateCore.models.blocks.updates import descend, figures, held
from MedXlateCore.models.method import Batch, Method, Recipe, TrainingState
from MedXlateCore.models.registry import register_model
from MedXlateCore.training.losses import l1, r1_penalty, softplus_discriminator, softplus_generator

__all__ = ["StarGanV2", "StarGanV2Config", "StarGanV2Network", "StarGanV2Recipe", "StarGanV2RecipeConfig"]

MAX_WIDTH, MAX_DOWNS, MAX_DOMAINS = 1024, 6, 16
CODES, CODES_SEED = 64, 0  # of the mean style
JUDGED = 4  # size of the map that the last convolution of a judge sees, for the published slices
MAPPING_LAYERS = 4  # shared ones, and as many of each domain


@dataclass(frozen=True)
class StarGanV2Config:
    """The networks' architecture. The defaults are the published one for slices of 256 x 256 pixels.

    Attributes:
        width: channels at full resolution, doubled with each halving.
        largest_width: but no more than this.
        downs: halvings in the generator.
        bottleneck: blocks at the generator's lowest resolution that know no style, and as many that do.
        judge_downs: halvings in discriminator and style encoder.
        style: length of a style.
        code: length of the random code from which the mapping network makes a style.
        hidden: width of the mapping network.
        directions: the directions it learns; filled in by a training.

    Raises:
        UsageError: ``MX-MOD-005``, a number out of its range; from ``Domains.of`` for the directions.
    """

    width: int = 64
    largest_width: int = 512
    downs: int = 4
    bottleneck: int = 2
    judge_downs: int = 6
    style: int = 64
    code: int = 16
    hidden: int = 512
    directions: tuple[str, ...] = ("T1->T2", "T2->T1")

    def __post_init__(self) -> None:
        ranges = dict.fromkeys(("width", "largest_width", "style", "code", "hidden"), MAX_WIDTH)
        for name, most in (ranges | {"downs": MAX_DOWNS, "judge_downs": MAX_DOWNS, "bottleneck": MAX_DOWNS}).items():
            check_architecture(1 <= getattr(self, name) <= most, name, getattr(self, name), f"1 to {most}")
        self.domains()

    def domains(self) -> Domains:
        """Return the modalities of the directions, targets first."""
        return Domains.of(self.directions, MAX_DOMAINS)

    def widths(self, downs: int) -> list[int]:
        """Return the channels at each of ``downs`` + 1 resolutions, finest first."""
        return [min(self.width * 2**n, self.largest_width) for n in range(downs + 1)]


class MappingNetwork(nn.Module):
    """Random codes [B, code] to styles [B, style] of a domain."""

    def __init__(self, config: StarGanV2Config, domains: int) -> None:
        super().__init__()
        sizes = [config.code] + [config.hidden] * MAPPING_LAYERS
        pairs = itertools.pairwise(sizes)
        self.shared = nn.Sequential(*(layer for a, b in pairs for layer in (nn.Linear(a, b), nn.ReLU())))
        self.own = nn.ModuleList(self._head(config) for _ in range(domains))

    @staticmethod
    def _head(config: StarGanV2Config) -> nn.Sequential:
        hidden = [
            layer for _ in range(MAPPING_LAYERS - 1) for layer in (nn.Linear(config.hidden, config.hidden), nn.ReLU())
        ]
        return nn.Sequential(*hidden, nn.Linear(config.hidden, config.style))

    def forward(self, codes: Tensor, domain: int) -> Tensor:
        """Map."""
        return self.own[domain](self.shared(codes))


class StarGanV2Network(nn.Module):
    """Generator and mapping network; see ``StarGanV2Config``."""

    codes: Tensor

    def __init__(self, config: StarGanV2Config) -> None:
        super().__init__()
        self.config, self.domains = config, config.domains()
        widths = config.widths(config.downs)
        steps = list(itertools.pairwise(widths))
        self.stem = nn.Conv2d(1, widths[0], 1)
        encoder = [StyleBlock(a, b, 0, 0.5) for a, b in steps]
        self.encoder = nn.Sequential(
            *encoder, *(StyleBlock(widths[-1], widths[-1], 0) for _ in range(config.bottleneck))
        )
        decoder = [StyleBlock(widths[-1], widths[-1], config.style) for _ in range(config.bottleneck)]
        self.decoder = nn.ModuleList([*decoder, *(StyleBlock(b, a, config.style, 2) for a, b in reversed(steps))])
        self.last_norm = InstanceNorm(widths[0], affine=True)
        self.output = nn.Conv2d(widths[0], 1, 1)
        self.mapping = MappingNetwork(config, self.domains.targets)
        init_he(self)
        channels_last(self)
        fixed = torch.Generator().manual_seed(CODES_SEED)
        self.register_buffer("codes", torch.randn(CODES, config.code, generator=fixed, device="cpu"))

    def forward(
        self,
        images: Tensor,
        roi: Tensor | None = None,
        direction: int = 0,
        codes: Tensor | None = None,
        style: Tensor | None = None,
    ) -> Tensor:
        """Synthesise the target.

        Args:
            images: the source [B, 1, H, W] in [-1, 1].
            roi: not looked at; this network takes no prompt.
            direction: position of the direction in the configuration.
            codes: random codes [B, code], whose styles of the direction's target are returned instead of an image.
            style: styles [B or 1, style] to use instead of the mean one of the direction's target.

        Returns:
            Target [B, 1, H, W] in [-1, 1]; while training, what lies beyond is left, so that losses see it.

        Raises:
            InputError: ``MX-MOD-007`` (height or width not a multiple of 2^downs), ``MX-MOD-008`` (wrong number of
                channels).
        """
        check_images(images, 1, 2**self.config.downs)
        target = self.domains.pairs[direction][1]
        if codes is not None:
            return self.mapping(codes, target)
        if style is None:
            style = self.mapping(self.codes, target).mean(dim=0, keepdim=True)  # one for all slices
        x = self.encoder(self.stem(images.contiguous(memory_format=torch.channels_last)))
        for block in self.decoder:
            x = block(x, style)
        result = self.output(F.leaky_relu(self.last_norm(x), 0.2)).float()
        return result if self.training else result.clamp(-1, 1)


class Judge(nn.Module):
    """An image [B, 1, H, W] to one vector [B, outputs] for each of several domains: discriminator or style encoder."""

    def __init__(self, config: StarGanV2Config, outputs: int, domains: int) -> None:
        super().__init__()
        widths = config.widths(config.judge_downs)
        blocks = [StyleBlock(a, b, scale=0.5) for a, b in itertools.pairwise(widths)]
        self.trunk = nn.Sequential(nn.Conv2d(1, widths[0], 1), *blocks, nn.LeakyReLU(0.2))
        self.last = nn.Conv2d(widths[-1], widths[-1], JUDGED)
        self.heads = nn.ModuleList(nn.Linear(widths[-1], outputs) for _ in range(domains))
        self.smallest = 2**config.judge_downs
        init_he(self)

    def forward(self, images: Tensor, domain: int) -> Tensor:
        """Judge for a domain; images too small for it are padded with background."""
        height, width = images.shape[2:]
        right, below = (max(0, JUDGED * self.smallest - size) for size in (width, height))
        x = self.last(self.trunk(F.pad(images, (0, right, 0, below), value=-1.0)))
        return self.heads[domain](F.leaky_relu(x, 0.2).mean(dim=(2, 3)))


@dataclass(frozen=True)
class StarGanV2RecipeConfig:
    """StarGAN v2's training. The defaults are the published ones.

    Attributes:
        learning_rate: of Adam (betas 0, 0.99).
        mapping_rate: learning rate of the mapping network as a multiple of ``learning_rate``.
        weight_decay: of Adam.
        style_weight, cycle_weight, diversity_weight: weights of these terms.
        diversity_steps: steps after which the diversity term is gone.
        r1_weight: weight of the gradient penalty.

    Raises:
        UsageError: ``MX-MOD-006``, a constant outside its range.
    """

    learning_rate: float = 1e-4
    mapping_rate: float = 0.01
    weight_decay: float = 1e-4
    style_weight: float = 1.0
    cycle_weight: float = 1.0
    diversity_weight: float = 1.0
    diversity_steps: int = 100_000
    r1_weight: float = 1.0

    def __post_init__(self) -> None:
        weights = ("style_weight", "cycle_weight", "diversity_weight", "r1_weight", "weight_decay")
        ranges = {"learning_rate": (0.0, 1.0), "mapping_rate": (0.0, 100.0), "diversity_steps": (1.0, 1e9)}
        check_constants(self, ranges | dict.fromkeys(weights, (0.0, 1e6)))


class StarGanV2Recipe(Recipe):
    """One step of the discriminator, then one of all else; one direction a batch."""

    def __init__(self, config: StarGanV2Config, recipe_config: StarGanV2RecipeConfig) -> None:
        self.config, self.recipe_config, self._domains = config, recipe_config, config.domains()
        self._networks: dict[str, nn.Module] = {
            "generator": StarGanV2Network(config),
            "style_encoder": Judge(config, config.style, len(self._domains.names)),
            "discriminator": Judge(config, 1, self._domains.targets),
        }

    def networks(self) -> dict[str, nn.Module]:
        """Return ``generator`` (with the mapping network), ``style_encoder`` and ``discriminator``."""
        return self._networks

    def optimisers(self, learning_rate: float | None = None) -> dict[str, torch.optim.Optimizer]:
        """Return one Adam a network (betas 0, 0.99); the mapping network has a rate of its own."""
        rate = self.recipe_config.learning_rate if learning_rate is None else learning_rate
        optimisers: dict[str, torch.optim.Optimizer] = {}
        for name, network in self._networks.items():
            named = list(network.named_parameters())
            groups = [{"params": [p for key, p in named if not key.startswith("mapping.")], "lr": rate}]
            if mapping := [p for key, p in named if key.startswith("mapping.")]:
                groups.append({"params": mapping, "lr": rate * self.recipe_config.mapping_rate})
            optimisers[name] = torch.optim.Adam(groups, betas=(0.0, 0.99), weight_decay=self.recipe_config.weight_decay)
        return optimisers

    def learning_rate_factor(self, progress: float) -> float:
        """Return 1: constant."""
        return 1.0

    def step(self, batch: Batch, state: TrainingState) -> dict[str, float]:
        """Translate by random codes and by reference images of the target's domain, twice each; judge, descend."""
        generator, encoder = state.networks["generator"], state.networks["style_encoder"]
        target = self._domains.pairs[batch.direction][1]
        shape = (2, len(batch.images), self.config.code)
        codes = torch.randn(shape, generator=state.generator, device=batch.images.device)
        drawn = [generator(batch.images, None, batch.direction, codes=code) for code in codes]
        with torch.no_grad():
            read = [encoder(image, target) for image in (batch.target, batch.target.roll(1, 0))]
        losses = self._discriminator_step(batch, [drawn[0].detach(), read[0]], state)
        losses |= self._generator_step(batch, [(drawn[0], drawn[1].detach()), (read[0], read[1])], state)
        return figures(losses)

    def _discriminator_step(self, batch: Batch, styles: list[Tensor], state: TrainingState) -> dict[str, Tensor]:
        judge, target = state.networks["discriminator"], self._domains.pairs[batch.direction][1]
        with torch.no_grad():
            fakes = [state.networks["generator"](batch.images, None, batch.direction, style=style) for style in styles]
        real = batch.target.detach().clone().requires_grad_(True)
        scores = judge(real, target)
        losses = {"discriminator": softplus_discriminator(scores, judge(torch.cat(fakes), target))}
        losses["r1"] = r1_penalty(scores, real)
        descend(state, ["discriminator"], losses["discriminator"] + self.recipe_config.r1_weight * losses["r1"])
        return losses

    def _generator_step(
        self, batch: Batch, styles: list[tuple[Tensor, Tensor]], state: TrainingState
    ) -> dict[str, Tensor]:
        """Descend for pairs of styles: the first is learned from, the second makes the image to differ from."""
        generator, encoder, judge = (state.networks[n] for n in ("generator", "style_encoder", "discriminator"))
        source, target = self._domains.pairs[batch.direction]
        own_style, terms = encoder(batch.images, source), []
        with held(judge):
            for style, other_style in styles:
                fake = generator(batch.images, None, batch.direction, style=style)
                with torch.no_grad():
                    other = generator(batch.images, None, batch.direction, style=other_style)
                adversarial, told = softplus_generator(judge(fake, target)), l1(encoder(fake, target), style)
                cycle = l1(generator(fake, None, batch.direction, style=own_style), batch.images)
                terms.append(torch.stack((adversarial, told, cycle, l1(fake, other))))
            losses = dict(
                zip(("adversarial", "style", "cycle", "diversity"), torch.stack(terms).sum(dim=0), strict=True)
            )
            total = torch.stack([losses[name] * weight for name, weight in self._weights(state.step).items()]).sum()
            descend(state, ["generator", "style_encoder"], total)
        return {"generator": total, **losses}

    def _weights(self, step: int) -> dict[str, float]:
        weights = self.recipe_config
        left = max(0.0, 1.0 - step / weights.diversity_steps)
        own = {"adversarial": 1.0, "style": weights.style_weight, "cycle": weights.cycle_weight}
        return own | {"diversity": -weights.diversity_weight * left}


@register_model("stargan_v2")
class StarGanV2(Method):
    """One generator for several modalities, told by styles, trained without pairs, for one source at a time."""

    config_type = StarGanV2Config
    recipe_type = StarGanV2RecipeConfig
    presets = {
        "paper": StarGanV2Config(),
        "tiny": StarGanV2Config(
            width=12, largest_width=48, downs=2, bottleneck=1, judge_downs=3, style=16, code=8, hidden=64
        ),
    }
    recipe_presets = {"tiny": StarGanV2RecipeConfig(diversity_steps=1000)}
    citation = (
        "Choi Y, Uh Y, Yoo J, Ha JW. StarGAN v2: Diverse Image Synthesis for Multiple Domains. CVPR 2020, 8185-8194."
    )
    unpaired = True

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised network."""
        return StarGanV2Network(config)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with fresh networks."""
        return StarGanV2Recipe(config, recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return 1."""
        return 1

    def size_multiple(self, config: Any) -> int:
        """Return 2^downs."""
        return 2**config.downs

    def towards(self, network: nn.Module, config: Any, direction: int) -> nn.Module:
        """Return the network for one of its directions."""
        return Towards(network, direction)
