"""The one path: checked volumes in, one synthetic volume out.

``translate`` returns a :class:`Translation`, an iterator of events. The command line drives it with a progress bar, a
script with a plain ``for``, a graphical program with a timer; each ``next`` is one short step, so cancelling takes
effect within a step and nothing is left behind.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.checks import check_roi, check_sources, checked
from MedXlateCore.devices import Device, choose_device, device_errors
from MedXlateCore.errors import Cancelled, InputError, UsageError, Warned
from MedXlateCore.inference.prepare import PreparedSources, prepare_roi, prepare_sources, unstack
from MedXlateCore.inference.slices import predict_slices
from MedXlateCore.models.card import ModelCard, OutputScale
from MedXlateCore.models.package import LoadedModel
from MedXlateCore.prompts.roi import DEFAULT_LABELS
from MedXlateCore.provenance import RunRecord, describe_volume, warnings_as_dicts
from MedXlateCore.transforms.intensity import FittedNormaliser
from MedXlateCore.transforms.spatial import GridSpec
from MedXlateCore.volume import Modality, Source, Volume

__all__ = ["Event", "Finished", "Progress", "Started", "Translation", "translate"]

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Started:
    """Inputs are accepted; ``total`` steps follow."""

    total: int
    text: str


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` slices are predicted."""

    done: int
    total: int


@dataclass(frozen=True)
class Finished:
    """The result stands in ``Translation.result``."""

    seconds: float


Event = Started | Progress | Warned | Finished


@dataclass(frozen=True)
class _Request:
    sources: tuple[Volume, ...]
    model: LoadedModel
    target: Modality
    reference: Modality | None
    roi: Volume | None
    roi_labels: Mapping[str, Sequence[int]]
    device: str
    precision: str
    batch_size: int


class Translation(Iterator[Event]):
    """A translation under way: iterate it to the end, then read ``result`` and ``record``.

    Raises (while iterating):
        InputError: an input cannot be used; see ``checks``.
        ResourceError: the device does not work (``MX-RES-020``), fails on the way (``MX-RES-023``) or memory is lacking
            (``MX-RES-001``).
        Cancelled: ``cancel`` was called.
    """

    def __init__(self, request: _Request) -> None:
        self._request = request
        self._events = self._run()
        self._cancelled = False
        self._result: Volume | None = None
        self._record: RunRecord | None = None
        self.warnings: list[Warned] = []

    def __next__(self) -> Event:
        if self._cancelled:
            self._events.close()
            raise Cancelled("translation")
        with device_errors("translation", "use a smaller batch_size, --device cpu, or a smaller volume"):
            return next(self._events)

    def cancel(self) -> None:
        """Ask to stop; the next step raises :class:`Cancelled`."""
        self._cancelled = True

    def run(self) -> Volume:
        """Iterate to the end and return the result."""
        for _ in self:
            pass
        return self.result

    @property
    def result(self) -> Volume:
        """The synthetic volume, on the reference source's grid.

        Raises:
            UsageError: ``MX-RUN-001``, the translation has not finished.
        """
        return self._finished(self._result)

    @property
    def record(self) -> RunRecord:
        """How the result came about.

        Raises:
            UsageError: ``MX-RUN-001``, the translation has not finished.
        """
        return self._finished(self._record)

    @staticmethod
    def _finished(value: Any) -> Any:
        if value is None:
            raise UsageError(
                "MX-RUN-001", "the translation has not finished", fix="iterate it to its end before reading the result"
            )
        return value

    def _warn(self, warnings: Sequence[Warned]) -> Iterator[Warned]:
        for warning in warnings:
            if warning not in self.warnings:
                self.warnings.append(warning)
                yield warning

    def _run(self) -> Generator[Event, None, None]:
        request, clock = self._request, _Clock()
        device = choose_device(request.device, request.precision)
        yield from self._warn(device.warnings)
        sources, reference, found = _checked_sources(request)
        yield from self._warn(found)
        card = request.model.card
        prepared = prepare_sources(sources, reference.geometry, GridSpec.from_dict(card.grid), card.normalisers)
        yield from self._warn(prepared.warnings)
        prompt, found = _prompt(request, reference, prepared)
        yield from self._warn(found)
        clock.lap("prepare")

        slices = prepared.occupied_slices
        yield Started(len(slices), f"{request.target.value} from {', '.join(v.modality.value for v in sources)}")
        stack = np.full(prepared.foreground.shape, -1.0, dtype=np.float32)
        network = request.model.network.to(device.torch_device)
        batches = predict_slices(
            network, prepared.images, prompt, slices=slices, device=device.torch_device,
            precision=device.precision, batch_size=request.batch_size,
        )  # fmt: skip
        done = 0
        for batch in batches:
            stack[list(batch.indices)] = batch.values
            done += len(batch.indices)
            yield Progress(done, len(slices))
        clock.lap("predict")

        yield from self._warn(_check_output(stack, slices))
        scale = output_scale(card, request.target, prepared.fitted[0])
        self._result = _to_volume(stack, prepared, scale, request)
        clock.lap("restore")
        self._record = _record(request, sources, prepared, prompt, scale, device, clock.seconds, self.warnings)
        yield Finished(sum(clock.seconds.values()))


def translate(
    sources: Sequence[Volume],
    model: LoadedModel,
    *,
    target: Modality | str | None = None,
    reference: Modality | str | None = None,
    roi: Volume | None = None,
    roi_labels: Mapping[str, Sequence[int]] | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 1,
) -> Translation:
    """Translate source volumes into a missing one.

    Args:
        sources: volumes with their modality set, in any order.
        model: a loaded model package.
        target: modality wanted; None if the model makes only one.
        reference: which source's grid the result gets; None for the first source.
        roi: label map of suspected lesions, on any grid; used as drawn. None for no prompt.
        roi_labels: label values by region; None for BraTS's, ``{"oedema": [2], "core": [1, 3, 4]}``, so that a map
            with the single label 1 is one core region.
        device: see :func:`MedXlateCore.devices.choose_device`.
        precision: ``auto``, ``fp32`` or ``bf16``.
        batch_size: slices per step.

    Raises:
        UsageError: ``MX-MOD-091`` (the model does not make this target), ``MX-USE-010`` (no such modality),
            ``MX-USE-023`` (a batch size below 1).
    """
    if batch_size < 1:
        raise UsageError("MX-USE-023", f"the batch size is {batch_size}", expected="1 or more", where="batch_size")
    wanted = _target(model.card, target)
    grid_of = None if reference is None else Modality.parse(reference)
    return Translation(
        _Request(tuple(sources), model, wanted, grid_of, roi, dict(roi_labels or {}), device, precision, batch_size)
    )


def output_scale(card: ModelCard, target: Modality, reference: FittedNormaliser) -> FittedNormaliser:
    """Return the map from the network's [-1, 1] to the result's intensities.

    MR has no unit: its scale is given relative to the reference source (the median ratio over the training cases). CT,
    CBCT and PET have fixed windows in HU and SUV.
    """
    scale = OutputScale(**card.output[target.value])
    factor = reference.high if scale.kind == "relative" else 1.0
    return FittedNormaliser(low=scale.low * factor, high=scale.high * factor, clip=False)


class _Clock:
    """Seconds per named stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 4)
        self._last = now


def _target(card: ModelCard, target: Modality | str | None) -> Modality:
    if target is None and len(card.targets) == 1:
        return Modality.parse(card.targets[0])
    wanted = Modality.parse(target) if target is not None else None
    if wanted is None or wanted.value not in card.targets:
        raise UsageError(
            "MX-MOD-091",
            f"the target {wanted.value if wanted else '(none given)'} is not one that model '{card.name}' makes",
            expected=f"one of {', '.join(card.targets)}",
            where="--target",
            fix="choose one of these targets, or another model (medxlate models list)",
        )
    return wanted


def _checked_sources(request: _Request) -> tuple[list[Volume], Volume, list[Warned]]:
    """Check every source; return them in the model's channel order, the reference, and what was noticed.

    Raises:
        InputError: see ``checks``.
        UsageError: ``MX-USE-022``, the reference is not among the sources.
    """
    card = request.model.card
    required = [Modality.parse(name) for name in card.sources]
    warnings = [note for volume in request.sources for note in volume.notes]
    sound = []
    for volume in request.sources:
        repaired, found = checked(volume)
        sound.append(repaired)
        warnings += found
    # the reference first: the others are checked against its grid
    sound.sort(key=lambda volume: request.reference is not None and volume.modality is not request.reference)
    warnings += check_sources(sound, required)
    by_role = {volume.modality: volume for volume in sound}
    if request.reference is not None and request.reference not in by_role:
        raise UsageError(
            "MX-USE-022",
            f"the reference {request.reference} is not among the sources",
            expected=f"one of {', '.join(by_role)}",
            where="--reference",
            fix="name the modality of one of the sources",
        )
    return [by_role[role] for role in required], sound[0], warnings


def _prompt(
    request: _Request, reference: Volume, prepared: PreparedSources
) -> tuple[Float32Array | None, list[Warned]]:
    """Return the prompt on the model grid, exactly as drawn, or None."""
    if request.roi is None:
        return None, []
    if request.model.card.prompts != "region":
        raise UsageError(
            "MX-ROI-010",
            f"model '{request.model.card.name}' takes no region of interest",
            expected="sources only",
            where="--roi",
            fix="leave the region out, or choose a model with region prompts",
        )
    labels = request.roi_labels or DEFAULT_LABELS
    warnings = check_roi(request.roi, reference, labels)
    encoding = getattr(request.model.config, "prompt_encoding", "two_region")
    return prepare_roi(request.roi, prepared.plan, labels, encoding), warnings


def _check_output(stack: Float32Array, slices: list[int]) -> list[Warned]:
    """Refuse a result that is not a finite image; warn of one that shows nothing.

    Raises:
        InputError: ``MX-MOD-092``, the network gave values that are not finite.
    """
    values = stack[slices]
    if not np.isfinite(values).all():
        bad = [k for k in slices if not np.isfinite(stack[k]).all()]
        raise InputError(
            "MX-MOD-092",
            f"the network gave NaN or infinite values in {len(bad)} of {len(slices)} slices",
            expected="finite values",
            where=f"model-grid slice {bad[0]}",
            fix="use --precision fp32; if it stays, the model package is unusable",
        )
    if values.size and float(values.max() - values.min()) < 1e-3:
        return [Warned("MX-MOD-093", "the result is constant", fix="check that the sources are what the model expects")]
    return []


def _to_volume(stack: Float32Array, prepared: PreparedSources, scale: FittedNormaliser, request: _Request) -> Volume:
    background = float(scale.invert(np.array(-1.0, dtype=np.float32)))
    array = prepared.plan.to_reference(scale.invert(unstack(stack)), fill=background)
    name = f"SYNTHETIC {request.target.value} ({request.model.card.name})"
    return Volume(array, prepared.plan.reference, request.target, Source(name=name), synthetic=True)


def _record(
    request: _Request,
    sources: list[Volume],
    prepared: PreparedSources,
    prompt: Float32Array | None,
    scale: FittedNormaliser,
    device: Device,
    seconds: dict[str, float],
    warnings: list[Warned],
) -> RunRecord:
    model = request.model.card
    return RunRecord(
        target=request.target.value,
        model={"name": model.name, "version": model.version, "method": model.method, "sha256": model.weights["sha256"]},
        inputs=[describe_volume(volume) for volume in sources],
        prompt=None if request.roi is None else {
            **describe_volume(request.roi),
            "labels": {name: list(values) for name, values in (request.roi_labels or DEFAULT_LABELS).items()},
            "voxels_on_model_grid": 0 if prompt is None else int(np.count_nonzero(prompt)),
            "used": "as drawn",
        },
        grid=prepared.plan.describe(),
        intensity={
            "sources": {v.modality.value: f.to_dict() for v, f in zip(sources, prepared.fitted, strict=True)},
            "result": scale.to_dict(),
        },
        compute={
            "device": str(device.torch_device), "device_name": device.name, "precision": device.precision,
            "batch_size": request.batch_size, "slices": len(prepared.occupied_slices),
            "slices_on_grid": int(prepared.foreground.shape[0]), "seconds": seconds,
        },
        warnings=warnings_as_dicts(warnings),
    )  # fmt: skip
