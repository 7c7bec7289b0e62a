"""What an image looks like, told by DCLIP: its sequence, plane, fat suppression and contrast agent; and whether that
agrees with what it was declared to be.

Nothing is trained for this: slices are compared with sentences about every kind of image that the model was trained on
(EVA-I2I, Cell Reports Methods, figure 4). Intensities only mean something under a modality's normaliser, so an image is
looked at once for each normaliser of the model's card, and a sentence about CT is compared with the image normalised as
CT. A guess is a guess: it warns, it never refuses.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from MedXlateCore.acquisition import Acquisition, Plane
from MedXlateCore.errors import InputError, Warned
from MedXlateCore.inference.prepare import normalise, slice_stack
from MedXlateCore.models.dclip import TEMPERATURE, Dclip
from MedXlateCore.models.eva_i2i import known_domains
from MedXlateCore.models.package import LoadedModel
from MedXlateCore.prompts.acquisition_text import describe
from MedXlateCore.transforms.foreground import foreground_mask
from MedXlateCore.transforms.planes import PLANES, centred, middle_part, plane_slice
from MedXlateCore.transforms.spatial import GridSpec, SpatialPlan
from MedXlateCore.volume import Modality, Volume
from MedXlateCore.weighting import role_of

__all__ = ["Gate", "Guess", "Looks", "RoleCheck", "can_judge", "doubts", "role_check"]

Value = TypeVar("Value", bound=Hashable)
Float32Array = NDArray[np.float32]

WORDINGS = 4  # sentences a kind of image, their vectors averaged
SLICES = 5  # a plane
SURE = 0.8  # a role is doubted from this probability of all others together on


@dataclass(frozen=True)
class Guess(Generic[Value]):
    """One fact as it looks.

    Attributes:
        value: the likeliest value.
        probability: of it.
        probabilities: of every value that the model knows; they sum to 1.
    """

    value: Value
    probability: float
    probabilities: Mapping[Value, float]


@dataclass(frozen=True)
class Looks:
    """What some slices look like; a fact that the model knows one value of only is told with probability 1.

    Attributes:
        modality: as in ``Modality``: ``T1``, ``T1ce``, ``CT`` and so on.
        sequence: weighting; None for images that have none, such as CT.
        plane: viewing plane.
        fat_suppressed: True with fat saturation.
        contrast_agent: True with, False without an agent, None where training never said.
        facts: the kind of image that fits best as a whole.
    """

    modality: Guess[str]
    sequence: Guess[str | None]
    plane: Guess[Plane]
    fat_suppressed: Guess[bool]
    contrast_agent: Guess[bool | None]
    facts: Acquisition


@dataclass(frozen=True)
class RoleCheck:
    """Whether a volume looks like what it was declared to be.

    Attributes:
        declared: its role.
        looks: what it looks like.
        known: True if the model knows images of the declared role.
        agrees: False if the declared role is known and the others together are likely (``SURE``). Together, because
            what may be T1 or T1ce is no T2.
        warnings: ``MX-IMG-040`` if it does not agree.
    """

    declared: str
    looks: Looks
    known: bool
    agrees: bool
    warnings: tuple[Warned, ...]


def can_judge(model: LoadedModel) -> bool:
    """Return whether a model has the encoders that judge images."""
    return isinstance(getattr(model.network, "dclip", None), Dclip)


class Gate:
    """The sentences of every kind of image that a model knows, in all planes, as vectors.

    Args:
        dclip: the encoders, in evaluation mode, on any device.
        domains: facts of the kinds of images.
        wordings: sentences a kind and plane.
    """

    @torch.no_grad()
    def __init__(self, dclip: Dclip, domains: Sequence[Acquisition], wordings: int = WORDINGS) -> None:
        self._dclip = dclip
        self.kinds = tuple(facts.with_facts(plane=plane) for facts in domains for plane in PLANES)
        texts = [text for facts in self.kinds for text in _wordings(facts, wordings)]
        vectors = torch.cat([dclip.text_vectors(dclip.tokens(texts[n : n + 64])) for n in range(0, len(texts), 64)])
        self._texts = nn.functional.normalize(vectors.unflatten(0, (-1, wordings)).mean(dim=1), dim=1)
        self.modalities = tuple(role_of(facts).value for facts in self.kinds)

    @torch.no_grad()
    def similarities(self, images: Sequence[Float32Array], side: int = 0) -> Tensor:
        """Return the cosines [N, kinds] of slices with every kind of image.

        Args:
            images: slices [H, W] in [-1, 1], of any sizes. All are put into the middle of a black square, as in
                training.
            side: of the square, at least; it is never shorter than the longest side of any slice.
        """
        framed, device = torch.from_numpy(_framed(images, side)), next(self._dclip.parameters()).device
        parts = [self._dclip.image_vectors(part.to(device)) for part in framed.split(SLICES * len(PLANES))]
        return (torch.cat(parts) @ self._texts.to(device).T).cpu()

    def classify(self, images: Sequence[Float32Array], planes: Sequence[Plane] | None = None) -> Looks:
        """Return what slices of one image look like.

        Args:
            images: slices [H, W] in [-1, 1].
            planes: the plane of each, where it is known.
        """
        return self.told(self.similarities(images), planes)

    def told(self, similarities: Tensor, planes: Sequence[Plane] | None = None) -> Looks:
        """Return what the cosines [N, kinds] of one image's slices with every kind say.

        Evidence adds up over slices; of each value of a fact the kind that fits best counts. A slice whose plane is
        known tells nothing of kinds in other planes.
        """
        own = torch.tensor([PLANES.index(cast(Plane, facts.plane)) for facts in self.kinds])
        if planes is None:
            scores = similarities.mean(dim=0)
        else:
            # in each plane the mean of its slices; then the mean over the planes, for every kind in any plane
            taken = torch.tensor([PLANES.index(plane) for plane in planes])
            per_kind = torch.stack([similarities[taken == p][:, own == p].mean(dim=0) for p in taken.unique().tolist()])
            scores = per_kind.mean(dim=0).repeat_interleave(len(PLANES))  # kinds run through the planes fastest
        logits = (scores / TEMPERATURE).tolist()

        def guess(values: Sequence[Value]) -> Guess[Value]:
            """Guess one fact, given its value for each kind."""
            return _guess(values, logits)

        best = self.kinds[int(scores.argmax())]
        return Looks(
            modality=guess(self.modalities),
            sequence=guess([facts.sequence for facts in self.kinds]),
            plane=guess([cast(Plane, facts.plane) for facts in self.kinds]),
            fat_suppressed=guess([facts.fat_suppressed for facts in self.kinds]),
            contrast_agent=guess([facts.contrast_agent for facts in self.kinds]),
            facts=best if planes is None else best.with_facts(plane=None),
        )


def role_check(volume: Volume, declared: Modality | str, model: LoadedModel, gate: Gate | None = None) -> RoleCheck:
    """Return whether a volume looks like what it was declared to be; on the device that the model's network is on.

    Args:
        volume: a checked volume, in any orientation; its own modality is not looked at.
        declared: its role.
        model: a model that can judge, see ``can_judge``.
        gate: of this model, where several volumes are looked at.

    Raises:
        InputError: from the model's grid (no foreground), or a normaliser (no range).
    """
    role = Modality.parse(declared)
    judge = gate or Gate(model.network.dclip, tuple(known_domains(model.config).values()))  # type: ignore[arg-type]
    similarities, planes = _looked_at(volume, role, model, judge)
    looks = judge.told(similarities, planes)
    known = role.value in judge.modalities
    agrees = not known or looks.modality.probabilities[role.value] > 1 - SURE
    return RoleCheck(role.value, looks, known, agrees, () if agrees else (_doubt(volume, role, looks),))


def doubts(volumes: Sequence[Volume], model: LoadedModel) -> tuple[Warned, ...]:
    """Return ``MX-IMG-040`` for each volume that does not look like its modality; nothing where nobody can judge.

    Args:
        volumes: checked volumes, each with its modality.
        model: the model that will translate them.
    """
    if not can_judge(model):
        return ()
    if "gate" not in model.kept:  # its many sentences are read once
        domains = tuple(known_domains(model.config).values())
        model.kept["gate"] = Gate(model.network.dclip, domains)  # type: ignore[arg-type]
    gate: Gate = model.kept["gate"]
    found: list[Warned] = []
    for volume in volumes:
        with contextlib.suppress(InputError):  # it cannot be normalised as something else: no reason to refuse it
            found += role_check(volume, volume.modality, model, gate).warnings
    return tuple(found)


def _looked_at(volume: Volume, role: Modality, model: LoadedModel, gate: Gate) -> tuple[Tensor, list[Plane]]:
    """Return the cosines [N, kinds] of a volume's slices, each kind's under its own normaliser, and their planes."""
    plan = SpatialPlan.make(volume.geometry, GridSpec.from_dict(model.card.grid), [volume])
    array = plan.to_model(volume)
    foreground = slice_stack(foreground_mask(array, role))
    if not foreground.any():
        foreground[:] = True
    places = [
        (plane, part[round(n * (len(part) - 1) / (SLICES - 1))])
        for plane in PLANES
        for part in (middle_part(foreground, plane),)
        for n in range(SLICES)
    ]
    side = _side(volume, plan, model)
    result = torch.full((len(places), len(gate.kinds)), -1.0)
    by_normaliser: dict[str, list[int]] = {}
    for n, name in enumerate(gate.modalities):
        if name in model.card.normalisers:
            by_normaliser.setdefault(repr(sorted(model.card.normalisers[name].items())), []).append(n)
    for kinds in by_normaliser.values():
        name = Modality(gate.modalities[kinds[0]])
        stack = slice_stack(normalise(array, name, model.card.normalisers, where=volume.name)[0])
        slices = [plane_slice(stack, plane, index) for plane, index in places]
        result[:, kinds] = gate.similarities(slices, side)[:, kinds]
    return result, [plane for plane, _ in places]


def _side(volume: Volume, plan: SpatialPlan, model: LoadedModel) -> int:
    """Return the side of the squares that the model was trained on; else of one with room for the whole volume.

    A closely cropped slice looks larger than in training, by which planes and sequences are mistaken.
    """
    trained = model.card.training.get("slice_size")
    if trained:
        return max(trained)
    extent_mm = np.array(volume.array.shape[:3]) * volume.geometry.spacing_mm
    return round(float(extent_mm.max()) / min(plan.grid.spacing_mm))


def _doubt(volume: Volume, role: Modality, looks: Looks) -> Warned:
    return Warned(
        "MX-IMG-040",
        f"the {role.value} volume looks like {looks.modality.value} "
        f"({describe(looks.facts, optional='none')} {100 * looks.modality.probability:.0f} %)",
        volume.name,
        "check that this is the right file for this role; the result is made from what was declared",
    )


def _framed(images: Sequence[Float32Array], side: int) -> Float32Array:
    """Return slices of any sizes in the middle of black squares, [N, 1, side, side]."""
    side = max(side, *(length for image in images for length in image.shape))
    framed = np.full((len(images), 1, side, side), -1.0, dtype=np.float32)
    for square, image in zip(framed[:, 0], images, strict=True):
        square[centred(image.shape, square.shape)] = image
    return framed


def _wordings(facts: Acquisition, count: int) -> list[str]:
    """Return sentences about a kind of image: the plainest one, then drawn ones, always the same."""
    rng = random.Random(0)
    return [describe(facts, optional="none")] + [
        describe(facts, optional="none", rng=rng, detail="varied") for _ in range(count - 1)
    ]


def _guess(values: Sequence[Any], logits: Sequence[float]) -> Guess[Any]:
    best: dict[Any, float] = {}
    for value, logit in zip(values, logits, strict=True):
        best[value] = max(logit, best.get(value, -np.inf))
    names = list(best)
    weights = torch.tensor([best[name] for name in names]).softmax(dim=0).tolist()
    probabilities = dict(zip(names, weights, strict=True))
    value = max(names, key=lambda name: probabilities[name])
    return Guess(value, probabilities[value], probabilities)
