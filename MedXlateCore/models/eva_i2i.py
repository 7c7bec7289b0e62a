"""EVA-I2I: a target is a sentence about an acquisition (Cell Reports Methods, "All-in-one medical image-to-image
translation"; the authors' code is "Virtual sequence").

An image becomes a code of structure; a decoder whose kernels are made from the sentence's vector makes the image that
the sentence describes. The vectors come from DCLIP (``dclip``), trained first and frozen then. Nothing has to be known
of the source. Slices of all three planes; sizes that are a multiple of 4.

Presets. ``paper`` has the published sizes: image encoder 29.9 M, text encoder 123.3 M, structure encoder 10.2 M,
decoder 56.3 M, discriminator 67.4 M parameters. ``tiny`` trains on one CPU core.

The article was at hand as a digest only; architecture and losses follow a description of the authors' code, which
cannot run unmodified. Where it is silent or at fault:

- Dynamic convolutions are grouped, not looped over the batch; how their linear maps start is ours (see ``hyper``).
- The pixel contrast takes random foreground positions, not the first 1,024 in raster order.
- The weight of the reconstruction is 10 in both stages; there the unused terms were set equal to it in the first stage,
  so that it was 15.1.
- Generator and discriminator see the same masked images; there the generator's image of the intermediate domain was
  masked for the discriminator only.
- The content terms are taken where source and target are both foreground or both background, as the reconstruction.
- The discriminator learns in the last stage only, in which the generator listens to it.
- Our "T1 atlas" is the known domain nearest to a plain T1-weighted image of the source's organ, said in few words.
- Two switches for short trainings are ours; ``paper`` leaves them off, ``tiny`` has them. ``slope``: see ``Decoder``.
  ``text_gain``: DCLIP's vectors have length 1, so that the linear maps of the dynamic convolutions start out deaf to
  them; multiplied by the root of their 32 components they are as loud as the vectors of the ``onehot`` encoding.
- Images are in [-1, 1] outside; beyond 1 only while training. Slices of one batch have one size.
- Positions of the image encoder's pooling are interpolated, so that slices other than 256 x 256 work.

Ablations, of which only the names are published. ``domain_encoding``: ``onehot`` is a learned vector for each domain of
the training data, and an unknown sentence takes the nearest of them; ``frozen_text`` is a text encoder that is not
trained (random weights, unless others are loaded into it) with a trained projection. Both go without DCLIP, hence
without its first stage and its term. ``structure_backbone``: see ``structure``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from MedXlateCore.acquisition import Acquisition, Plane
from MedXlateCore.directions import parse_direction
from MedXlateCore.models.blocks.checks import check_architecture, check_images
from MedXlateCore.models.blocks.eva_recipe import EvaRecipe, EvaRecipeConfig
from MedXlateCore.models.blocks.precision import full_precision
from MedXlateCore.models.blocks.structure import STRIDE, Backbone, Decoder, StructureEncoder
from MedXlateCore.models.blocks.text import TextTransformer
from MedXlateCore.models.dclip import DCLIP_PRESETS, Dclip, DclipConfig, tokens_of
from MedXlateCore.models.method import Method, Recipe, check_choices
from MedXlateCore.models.registry import register_model
from MedXlateCore.prompts.acquisition_text import describe, parse
from MedXlateCore.prompts.domains import nearest_domain
from MedXlateCore.prompts.tokens import END
from MedXlateCore.weighting import facts_of_role

__all__ = ["EvaConfig", "EvaI2I", "EvaNetwork", "TowardsVector", "known_domains"]

MAX_DOMAINS = 2000
MAX_DIRECTIONS = 64

Encoding = Literal["dclip", "onehot", "frozen_text"]


@dataclass(frozen=True)
class EvaConfig:
    """EVA-I2I's networks. The defaults are the published ones.

    Attributes:
        dclip: the encoders of images and sentences.
        widths: channels of structure encoder and decoder at full, half and quarter resolution.
        structure_blocks: blocks of the structure encoder at half and at quarter resolution.
        decoder_blocks: hyper-blocks of the decoder at half and at quarter resolution.
        rank: of the dynamic convolutions.
        layer_scale: at which the gains of blocks start.
        slope: of the decoder's output below black, see ``Decoder``.
        text_gain: DCLIP's vectors, of length 1, are multiplied by it before the decoder; 1 as published.
        domain_encoding: how a target becomes a vector.
        structure_backbone: blocks of the structure encoder.
        directions: translations between modalities by their names, such as ``T1->T2``; filled in by a training. Any
            other target can be asked for in words.
        domains: a sentence for each domain of the training data; filled in by a training. Without any, the targets of
            the directions count as known.

    Raises:
        UsageError: ``MX-MOD-004`` (not among the choices), ``MX-MOD-005`` (a number out of its range), ``MX-USE-050``
            and ``MX-USE-010`` (not a direction), ``MX-TXT-001`` to ``-006`` (not a domain).
    """

    dclip: DclipConfig = field(default_factory=DclipConfig)
    widths: tuple[int, int, int] = (96, 192, 384)
    structure_blocks: tuple[int, int] = (1, 3)
    decoder_blocks: tuple[int, int] = (1, 3)
    rank: int = 16
    layer_scale: float = 1e-6
    slope: float = 0.01
    text_gain: float = 1.0
    domain_encoding: Encoding = "dclip"
    structure_backbone: Backbone = "convnext"
    directions: tuple[str, ...] = ("T1->T2", "T2->T1")
    domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choices(self)
        few = len(self.widths) == 3 and all(1 <= n <= 2048 for n in self.widths)
        check_architecture(few, "widths", self.widths, "3 numbers from 1 to 2048")
        for name in ("structure_blocks", "decoder_blocks"):
            blocks = getattr(self, name)
            few = len(blocks) == 2 and 0 <= blocks[0] <= 32 and 1 <= blocks[1] <= 32
            check_architecture(few, name, blocks, "0 to 32, and 1 to 32")
        check_architecture(1 <= self.rank <= 256, "rank", self.rank, "1 to 256")
        check_architecture(0 <= self.layer_scale <= 10, "layer_scale", self.layer_scale, "0 to 10")
        check_architecture(0 <= self.slope <= 1, "slope", self.slope, "0 to 1")
        check_architecture(0 < self.text_gain <= 100, "text_gain", self.text_gain, "above 0, at most 100")
        several = 1 <= len(self.directions) <= MAX_DIRECTIONS
        check_architecture(several, "directions", self.directions, f"1 to {MAX_DIRECTIONS} directions")
        single = all(len(parse_direction(text, "directions").sources) == 1 for text in self.directions)
        check_architecture(single, "directions", list(self.directions), "directions from one source each")
        few = len(set(self.domains)) == len(self.domains) <= MAX_DOMAINS
        check_architecture(few, "domains", len(self.domains), f"at most {MAX_DOMAINS} different sentences")
        known_domains(self)

    def targets(self) -> tuple[str, ...]:
        """Return the target of each direction."""
        return tuple(parse_direction(text, "directions").target for text in self.directions)


def known_domains(config: EvaConfig) -> Mapping[str, Acquisition]:
    """Return the facts of the domains that a network was trained on, by their sentences."""
    return _facts_of(config.domains or tuple(describe(facts_of_role(name)) for name in config.targets()))


@lru_cache(maxsize=8)
def _facts_of(sentences: tuple[str, ...]) -> dict[str, Acquisition]:
    return {sentence: parse(sentence).facts for sentence in sentences}


def plain_facts(config: EvaConfig, modality: str, plane: Plane) -> Acquisition:
    """Return what a target named by its modality is: the nearest known domain's facts, in the slices' plane."""
    domains = known_domains(config)
    wanted = facts_of_role(modality).with_facts(plane=plane)
    return domains[nearest_domain(wanted, domains).name].with_facts(plane=plane)


class FrozenText(nn.Module):
    """Sentences to vectors by a text encoder that is never trained, and a projection that is."""

    def __init__(self, config: DclipConfig) -> None:
        super().__init__()
        width = config.text_width
        self.text = TextTransformer(
            config.vocabulary, config.context, width, config.text_layers, config.text_heads, width, END
        ).requires_grad_(False)
        self.project = nn.Linear(width, config.vector)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return vectors [N, D] of tokens [N, L]."""
        with torch.no_grad():
            known = nn.functional.normalize(self.text(tokens).float(), dim=1) * self.project.in_features**0.5
        return self.project(known)


class EvaNetwork(nn.Module):
    """EVA-I2I; see ``EvaConfig``. It holds all that inference needs, DCLIP's image encoder (the gate) included."""

    def __init__(self, config: EvaConfig) -> None:
        super().__init__()
        self.config = config
        vector = config.dclip.vector
        self.structure = StructureEncoder(
            config.widths, config.structure_blocks, config.structure_backbone, config.layer_scale
        )
        self.decoder = Decoder(
            config.widths, config.decoder_blocks, vector, config.rank, config.layer_scale, config.slope
        )
        if config.domain_encoding == "dclip":
            self.dclip = Dclip(config.dclip)
        elif config.domain_encoding == "frozen_text":
            self.frozen_text = FrozenText(config.dclip)
        else:
            self.codes = nn.Embedding(len(known_domains(config)), vector)

    def vectors(self, asked: Tensor) -> Tensor:
        """Return the vectors [N, D] of what is asked for: tokens [N, L], or with ``onehot`` numbers of domains [N].

        In full precision: it is done once for a target, and what is lost here is lost in every pixel.
        """
        with full_precision(asked):
            if self.config.domain_encoding == "dclip":
                return self.dclip.text_vectors(asked)
            return (self.frozen_text if self.config.domain_encoding == "frozen_text" else self.codes)(asked)

    def asked(self, facts: Acquisition, detail: Literal["all", "none"] = "all") -> Tensor:
        """Return what stands for one target: tokens [1, L], or with ``onehot`` the number [1] of the nearest domain.

        Args:
            facts: of the target.
            detail: whether optional sentences are said.

        Raises:
            UsageError: ``MX-TXT-002`` (too many words), ``MX-MOD-100`` (trained with another vocabulary).
        """
        if self.config.domain_encoding == "onehot":
            domains = known_domains(self.config)
            numbers = torch.tensor([list(domains).index(nearest_domain(facts, domains).name)])
        elif self.config.domain_encoding == "dclip":
            numbers = self.dclip.tokens([describe(facts, optional=detail)])
        else:
            numbers = tokens_of([describe(facts, optional=detail)], self.config.dclip.context)
        return numbers.to(next(self.parameters()).device)

    def forward(
        self,
        images: Tensor,
        roi: Tensor | None = None,
        direction: int = 0,
        *,
        vectors: Tensor | None = None,
        wanted: Literal["image", "code", "decoded", "vectors", "image_vectors", "pairs"] = "image",
        asked: Tensor | None = None,
    ) -> Any:
        """Synthesise the target.

        Args:
            images: source [B, 1, H, W] in [-1, 1].
            roi: not looked at; this network takes no region.
            direction: position of the direction in the configuration, where no vectors are given.
            vectors: of the wanted sentences, [B, D], or [1, D] for all images.
            wanted: for training, a part: ``code`` of images; ``decoded`` image of codes and vectors; ``vectors`` of
                ``asked``; ``image_vectors`` of images by DCLIP; ``pairs``, the vectors of images and of ``asked``.
            asked: tokens or numbers of domains.

        Returns:
            Target [B, 1, H, W] in [-1, 1]; while training, what lies beyond is left, so that losses see it.

        Raises:
            InputError: ``MX-MOD-007`` (height or width not a multiple of 4), ``MX-MOD-008`` (wrong number of channels).
        """
        if wanted == "decoded":
            return self.decoder(images, self._gained(vectors))  # type: ignore[arg-type]
        if wanted == "vectors":
            return self.vectors(asked)  # type: ignore[arg-type]
        check_images(images, 1, STRIDE)
        if wanted == "pairs":
            return self.dclip(images, asked)
        if wanted == "image_vectors":
            return self.dclip.image_vectors(images)
        code = self.structure(images)
        if wanted == "code":
            return code
        image = self.decoder(code, self._gained(self.direction_vector(direction) if vectors is None else vectors))
        return image if self.training else image.clamp(-1, 1)

    def _gained(self, vectors: Tensor) -> Tensor:
        """Return vectors as the decoder takes them: those of sentences longer, by the configured factor."""
        return self.config.text_gain * vectors if self.config.domain_encoding == "dclip" else vectors

    def direction_vector(self, direction: int, plane: Plane = "axial") -> Tensor:
        """Return the vector [1, D] of a direction's target."""
        facts = plain_facts(self.config, self.config.targets()[direction], plane)
        return self.vectors(self.asked(facts, "none"))


class TowardsVector(nn.Module):
    """A network for one target: ``forward(images, roi)``. Shares all weights; the target's vector is made once."""

    vector: Tensor

    def __init__(self, network: EvaNetwork, vector: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("vector", vector.detach(), persistent=False)

    def forward(self, images: Tensor, roi: Tensor | None = None) -> Tensor:
        """Synthesise the target [B, 1, H, W] from images [B, 1, H, W]."""
        return self.network(images, roi, vectors=self.vector)


@register_model("eva_i2i")
class EvaI2I(Method):
    """Any image to the image that a sentence describes."""

    config_type = EvaConfig
    recipe_type = EvaRecipeConfig
    presets: ClassVar[dict[str, Any]] = {
        "paper": EvaConfig(),
        "tiny": EvaConfig(
            dclip=DCLIP_PRESETS["tiny"],
            widths=(12, 24, 48),
            structure_blocks=(1, 1),
            decoder_blocks=(1, 1),
            rank=4,
            layer_scale=0.1,
            slope=0.2,
            text_gain=32**0.5,
        ),
    }
    recipe_presets: ClassVar[dict[str, Any]] = {
        "tiny": EvaRecipeConfig(
            learning_rate=1e-3,
            decay_from=0.5,
            dclip_share=0.4,
            triples=2,
            content_weight=0.1,
            contrast_positions=128,
            discriminator_widths=(16, 32, 48),
            discriminator_blocks=2,
        )
    }
    citation = "All-in-one medical image-to-image translation (EVA-I2I). Cell Reports Methods, 2025."
    many_scans = True
    speaks = True

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised network."""
        return EvaNetwork(config)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with fresh networks."""
        return EvaRecipe(EvaNetwork(config), recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return 1."""
        return 1

    def size_multiple(self, config: Any) -> int:
        """Return 4."""
        return STRIDE

    def known_domains(self, config: Any) -> Mapping[str, Acquisition]:
        """Return the facts of the domains that a network was trained on, by their sentences."""
        return known_domains(config)

    def text_context(self, config: Any) -> int:
        """Return the most tokens that DCLIP's text encoder reads."""
        return int(config.dclip.context)

    @torch.no_grad()
    def towards(self, network: nn.Module, config: Any, direction: int) -> nn.Module:
        """Return the network for one of its directions, its target told by the modality's name."""
        return TowardsVector(_own(network), _own(network).direction_vector(direction))

    @torch.no_grad()
    def with_facts(self, network: nn.Module, config: Any, facts: Acquisition, plane: Plane = "axial") -> TowardsVector:
        """Return the network for the target with these facts, those of a reference series for example.

        Args:
            network: of this method.
            config: its configuration.
            facts: of the target; with ``onehot`` the nearest domain of the training is taken.
            plane: of the slices that it will be given, in place of the facts' own.

        Raises:
            UsageError: ``MX-TXT-002`` (too many words), ``MX-MOD-100`` (trained with another vocabulary).
        """
        own = _own(network)
        return TowardsVector(own, own.vectors(own.asked(facts.with_facts(plane=plane))))

    def with_text(self, network: nn.Module, config: Any, text: str, plane: Plane = "axial") -> TowardsVector:
        """Return the network for the target that a text describes; the text is read and told in our own words.

        Raises:
            UsageError: ``MX-TXT-001`` to ``-006`` (the text cannot be used), else as ``with_facts``.
        """
        return self.with_facts(network, config, parse(text, context=config.dclip.context).facts, plane)


def _own(network: nn.Module) -> EvaNetwork:
    """Return the network itself where it is wrapped for one target."""
    return network.network if isinstance(network, TowardsVector) else network  # type: ignore[return-value]
