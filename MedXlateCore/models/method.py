"""What a synthesis method is: a configuration, a network and a training recipe.

One file ``models/<method>.py`` holds one method and registers it; nothing else in the tree has to know of it.
Networks see images in [-1, 1]; regions of interest are 0 (background), 0.5 (oedema), 1.0 (core).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.directions import Direction
from MedXlateCore.errors import UsageError, Warned
from MedXlateCore.prompts import tokens

__all__ = ["Batch", "Method", "Recipe", "TrainingState", "check_choices", "not_told"]


@dataclass
class Batch:
    """Paired training slices; or volumes, for a volumetric method: then each tensor has a depth K before H and W.

    Attributes:
        images: source channels [B, S, H, W] in [-1, 1], in the order of the model card's sources. Where the method
            looks at neighbouring slices, each source has as many channels, in the order of the slices.
        target: target image [B, 1, H, W] in [-1, 1].
        regions: annotated regions [B, 2, H, W], 0 or 1: oedema, core. All zero where nothing is annotated.
        foreground: head or body mask [B, 1, H, W], 0 or 1.
        direction: position of the batch's direction of translation among those of the run; all slices share it.
    """

    images: Tensor
    target: Tensor
    regions: Tensor
    foreground: Tensor
    direction: int = 0

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with every tensor changed."""
        return Batch(
            change(self.images), change(self.target), change(self.regions), change(self.foreground), self.direction
        )


@dataclass
class TrainingState:
    """What a recipe's step may use: wrapped networks and optimisers, the backward call, and the step's own randomness.

    Attributes:
        networks: the recipe's networks by name, as set up by the training loop (device, precision, DDP).
        optimisers: its optimisers by name.
        backward: call instead of ``loss.backward()``.
        generator: random generator on the step's device, seeded from (seed, step): a resumed run draws the same.
        step: number of this optimiser step, from 0.
        progress: how much of the training was done before this step, 0 to below 1.
    """

    networks: Mapping[str, nn.Module]
    optimisers: Mapping[str, torch.optim.Optimizer]
    backward: Callable[[Tensor], None]
    generator: torch.Generator
    step: int
    progress: float = 0.0


class Recipe(ABC):
    """How a method is trained. ``networks()['generator']`` is what becomes a model package.

    A recipe with several ``stages`` tells from the progress of a run which one a step belongs to, so that one run,
    which can be stopped and resumed anywhere, goes through all of them.
    """

    stages: ClassVar[tuple[str, ...]] = ("train",)

    def stage_of(self, progress: float) -> str:
        """Return the name of the stage that a run is in at ``progress``, 0 to 1."""
        return self.stages[0]

    def remark(self, losses: Mapping[str, float], progress: float) -> Warned | None:
        """Return what is worth a warning in the losses, averaged since the log's last row; None for nothing."""
        return None

    def judged(self, progress: float) -> bool:
        """Return False while the generator cannot make the target yet: until then nothing is validated or averaged."""
        return True

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """Return the networks by name; always the same objects."""

    @abstractmethod
    def optimisers(self, learning_rate: float | None = None) -> dict[str, torch.optim.Optimizer]:
        """Return fresh optimisers by name; ``learning_rate`` None means the method's own."""

    @abstractmethod
    def learning_rate_factor(self, progress: float) -> float:
        """Return the factor on the learning rate at ``progress`` (0 at the start of training, 1 at its end)."""

    @abstractmethod
    def step(self, batch: Batch, state: TrainingState) -> dict[str, float]:
        """Do one optimiser step and return the losses by name."""


class Method(ABC):
    """A synthesis method. Subclasses are stateless; everything that varies is in the configuration.

    Attributes:
        name: registry name, such as ``tlp``.
        config_type: frozen dataclass of the architecture and its ablation switches.
        recipe_type: frozen dataclass of the recipe's constants (weights of losses, schedule, prompt generation).
        presets: named configurations; always ``tiny``.
        recipe_presets: named recipes for presets whose recipe differs from ``recipe_type()``.
        citation: the paper.
        uses_regions: True if the network takes region prompts.
        unpaired: True if training sees source and target of different slices and patients.
        volumetric: True if the network sees whole volumes: ``forward(images [B, S, K, H, W], roi [B, 1, K, H, W])``.
        many_scans: True if training sees many scans a patient, told apart by their facts (``scan_batch.ScanBatch``).
        draws_samples: True if the network draws samples, see :mod:`MedXlateCore.models.sampling`.
        speaks: True if a target may be described by facts, hence in words; nothing has to be known of its one source.

    A method whose configuration has a field ``directions`` (texts such as ``T1->T2``) learns several directions of
    translation in one network; the field is filled from the training data's. Others learn one.
    """

    name: ClassVar[str]
    config_type: ClassVar[type]
    recipe_type: ClassVar[type]
    presets: ClassVar[dict[str, Any]]
    recipe_presets: ClassVar[dict[str, Any]] = {}
    citation: ClassVar[str]
    uses_regions: ClassVar[bool] = False
    unpaired: ClassVar[bool] = False
    volumetric: ClassVar[bool] = False
    many_scans: ClassVar[bool] = False
    draws_samples: ClassVar[bool] = False
    speaks: ClassVar[bool] = False

    @abstractmethod
    def build(self, config: Any) -> nn.Module:
        """Return the network: ``forward(images [B, S, H, W], roi [B, 1, H, W]) -> [B, 1, H, W]``.

        Images are in [-1, 1], regions of interest in [0, 1].

        Raises:
            UsageError: ``MX-MOD-004`` or ``MX-MOD-005``, the configuration does not describe a network.
        """

    @abstractmethod
    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the training recipe with freshly initialised networks."""

    @abstractmethod
    def n_sources(self, config: Any) -> int:
        """Return how many source volumes the network takes."""

    @abstractmethod
    def size_multiple(self, config: Any) -> int:
        """Return the number that height and width, and the depth of a volume, must be a multiple of."""

    def context_slices(self, config: Any) -> int:
        """Return how many neighbouring slices of each source the network sees, an odd number; 1 for the slice alone.

        The network then takes ``n_sources * context_slices`` channels: for each source its slices from below to above.
        """
        return 1

    def check_directions(self, config: Any, directions: Sequence[Direction]) -> None:
        """Check that one network of this configuration can learn these directions.

        Raises:
            UsageError: ``MX-TRN-013`` (another number of sources than the network takes), ``MX-TRN-014`` (more
                directions than it can learn).
        """
        wanted = self.n_sources(config)
        for direction in directions:
            if len(direction.sources) != wanted:
                raise UsageError(
                    "MX-TRN-013",
                    f"the network takes {wanted} sources, but {direction} has {len(direction.sources)}",
                    expected="as many sources as the network takes",
                    where="[model.config] and [data]",
                    fix="set the number of sources in [model.config], or change [data]",
                )
        if len(directions) > 1 and not hasattr(config, "directions"):
            raise UsageError(
                "MX-TRN-014",
                f"{len(directions)} directions are given, and {self.name} learns one",
                expected="one direction, or a method for several such as medprompt",
                where="[data] directions",
                fix="train one model for each direction, or choose another method",
            )

    def towards(self, network: nn.Module, config: Any, direction: int) -> nn.Module:
        """Return the network for one of its directions: ``forward(images, roi)``, sharing all weights."""
        return network

    def with_facts(self, network: nn.Module, config: Any, facts: Acquisition) -> nn.Module:
        """Return the network for the target with these facts, for methods that speak.

        Raises:
            UsageError: ``MX-USE-208``, this is none of them.
        """
        raise not_told(self.name)

    def known_domains(self, config: Any) -> Mapping[str, Acquisition]:
        """Return the facts of the images that a method that speaks was trained on, by a sentence for each."""
        return {}

    def text_context(self, config: Any) -> int:
        """Return the most tokens that a method that speaks can read."""
        return tokens.CONTEXT


def not_told(method: str) -> UsageError:
    """Return ``MX-USE-208`` for a target in words that is asked of a method which knows names only."""
    return UsageError(
        "MX-USE-208",
        f"{method} makes modalities by their names, not images that are described",
        expected="a model of a method for targets in words, such as eva_i2i",
        where="target",
        fix="name a modality, or choose another model",
    )


def check_choices(config: object) -> None:
    """Check the fields of a configuration that have a ``Literal`` type, for its ``__post_init__``.

    Raises:
        UsageError: ``MX-MOD-004``, a value that is not among the choices.
    """
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise UsageError(
                "MX-MOD-004",
                f"the configuration has {name} = {value!r}",
                expected=f"one of {', '.join(map(repr, get_args(hint)))}",
                where=name,
                fix="choose one of these values",
            )
