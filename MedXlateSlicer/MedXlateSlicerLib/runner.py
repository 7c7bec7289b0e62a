"""Who does the computing: a worker process, or this application a step at a time. One interface for both.

A runner is carried on by ``poll``, which a ``qt.QTimer`` of the panel calls: Python threads stand still in 3D Slicer
while its event loop has nothing to do. Every run ends with exactly one call of ``on_done``, a cancelled one included.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import MedXlateCore
from MedXlateCore.errors import Cancelled, InternalError, MedXlateError, ResourceError, UsageError
from MedXlateCore.inference.events import Event, Translation
from MedXlateCore.models.sampling import Sampling
from MedXlateCore.volume import Modality, Volume
from MedXlateCore.worker import Failed, Opened, Ready, Result, WorkerClient

if TYPE_CHECKING:
    from MedXlateCore.inference.session import TranslationSession
    from MedXlateCore.models.package import LoadedModel

__all__ = [
    "InProcessRunner",
    "Job",
    "OnDone",
    "OnEvent",
    "Runner",
    "WorkerRunner",
    "make_runner",
    "worker_command",
    "worker_environment",
]

OnEvent = Callable[[Event], None]
OnDone = Callable[[Result | None, MedXlateError | None], None]


@dataclass(frozen=True, eq=False)
class Job:
    """One translation; the fields are the arguments of ``MedXlateCore.inference.session.TranslationSession``."""

    sources: Sequence[Volume]
    model: Path | str
    target: Modality | str | None = None
    reference: Modality | str | None = None
    roi: Volume | None = None
    roi_labels: Mapping[str, Sequence[int]] | None = None
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | str = "auto"
    sampling: Sampling | None = None

    def options(self) -> dict[str, Any]:
        """Return the settings of a session by name."""
        names = ("target", "reference", "roi_labels", "device", "precision", "batch_size", "sampling")
        return {name: getattr(self, name) for name in names}


class Runner(Protocol):
    """Computes one job at a time."""

    @property
    def busy(self) -> bool:
        """True from ``start`` or ``update`` to ``on_done``."""

    @property
    def has_session(self) -> bool:
        """True if ``update`` can go on with the sources and the model of the last job."""

    def start(self, job: Job, on_event: OnEvent, on_done: OnDone) -> None:
        """Begin a job; events and the end are told from ``poll``."""

    def update(self, roi: Volume | None, on_event: OnEvent, on_done: OnDone) -> None:
        """Begin again with another region: only the slices whose prompt changes are computed."""

    def poll(self) -> None:
        """Carry the job on; call this often."""

    def cancel(self) -> None:
        """Stop at once; ``on_done`` hears of ``Cancelled``."""

    def close(self) -> None:
        """Stop without a word and free everything. The runner stays usable."""


def make_runner(run_in: str) -> Runner:
    """Return the runner for ``worker`` (a process of its own) or ``panel`` (inside the application)."""
    return InProcessRunner() if run_in == "panel" else WorkerRunner()


def worker_command() -> list[str]:
    """Return the interpreter that a worker runs with: this application's own Python.

    In 3D Slicer ``sys.executable`` is the launcher PythonSlicer, whose child the worker would be: a launcher need not
    pass stdin on, nor end with its child. Its Python proper lies beside it and takes the environment that Slicer runs
    in. A build without launchers has an empty ``sys.executable``, or the application's own program, which must never be
    started as a worker: then Python is looked for in its home.
    """
    launchers = [Path(text) for text in (sys.executable, shutil.which("PythonSlicer")) if text]
    homes = [Path(sys.prefix), Path(sys.base_prefix)]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    choices = [
        *(path.parent / name for path in launchers for name in ("python-real", "python-real.exe")),
        *(path for path in launchers if path.name.lower().startswith("python")),
        *(home / name for home in homes for name in (f"bin/{version}", "bin/python3", "python.exe")),
    ]
    found = next((path for path in choices if path.is_file() and os.access(path, os.X_OK)), None)
    return [str(found or version)]


def worker_environment() -> dict[str, str]:
    """Return what a worker's environment has to have beside this one's: the way to all that can be imported here.

    An application may know folders of packages that its Python does not know when it is started alone.
    """
    home = str(Path(MedXlateCore.__file__).resolve().parents[1])
    packages = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    paths = [home, *os.environ.get("PYTHONPATH", "").split(os.pathsep), *packages]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, paths)))}


class _Listeners:
    """Whom to tell, and that the end is told once."""

    def __init__(self) -> None:
        self._on_event: OnEvent | None = None
        self._on_done: OnDone | None = None

    @property
    def waiting(self) -> bool:
        """True until the end was told."""
        return self._on_done is not None

    def begin(self, on_event: OnEvent, on_done: OnDone) -> None:
        """Take new listeners."""
        if self.waiting:
            raise UsageError("MX-WRK-003", "a run is under way", expected="one run at a time", fix="wait, or cancel")
        self._on_event, self._on_done = on_event, on_done

    def event(self, event: Event) -> None:
        """Tell of an event."""
        if self._on_event is not None:
            self._on_event(event)

    def end(self, result: Result | None, error: MedXlateError | None) -> None:
        """Tell of the end; afterwards the runner is free, also for a new run that the listener starts at once."""
        on_done, self._on_event, self._on_done = self._on_done, None, None
        if on_done is not None:
            on_done(result, error)

    def drop(self) -> None:
        """Forget them."""
        self._on_event = self._on_done = None


class WorkerRunner:
    """Computes in a resident worker process: the application stays responsive, and cancelling really ends the work.

    Args:
        client: the worker's client; by default one with this application's Python.
    """

    def __init__(self, client: WorkerClient | None = None) -> None:
        self._client = client or WorkerClient(worker_command(), worker_environment())
        self._listeners = _Listeners()

    @property
    def busy(self) -> bool:
        """See :class:`Runner`."""
        return self._listeners.waiting

    @property
    def has_session(self) -> bool:
        """See :class:`Runner`."""
        return self._client.has_session

    def start(self, job: Job, on_event: OnEvent, on_done: OnDone) -> None:
        """See :class:`Runner`."""
        self._begin(on_event, on_done, lambda: self._ask(job))

    def update(self, roi: Volume | None, on_event: OnEvent, on_done: OnDone) -> None:
        """See :class:`Runner`."""
        self._begin(on_event, on_done, lambda: self._client.update(roi))

    def poll(self) -> None:
        """See :class:`Runner`."""
        for event in self._client.poll():
            if not self.busy:  # a listener cancelled
                return
            if isinstance(event, Result):
                self._listeners.end(event, None)
            elif isinstance(event, Failed):
                self._listeners.end(None, event.error)
            elif not isinstance(event, (Ready, Opened)):
                self._listeners.event(event)

    def cancel(self) -> None:
        """See :class:`Runner`."""
        if self.busy:
            self._client.cancel()
            self._listeners.end(None, Cancelled("translation"))

    def close(self) -> None:
        """See :class:`Runner`."""
        self._listeners.drop()
        self._client.close()

    def _ask(self, job: Job) -> None:
        self._client.open(job.sources, job.model, **job.options())
        self._client.update(job.roi)

    def _begin(self, on_event: OnEvent, on_done: OnDone, ask: Callable[[], None]) -> None:
        self._listeners.begin(on_event, on_done)
        try:
            if self._client.busy:  # asked for by nobody who still listens
                self._client.cancel()
            ask()
        except MedXlateError as error:
            self._listeners.end(None, error)


class InProcessRunner:
    """Computes in this process, one step a ``poll``: for batches, and where no second process is wanted."""

    def __init__(self) -> None:
        self._listeners = _Listeners()
        self._model: LoadedModel | None = None
        self._session: TranslationSession | None = None
        self._translation: Translation | None = None
        self._job: Job | None = None
        self._roi: Volume | None = None

    @property
    def busy(self) -> bool:
        """See :class:`Runner`."""
        return self._listeners.waiting

    @property
    def has_session(self) -> bool:
        """See :class:`Runner`."""
        return self._session is not None

    def start(self, job: Job, on_event: OnEvent, on_done: OnDone) -> None:
        """See :class:`Runner`."""
        self._listeners.begin(on_event, on_done)
        self._session = self._translation = None
        self._job, self._roi = job, job.roi

    def update(self, roi: Volume | None, on_event: OnEvent, on_done: OnDone) -> None:
        """See :class:`Runner`."""
        self._listeners.begin(on_event, on_done)
        if self._session is None:
            error = UsageError("MX-WRK-003", "no inputs are open", expected="start before update", where="panel")
            self._listeners.end(None, error)
            return
        self._roi = roi

    def poll(self) -> None:
        """See :class:`Runner`."""
        if not self.busy:
            return
        try:
            event = self._step()
        except StopIteration:
            done, self._translation = self._translation, None
            if done is not None:
                self._listeners.end(Result(done.result, done.record.as_dict(), done.uncertainty), None)
        except MedXlateError as error:
            self._fail(error)
        except ImportError as error:
            self._fail(_unusable(error))
        except Exception as error:  # noqa: BLE001 - the edge of the panel: told, not thrown into the event loop
            self._fail(InternalError.from_exception(error))
        else:
            if event is not None:
                self._listeners.event(event)

    def cancel(self) -> None:
        """See :class:`Runner`."""
        if self.busy:
            self._stop()
            self._listeners.end(None, Cancelled("translation"))

    def close(self) -> None:
        """See :class:`Runner`."""
        self._listeners.drop()
        self._stop()
        self._session = self._model = None

    def _step(self) -> Event | None:
        """Load the model, open the session, begin, and then one step of the translation."""
        if self._job is not None:
            job, self._job = self._job, None
            self._session = self._open(job)
        elif self._translation is None and self._session is not None:
            self._translation = self._session.update(roi=self._roi)
        elif self._translation is not None:
            return next(self._translation)
        return None

    def _open(self, job: Job) -> TranslationSession:
        from MedXlateCore.inference.session import TranslationSession
        from MedXlateCore.models.card import read_card
        from MedXlateCore.models.catalogue import find_package
        from MedXlateCore.models.package import load_package

        folder = find_package(job.model)
        if self._model is None or self._model.path != folder or self._model.card != read_card(folder):
            self._model = None
            self._model = load_package(folder)
        return TranslationSession(job.sources, self._model, **job.options())

    def _stop(self) -> None:
        if self._translation is not None:
            self._translation.cancel()
            with contextlib.suppress(Cancelled):
                next(self._translation)
        self._translation = self._job = self._roi = None

    def _fail(self, error: MedXlateError) -> None:
        self._translation = self._job = None
        self._listeners.end(None, error)


def _unusable(error: ImportError) -> ResourceError:
    return ResourceError(
        "MX-RES-024",
        f"the Python module '{error.name}' is not installed",
        expected="an installation with PyTorch",
        where="panel",
        fix="press Apply again and let MedXlate install it, or install the PyTorch extension",
    )
