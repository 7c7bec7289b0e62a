"""How EVA-I2I is trained: DCLIP, then the translation without, then with its adversarial and zero-shot terms.

One run, whose stages are parts of its length: ``dclip`` trains the two encoders on slices and sentences; ``init``
trains structure encoder and decoder with DCLIP frozen; ``fine`` adds the discriminator, the agreement of images with
sentences, and the atlas (cross-dataset collaborative learning). Weights and corrections: see ``eva_i2i``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.checks import check_constants
from MedXlateCore.models.blocks.conditioned_gan import ConditionedGan
from MedXlateCore.models.blocks.eva_losses import augmented, pixel_contrast, shrunk
from MedXlateCore.models.blocks.structure import STRIDE
from MedXlateCore.models.blocks.updates import descend, figures, held
from MedXlateCore.models.dclip import TEMPERATURE, DclipMode, contrastive_loss
from MedXlateCore.models.method import Recipe, TrainingState, check_choices
from MedXlateCore.models.scan_batch import ATLAS, INTERMEDIATE, SOURCE, TARGET, ScanBatch
from MedXlateCore.training.losses import lsgan_generator, masked_l1
from MedXlateCore.training.perceptual import DeepPerceptualLoss

if TYPE_CHECKING:
    from MedXlateCore.models.eva_i2i import EvaNetwork

__all__ = ["EvaRecipe", "EvaRecipeConfig"]

CONTENT_FACTOR = 10.0  # of the squared differences of codes within the content term


@dataclass(frozen=True)
class EvaRecipeConfig:
    """EVA-I2I's training. The defaults are the published ones, in shares of one run.

    Attributes:
        learning_rate: of AdamW (betas 0.9, 0.95).
        weight_decay: of AdamW.
        decay_from: part of DCLIP's training, and again of the translation's, from which the rate falls to 0 in a line;
            1 for the published constant rate.
        dclip_share: part of the run that trains DCLIP; without DCLIP there is no such part.
        init_share: part of the rest that is ``init`` (5 of 50 epochs).
        last_stage: ``init`` never leaves that stage (ablation).
        dclip_mode: DCLIP's loss, see ``dclip``.
        triples: at most so many of a batch's triples are translated, while DCLIP sees all slices (there 60 of 20).
        prompt_dropout: leave out optional sentences of the drawn prompts, each with this probability.
        rec_weight: of the mean absolute errors.
        per_weight: of the perceptual term.
        content_weight: of the terms on codes.
        adv_weight: of the adversarial terms.
        clip_weight: of the agreement of images and sentences.
        atlas_term: compare the direct way to the intermediate domain with the one by the atlas.
        contrast_positions: places an image in the pixel contrast.
        augment: change inputs at random.
        discriminator_widths: channels after the discriminator's three convolutions.
        discriminator_blocks: its hyper-blocks.
        perceptual_weights: safetensors file with VGG-19's first layers, see ``DeepPerceptualLoss``; empty for no such
            term (the published training has it).

    Raises:
        UsageError: ``MX-MOD-004``, ``MX-MOD-006``, a constant outside its range.
    """

    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    decay_from: float = 1.0
    dclip_share: float = 0.5
    init_share: float = 0.1
    last_stage: Literal["fine", "init"] = "fine"
    dclip_mode: DclipMode = "equation"
    triples: int = 6
    prompt_dropout: float = 0.5
    rec_weight: float = 10.0
    per_weight: float = 0.1
    content_weight: float = 1.0
    adv_weight: float = 5.0
    clip_weight: float = 0.1
    atlas_term: bool = True
    contrast_positions: int = 1024
    augment: bool = True
    discriminator_widths: tuple[int, int, int] = (96, 192, 384)
    discriminator_blocks: int = 4
    perceptual_weights: str = ""

    def __post_init__(self) -> None:
        check_choices(self)
        shares = dict.fromkeys(
            ("dclip_share", "init_share", "prompt_dropout", "learning_rate", "weight_decay", "decay_from"), (0.0, 1.0)
        )
        weights = [name for name in self.__dataclass_fields__ if name.endswith("_weight")]
        counts = {"triples": (1, 1e4), "contrast_positions": (2, 1e5), "discriminator_blocks": (1, 32)}
        check_constants(self, shares | dict.fromkeys(weights, (0.0, 1e6)) | counts)


class EvaRecipe(Recipe):
    """DCLIP first, then structure encoder and decoder against the discriminator."""

    stages = ("dclip", "init", "fine")

    def __init__(self, network: EvaNetwork, config: EvaRecipeConfig) -> None:
        self.config, self._network = config, network
        architecture = network.config
        self._discriminator = ConditionedGan(
            config.discriminator_widths,
            architecture.dclip.vector,
            config.discriminator_blocks,
            architecture.rank,
            architecture.layer_scale,
        )
        self._has_dclip = architecture.domain_encoding == "dclip"
        self._learns_codes = not self._has_dclip
        self._asks_numbers = architecture.domain_encoding == "onehot"
        wanted = config.per_weight > 0 and config.perceptual_weights
        self._perceptual = DeepPerceptualLoss(config.perceptual_weights) if wanted else None

    def networks(self) -> dict[str, nn.Module]:
        """Return ``generator`` (all that inference needs) and ``discriminator``."""
        return {"generator": self._network, "discriminator": self._discriminator}

    def optimisers(self, learning_rate: float | None = None) -> dict[str, torch.optim.Optimizer]:
        """Return AdamW for ``dclip`` (if there is one), the rest of the ``generator`` and the ``discriminator``."""
        own = {name: list(module.parameters()) for name, module in self._network.named_children()}
        parts = {
            "dclip": own.pop("dclip", []),
            "generator": [parameter for parameters in own.values() for parameter in parameters],
            "discriminator": list(self._discriminator.parameters()),
        }
        rate = self.config.learning_rate if learning_rate is None else learning_rate
        return {
            name: torch.optim.AdamW(
                [parameter for parameter in parameters if parameter.requires_grad],
                lr=rate,
                betas=(0.9, 0.95),
                weight_decay=self.config.weight_decay,
            )
            for name, parameters in parts.items()
            if parameters
        }

    def learning_rate_factor(self, progress: float) -> float:
        """Return 1, and from ``decay_from`` on less, in DCLIP's part of the run and in the translation's."""
        first, begin = self._first, self.config.decay_from
        done = progress / first if progress < first else (progress - first) / max(1 - first, 1e-9)
        return 1.0 if done <= begin else max(0.0, (1 - done) / (1 - begin))

    @property
    def _first(self) -> float:
        return self.config.dclip_share if self._has_dclip else 0.0

    def stage_of(self, progress: float) -> str:
        """Return the stage at a part of the run."""
        first = self._first
        if progress < first:
            return "dclip"
        init = first + (1 - first) * self.config.init_share
        return "init" if progress < init or self.config.last_stage == "init" else "fine"

    def judged(self, progress: float) -> bool:
        """Return True once the translation is trained."""
        return self.stage_of(progress) != "dclip"

    def step(self, batch: ScanBatch, state: TrainingState) -> dict[str, float]:  # type: ignore[override]
        """Do one step of the stage that the run is in."""
        stage = self.stage_of(state.progress)
        if stage == "dclip":
            return self._align(batch, state)
        return self._translate(batch.first(self.config.triples), state, fine=stage == "fine")

    def _align(self, batch: ScanBatch, state: TrainingState) -> dict[str, float]:
        tokens = batch.tokens[: INTERMEDIATE + 1].flatten(0, 1)
        images, texts = state.networks["generator"](batch.images.flatten(0, 1), wanted="pairs", asked=tokens)
        loss = contrastive_loss(images, texts, batch.positive, self.config.dclip_mode, TEMPERATURE)
        descend(state, ["dclip"], loss)
        return figures({"dclip": loss / len(images)})

    def _vectors(self, batch: ScanBatch, network: nn.Module) -> Tensor:
        """Return the vectors [4, B, D] of source, target, intermediate and atlas."""
        asked = batch.domains if self._asks_numbers else batch.tokens
        with torch.set_grad_enabled(self._learns_codes):
            return network(batch.images[0], wanted="vectors", asked=asked.flatten(0, 1)).unflatten(0, asked.shape[:2])

    def _translate(self, batch: ScanBatch, state: TrainingState, *, fine: bool) -> dict[str, float]:
        network = state.networks["generator"]
        vectors = self._vectors(batch, network)
        made, codes = self._made(batch, vectors, state)
        losses: dict[str, Tensor] = {}
        if fine and self.config.adv_weight > 0:
            losses["discriminator"] = self._judge(batch, vectors.detach(), made, state)
        terms = self._terms(batch, vectors, made, codes, state)
        frozen = [self._discriminator, *([self._network.dclip] if self._has_dclip else [])]
        with held(*frozen):
            if fine:
                terms |= self._fine_terms(batch, vectors, made, state)
            total = torch.stack([weight * value for weight, value in terms.values()]).sum()
            descend(state, ["generator"], total)
        return figures({**losses, "generator": total, **{name: value for name, (_, value) in terms.items()}})

    def _made(
        self, batch: ScanBatch, vectors: Tensor, state: TrainingState
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the images made, by name, and the codes of source, target and the image of the intermediate domain."""
        network = state.networks["generator"]
        inputs = batch.images[: TARGET + 1].flatten(0, 1)
        if self.config.augment:
            inputs = augmented(inputs, state.generator)
        source, target = network(inputs, wanted="code").chunk(2)
        asked = vectors[[TARGET, SOURCE, INTERMEDIATE]].flatten(0, 1)
        to_target, to_source, to_intermediate = network(
            torch.cat((source, target, source)), vectors=asked, wanted="decoded"
        ).chunk(3)
        code = network(to_intermediate, wanted="code")
        onwards = network(code, vectors=vectors[TARGET], wanted="decoded")
        made = {"target": to_target, "source": to_source, "intermediate": to_intermediate, "onwards": onwards}
        return made, {"source": source, "target": target, "intermediate": code}

    def _terms(
        self, batch: ScanBatch, vectors: Tensor, made: dict[str, Tensor], codes: dict[str, Tensor], state: TrainingState
    ) -> dict[str, tuple[float, Tensor]]:
        """Return weight and value of what both stages have."""
        weights, mask = self.config, _common(batch)
        pairs = (("target", TARGET), ("source", SOURCE), ("onwards", TARGET))
        rec = torch.stack([masked_l1(made[name], batch.images[n], mask) for name, n in pairs]).sum()
        coarse = shrunk(mask, STRIDE)
        content = CONTENT_FACTOR * (
            _apart(codes["source"], codes["target"], coarse) + _apart(codes["intermediate"], codes["target"], coarse)
        )
        inside = coarse * shrunk(batch.foregrounds[SOURCE], STRIDE)
        contrast = pixel_contrast(
            codes["source"], codes["target"], inside, weights.contrast_positions, TEMPERATURE, state.generator
        )
        terms = {"rec": (weights.rec_weight, rec), "content": (weights.content_weight, content + contrast)}
        if self._perceptual:
            seen = [self._perceptual(_shown(made[name], mask), _shown(batch.images[n], mask)) for name, n in pairs]
            terms["per"] = (weights.per_weight, torch.stack(seen).sum())
        return terms

    def _fine_terms(
        self, batch: ScanBatch, vectors: Tensor, made: dict[str, Tensor], state: TrainingState
    ) -> dict[str, tuple[float, Tensor]]:
        """Return weight and value of what only the last stage has."""
        weights, network = self.config, state.networks["generator"]
        terms: dict[str, tuple[float, Tensor]] = {}
        if weights.adv_weight > 0:
            judge = state.networks["discriminator"]
            fakes, asked = _fakes(batch, made), vectors[[TARGET, SOURCE, INTERMEDIATE, TARGET]].flatten(0, 1).detach()
            scores = judge(fakes, asked).chunk(4)
            terms["adv"] = (weights.adv_weight, torch.stack([lsgan_generator(score) for score in scores]).sum())
        if self._has_dclip and weights.clip_weight > 0:
            seen = network(made["intermediate"], wanted="image_vectors")
            terms["clip"] = (weights.clip_weight, -(seen * vectors[INTERMEDIATE]).sum(dim=1).mean())
        if weights.atlas_term:
            terms["atlas"] = (weights.rec_weight, self._atlas(batch, vectors, made["intermediate"], network))
        return terms

    def _atlas(self, batch: ScanBatch, vectors: Tensor, direct: Tensor, network: nn.Module) -> Tensor:
        """Return how far the direct way to the intermediate domain is from the one by the atlas."""
        with torch.no_grad():
            code = network(batch.images[SOURCE], wanted="code")
            atlas = network(code, vectors=vectors[ATLAS], wanted="decoded")
            wanted = network(network(atlas, wanted="code"), vectors=vectors[INTERMEDIATE], wanted="decoded")
        return masked_l1(direct, wanted, _common(batch))

    def _judge(self, batch: ScanBatch, vectors: Tensor, made: dict[str, Tensor], state: TrainingState) -> Tensor:
        """Do the discriminator's step on three real images, of which the target counts twice, and four fakes."""
        real = torch.cat([_shown(batch.images[n], batch.foregrounds[n]) for n in (TARGET, SOURCE, INTERMEDIATE)])
        fakes = _fakes(batch, made).detach()
        order = [TARGET, SOURCE, INTERMEDIATE, TARGET, SOURCE, INTERMEDIATE, TARGET]
        scores = state.networks["discriminator"](torch.cat((real, fakes)), vectors[order].flatten(0, 1)).chunk(7)
        errors = [F.mse_loss(score, torch.full_like(score, float(n < 3))) for n, score in enumerate(scores)]
        loss = 0.5 * (errors[0] + torch.stack(errors).sum())
        descend(state, ["discriminator"], loss)
        return loss


def _common(batch: ScanBatch) -> Tensor:
    """Return where source and target are both foreground or both background, [B, 1, H, W], 0 or 1."""
    return (batch.foregrounds[SOURCE] == batch.foregrounds[TARGET]).to(batch.images.dtype)


def _shown(image: Tensor, mask: Tensor) -> Tensor:
    """Return an image with black outside a mask, and nothing below black."""
    return torch.where(mask > 0, image, -1.0).clamp(min=-1)


def _fakes(batch: ScanBatch, made: dict[str, Tensor]) -> Tensor:
    """Return what is judged [4 B, 1, H, W]: the images made, in the foreground of what they show."""
    masks = {"target": TARGET, "source": SOURCE, "intermediate": SOURCE, "onwards": TARGET}
    return torch.cat([_shown(made[name], batch.foregrounds[n]) for name, n in masks.items()])


def _apart(code: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared difference of two codes inside a mask, once for each of them as what learns."""
    squared = [(one - fixed.detach()).square() for one, fixed in ((code, other), (other, code))]
    weight = mask.expand_as(code)
    return torch.stack([(weight * part).sum() for part in squared]).sum() / weight.sum().clamp(min=1)
