"""One translation after another, from nodes of a scene to a result node. No Qt: whoever owns it calls ``poll``.

A run that repeats the last one but for the region goes on in the same session: only the slices whose prompt changed are
computed, and the same result node is updated. Nothing is added to the scene before a result is complete, so that a
cancelled or failed run leaves it as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from MedXlateCore.errors import Cancelled, InputError, InternalError, MedXlateError, UsageError, Warned
from MedXlateCore.inference.events import Event, Finished, Progress, Started
from MedXlateCore.models.sampling import Sampling
from MedXlateCore.volume import Volume
from MedXlateCore.worker import Result
from MedXlateSlicerLib.bridge import roi_from_segmentation, update_node, volume_from_node
from MedXlateSlicerLib.estimates import Store, expected_seconds, remaining_text, remember_run
from MedXlateSlicerLib.models import ModelChoice
from MedXlateSlicerLib.nodes import Node, local_affine, require_volume
from MedXlateSlicerLib.placement import add_result, add_uncertainty, mark_synthetic, mark_uncertainty
from MedXlateSlicerLib.regions import REGION_LABELS, segments_by_region
from MedXlateSlicerLib.runner import Job, Runner
from MedXlateSlicerLib.texts import tr as _

__all__ = ["Request", "RunStatus", "Translator"]

Phase = Literal["idle", "running", "done", "cancelled", "failed"]


@dataclass(frozen=True, eq=False)
class Request:
    """What to make.

    Attributes:
        sources: volume nodes by role.
        model: the model that will be used.
        target: modality to make.
        grid_of: role whose grid the result gets; empty for the model's first source.
        segmentation: where the region is drawn, or None.
        uses: what its segments are used as, by identifier; see ``regions.USES``.
        device, precision: see ``MedXlateCore.devices.choose_device``.
        sampling: how samples are drawn, for models that draw samples; None for others.
        uncertainty: add the samples' standard deviation as a volume of its own.
        run_in: ``worker`` (a process of its own) or ``panel`` (inside the application).
    """

    sources: Mapping[str, Node]
    model: ModelChoice
    target: str
    grid_of: str = ""
    segmentation: Node | None = None
    uses: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    precision: str = "auto"
    sampling: Sampling | None = None
    uncertainty: bool = False
    run_in: str = "worker"

    @property
    def samples(self) -> int:
        """How many samples are drawn; 1 for a model that draws none."""
        return 1 if self.sampling is None else self.sampling.samples

    @property
    def reference(self) -> str:
        """Role of the source whose grid the result gets."""
        return self.grid_of if self.grid_of in self.sources else self.model.sources[0]


@dataclass
class RunStatus:
    """What the panel tells of the run.

    Attributes:
        phase: ``idle``, ``running``, ``done``, ``cancelled`` or ``failed``.
        text: one line for the user.
        done, total: slices, or steps of a model that draws samples; total 0 while it is not known yet.
        warnings: recorded so far.
        error: why it failed.
        record: the run record of the last result.
        result: the last result's node.
        uncertainty: the node of its standard deviation, where there is one.
    """

    phase: Phase = "idle"
    text: str = ""
    done: int = 0
    total: int = 0
    warnings: list[Warned] = field(default_factory=list)
    error: MedXlateError | None = None
    record: Mapping[str, Any] | None = None
    result: Node | None = None
    uncertainty: Node | None = None


class Translator:
    """Runs requests, one at a time.

    Args:
        scene: where results go.
        make_runner: returns the driver for ``worker`` or ``panel``; called once for each.
        store: where durations are remembered.
        on_change: called whenever the status has changed.
    """

    def __init__(
        self, scene: Node, make_runner: Callable[[str], Runner], store: Store, on_change: Callable[[], None]
    ) -> None:
        self._scene = scene
        self._make_runner = make_runner
        self._store = store
        self._on_change = on_change
        self._runners: dict[str, Runner] = {}
        self._runner: Runner | None = None
        self._request: Request | None = None
        self._key: Hashable = None
        self._made_with: Hashable = None
        self._started = 0.0
        self._finished: Finished | None = None
        self.status = RunStatus()

    # --- asking -----------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """True while a run is under way."""
        return self.status.phase == "running"

    def expected_seconds(self, request: Request) -> float | None:
        """Return how long a full run will probably take, None where that is not known."""
        image = request.sources[request.reference].GetImageData()
        voxels = 0 if image is None else image.GetNumberOfPoints()
        sha256 = request.model.card.weights["sha256"]
        return expected_seconds(self._store, sha256, request.device, voxels * request.samples)

    def start(self, request: Request) -> None:
        """Begin a run; ``poll`` carries it on. Errors end up in the status."""
        if self.busy:
            return
        self.status = self._fresh("running", _("Reading the volumes"))
        self._request, self._finished, self._started = request, None, time.monotonic()
        try:
            self._begin(request)
        except MedXlateError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - the edge of the panel: told, not thrown into the event loop
            self._fail(InternalError.from_exception(error))
        self._on_change()

    def refuse(self, error: MedXlateError) -> None:
        """Show an error that came before a run could start."""
        self.status = self._fresh()
        if isinstance(error, Cancelled):
            self.status.phase, self.status.text = "cancelled", _("Cancelled. Nothing was changed.")
        else:
            self._fail(error)
        self._on_change()

    def poll(self) -> None:
        """Carry the run on by a step, or hear what the worker has told. Returns quickly."""
        if self._runner is not None and self.busy:
            try:
                self._runner.poll()
            except MedXlateError as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001 - as above
                self._fail(InternalError.from_exception(error))

    def cancel(self, why: str = "") -> None:
        """Stop at once; the scene is as it was before the run."""
        if not self.busy:
            return
        if self._runner is not None:
            self._runner.cancel()
        self.status.phase, self.status.text = "cancelled", why or _("Cancelled. Nothing was changed.")
        self._on_change()

    def forget_scene(self) -> None:
        """Let go of everything that belongs to a scene that is closed."""
        self.cancel(_("Cancelled: the scene was closed."))
        self._key = self._made_with = self._request = None
        if not self.status.error:
            self.status = RunStatus(self.status.phase if self.status.phase == "cancelled" else "idle", self.status.text)
        self.status.result = self.status.uncertainty = None

    def close(self) -> None:
        """Stop and free what the runners hold."""
        self.cancel()
        for runner in self._runners.values():
            runner.close()
        self._runners.clear()
        self._runner = None

    # --- the run ----------------------------------------------------------------------------------------------------

    def _fresh(self, phase: Phase = "idle", text: str = "") -> RunStatus:
        """Return a new status that still knows the last result."""
        return RunStatus(phase, text, result=self.status.result, uncertainty=self.status.uncertainty)

    def _begin(self, request: Request) -> None:
        for role in request.model.sources:
            require_volume(request.sources.get(role), self._scene)
        runner = self._runners.get(request.run_in) or self._make_runner(request.run_in)
        self._runners[request.run_in] = runner
        self._runner = runner
        roi = self._roi(request)
        key = self._key_of(request)
        if key == self._key and runner.has_session:
            runner.update(roi, self._hear, self._end)
            return
        self._key = key
        volumes = [volume_from_node(node, role, self._scene) for role, node in self._read(request).items()]
        job = Job(
            sources=volumes, model=request.model.path, target=request.target, reference=request.reference, roi=roi,
            roi_labels=REGION_LABELS, device=request.device, precision=request.precision, sampling=request.sampling,
        )  # fmt: skip
        runner.start(job, self._hear, self._end)

    @staticmethod
    def _read(request: Request) -> dict[str, Node]:
        """Return the sources that the model takes."""
        return {role: request.sources[role] for role in request.model.reads if role in request.sources}

    def _roi(self, request: Request) -> Volume | None:
        parts = segments_by_region(request.segmentation, request.uses)
        if not parts or request.model.card.prompts != "region":
            return None
        reference = request.sources[request.reference]
        return roi_from_segmentation(request.segmentation, parts, reference, REGION_LABELS, self._scene)

    def _key_of(self, request: Request) -> Hashable:
        """Return what a session depends on: everything but the region."""
        sources = tuple((role, *_state_of(node)) for role, node in self._read(request).items())
        card = request.model.card
        model = (str(request.model.path), card.card_sha256, card.weights["sha256"])
        how = request.device, request.precision, request.sampling, request.run_in
        return sources, model, request.target, request.reference, *how

    def _hear(self, event: Event) -> None:
        status = self.status
        if isinstance(event, Started):
            status.total, status.done, status.text = event.total, 0, _("Making {what}").format(what=event.text)
        elif isinstance(event, Progress):
            status.total, status.done = event.total, event.done
            left = remaining_text(time.monotonic() - self._started, event.done, event.total)
            text = _("{done} of {total} steps") if self._draws_samples else _("{done} of {total} slices")
            text = text.format(done=event.done, total=event.total)
            status.text = f"{text}, {left}" if left else text
        elif isinstance(event, Warned):
            status.warnings.append(event)
        elif isinstance(event, Finished):
            self._finished = event
        self._on_change()

    @property
    def _draws_samples(self) -> bool:
        return self._request is not None and self._request.model.card.draws_samples

    def _end(self, result: Result | None, error: MedXlateError | None) -> None:
        """Take the result, or the error, of a run that has ended."""
        if not self.busy:  # cancelled meanwhile
            return
        if isinstance(error, Cancelled):
            self.status.phase, self.status.text = "cancelled", _("Cancelled. Nothing was changed.")
        elif error is not None or result is None or self._request is None:
            self._fail(error or InternalError("MX-INT-001", "a run ended without a result", fix="run again"))
        else:
            self._take(result, self._request)
        self._on_change()

    def _take(self, result: Result, request: Request) -> None:
        node = request.sources.get(request.reference)
        source = node if node is not None and node.GetScene() is self._scene else None
        if source is None:
            text = _("the source was removed during the run: the result lies in world space")
            self.status.warnings.append(Warned("MX-SLI-141", text, request.reference))
        updated = self._update(self.status.result, result.volume)
        if updated:
            mark_synthetic(self.status.result, result.record)
        else:
            self.status.result = add_result(self._scene, result.volume, result.record, source)
        self._take_uncertainty(result, request.uncertainty, updated)
        self._made_with = self._key
        self.status.record = result.record
        self.status.phase, self.status.text = "done", self._summary(updated, request)
        if self._finished is not None and not self._finished.slices_reused:
            sha256 = request.model.card.weights["sha256"]
            voxels = result.volume.array.size * request.samples
            remember_run(self._store, sha256, request.device, voxels, time.monotonic() - self._started)

    def _take_uncertainty(self, result: Result, wanted: bool, updated: bool) -> None:
        """Show the samples' standard deviation under the result.

        A volume that already lies under an updated result is updated with it, wanted or not: it would no longer be
        that of the result. One that the user moved or changed is the user's own.
        """
        known = self.status.uncertainty if updated else None
        self.status.uncertainty = None
        if result.uncertainty is None:
            return
        if self._update(known, result.uncertainty):
            mark_uncertainty(known, result.record)
            self.status.uncertainty = known
        elif wanted:
            self.status.uncertainty = add_uncertainty(
                self._scene, result.uncertainty, result.record, self.status.result
            )

    def _update(self, node: Node | None, volume: Volume) -> bool:
        """Put voxels into an earlier node, where that is still there and was made from the same sources."""
        if node is None or node.GetScene() is not self._scene or self._made_with != self._key:
            return False
        try:
            update_node(node, volume)
        except (InputError, UsageError):  # moved or changed by the user: a new node is made
            return False
        return True

    def _summary(self, updated: bool, request: Request) -> str:
        finished, name = self._finished, self.status.result.GetName()
        if finished is None:
            return _("{name} is done.").format(name=name)
        seconds = f"{finished.seconds:.1f}"
        total = finished.slices_recomputed + finished.slices_reused
        if updated and finished.slices_reused:
            text = _("{name} was updated: {changed} of {total} slices changed, {seconds} s.")
            return text.format(name=name, changed=finished.slices_recomputed, total=total, seconds=seconds)
        if updated:
            return _("{name} was updated, {seconds} s.").format(name=name, seconds=seconds)
        if request.samples > 1:
            text = _("{name} was made from {samples} samples, {seconds} s.")
            return text.format(name=name, samples=request.samples, seconds=seconds)
        text = _("{name} was made, {total} slices, {seconds} s.")
        return text.format(name=name, total=total, seconds=seconds)

    def _fail(self, error: MedXlateError) -> None:
        self.status.phase, self.status.error = "failed", error
        self.status.text = _("It did not work: {found}.").format(found=error.found.splitlines()[0])


def _state_of(node: Node) -> tuple[Hashable, ...]:
    """Return what changes when a volume node's voxels or its place change."""
    transform = node.GetParentTransformNode()
    above = None if transform is None else (transform.GetID(), transform.GetTransformToWorldMTime())
    return node.GetID(), node.GetImageData().GetMTime(), local_affine(node).tobytes(), above
