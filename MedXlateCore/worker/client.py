"""The client's side of the worker: starts it, asks, looks for events, ends it. Never waits, uses no threads."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from MedXlateCore.errors import MedXlateError, ResourceError, UsageError
from MedXlateCore.files import folder_lock
from MedXlateCore.models.catalogue import find_package
from MedXlateCore.models.sampling import Sampling
from MedXlateCore.volume import Modality, Volume
from MedXlateCore.worker.arrays import Parcel, remove_parcels
from MedXlateCore.worker.messages import Failed, Result, WorkerEvent, describe, event_from_dict, line, nothing_open
from MedXlateCore.worker.processes import MARK, end_tree, start_options

__all__ = ["WorkerClient"]

_PREFIX = "medxlate-worker-"
_FRESH_S = 60.0  # a scratch folder younger than this may belong to a client that is just starting
_TAIL_LINES, _TAIL_BYTES = 20, 4000
_NO_TREE_S = 5.0
_own_folders: set[Path] = set()


class WorkerClient:
    """One worker and what it is asked. Look for events with :meth:`poll`, for example from a timer.

    Args:
        command: the Python interpreter to run the worker with, and its options; this one by default.
        environment: changes to the environment (None removes a variable).
        shared_memory: False to pass voxels through files.
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str | None] | None = None,
        shared_memory: bool = True,
    ) -> None:
        self._command = list(command or [sys.executable])
        self._environment = dict(environment or {})
        self._shared_memory = shared_memory
        self._ids = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._resources = contextlib.ExitStack()
        self._scratch = Path()
        self._parcels: dict[int, list[Parcel]] = {}  # by the command they were made for
        self._rooms: dict[int, tuple[Parcel, ...]] = {}  # of these, by update: for the result and its uncertainty
        self._pending: dict[int, str] = {}  # command by id, oldest first
        self._seen = 0
        self._grid_bytes = 0
        self._uncertain = False  # the session's samples are enough for an uncertainty
        self._parcel_number = 0

    # --- state -----------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """True while the worker process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def busy(self) -> bool:
        """True while an answer is awaited."""
        return bool(self._pending)

    @property
    def has_session(self) -> bool:
        """True if :meth:`update` can follow without :meth:`open`."""
        return self.running and self._grid_bytes > 0

    @property
    def pid(self) -> int | None:
        """Process id of the worker, or None."""
        return self._process.pid if self._process else None

    # --- asking ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the worker, so that its libraries load in the background; nothing happens if it runs already.

        Raises:
            ResourceError: ``MX-WRK-002``, it cannot be started.
        """
        if self.running:
            return
        self._clean_up()
        _remove_stale_folders()
        try:
            self._launch()
        except OSError as error:
            self._clean_up()
            raise ResourceError(
                "MX-WRK-002",
                f"the worker cannot be started ({error})",
                expected="a Python interpreter that can be run, and room for temporary files",
                where=" ".join(self._command),
                fix="repair the installation, or run without the worker",
            ) from error

    def open(
        self,
        sources: Sequence[Volume],
        model: Path | str,
        *,
        target: Modality | str | None = None,
        reference: Modality | str | None = None,
        roi_labels: Mapping[str, Sequence[int]] | None = None,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | str = "auto",
        sampling: Sampling | None = None,
    ) -> None:
        """Give the worker its inputs; arguments as ``MedXlateCore.inference.session.TranslationSession``.

        Raises:
            UsageError: ``MX-WRK-003`` (an answer is awaited), ``MX-USE-010``, ``MX-USE-022``.
            InputError: ``MX-MOD-010``, there is no such model.
            ResourceError: ``MX-WRK-002``, ``MX-WRK-004``.
        """
        self._refuse_while_busy()
        folder = find_package(model).resolve()
        wanted = None if reference is None else Modality.parse(reference)
        grid = next((v for v in sources if wanted is None or v.modality is wanted), None)
        options = {
            "target": None if target is None else Modality.parse(target).value,
            "reference": None if wanted is None else wanted.value,
            "roi_labels": None if roi_labels is None else {name: list(values) for name, values in roi_labels.items()},
            "device": device,
            "precision": precision,
            "batch_size": batch_size,
            "sampling": None if sampling is None else sampling.to_dict(),
        }
        self.start()
        self._uncertain = sampling is not None and sampling.samples > 1
        self._grid_bytes = 4 * grid.array.size if grid is not None else 4
        with self._request() as number:
            described = [self._passed(volume, number) for volume in sources]
            self._ask(number, {"command": "open", "sources": described, "model": str(folder), "options": options})

    def update(self, roi: Volume | None = None) -> None:
        """Ask for the result with this region. May follow :meth:`open` at once.

        Raises:
            UsageError: ``MX-WRK-003``, no inputs are open.
            ResourceError: ``MX-WRK-004``.
        """
        if not self.has_session:
            raise nothing_open()
        with self._request() as number:
            described = None if roi is None else self._passed(roi, number)
            rooms = [self._parcel(self._grid_bytes, number) for _ in range(2 if self._uncertain else 1)]
            self._rooms[number] = tuple(rooms)
            spread = rooms[1].reference if self._uncertain else None
            message = {"command": "update", "roi": described, "result": rooms[0].reference, "uncertainty": spread}
            self._ask(number, message)

    def forget(self) -> None:
        """Let the worker drop its inputs and free their memory; the model stays loaded."""
        self._refuse_while_busy()
        if self.running:
            self._grid_bytes = 0
            self._ask(next(self._ids), {"command": "forget"})

    def poll(self) -> list[WorkerEvent]:
        """Return what the worker has told since the last call. Returns at once.

        A worker that ended in the middle of its work becomes ``Failed`` with ``MX-WRK-001`` and the end of its log;
        the next request starts a new one.
        """
        if self._process is None:
            return []
        ended = self._process.poll() is not None  # asked first: all that it wrote is there then
        events = [event for text in self._new_lines() if (event := self._heard(text)) is not None]
        if ended:
            if self.busy:
                events.append(Failed(self._crash()))
            self.close()
        return events

    def cancel(self) -> None:
        """End the worker and everything it started, at once; the next request starts a fresh one."""
        self.close()

    def close(self) -> None:
        """End the worker and free all it holds. May be called at any time; the client stays usable."""
        if self._process is not None:
            end_tree(self._process.pid, self._scratch.name)
            with contextlib.suppress(OSError):
                self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_NO_TREE_S)
        self._clean_up()

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside ----------------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        scratch = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._scratch = scratch
        _own_folders.add(scratch)
        self._resources.callback(_own_folders.discard, scratch)
        self._resources.callback(shutil.rmtree, scratch, ignore_errors=True)
        self._resources.enter_context(folder_lock(scratch))
        with (scratch / "events.jsonl").open("ab") as events, (scratch / "worker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "-P", "-m", "MedXlateCore.worker", str(scratch)],
                stdin=subprocess.PIPE, stdout=events, stderr=log, env=self._worker_environment(),
                bufsize=0, **start_options(),  # type: ignore[call-overload]
            )  # fmt: skip

    def _worker_environment(self) -> dict[str, str]:
        home = str(Path(__file__).resolve().parents[2])
        paths = [home, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        own = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1", MARK: self._scratch.name}
        changes = {**own, **self._environment}
        return {name: value for name, value in {**os.environ, **changes}.items() if value is not None}

    @contextlib.contextmanager
    def _request(self) -> Iterator[int]:
        """Give the next id; if the request cannot be made, give its parcels back."""
        number = next(self._ids)
        try:
            yield number
        except MedXlateError:
            self._settle(number)
            raise

    def _ask(self, number: int, message: Mapping[str, Any]) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise self._crash()
        self._pending[number] = str(message["command"])
        with contextlib.suppress(OSError):  # it has ended: the next poll tells
            process.stdin.write(line({**message, "id": number}))

    def _passed(self, volume: Volume, number: int) -> dict[str, Any]:
        facts = describe(volume)
        parcel = self._parcel(volume.array.nbytes, number)
        parcel.put(volume.array)
        return {**facts, "voxels": parcel.reference}

    def _parcel(self, size: int, number: int) -> Parcel:
        self._parcel_number += 1
        name = f"{self._scratch.name}-{self._parcel_number}"
        parcel = Parcel(name, size, self._scratch, self._shared_memory)
        self._parcels.setdefault(number, []).append(parcel)
        return parcel

    def _new_lines(self) -> list[bytes]:
        with (self._scratch / "events.jsonl").open("rb") as stream:
            stream.seek(self._seen)
            data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]  # the last line may still be growing
        self._seen += len(whole)
        return whole.splitlines()

    def _heard(self, text: bytes) -> WorkerEvent | None:
        facts = json.loads(text)
        number = facts.get("id")
        if number is not None and number not in self._pending:
            return None  # it answers something that failed before
        event = event_from_dict(facts, self._rooms.get(number, ()))
        if isinstance(event, Failed):
            if self._pending[number] == "open":
                self._grid_bytes = 0
            self._settle(*self._pending)  # what was asked for after it cannot be done either
        elif isinstance(event, Result) or facts["event"] in ("opened", "forgotten"):
            self._settle(number)
        return event

    def _settle(self, *numbers: int) -> None:
        for number in numbers:
            self._pending.pop(number, None)
            self._rooms.pop(number, None)
            for parcel in self._parcels.pop(number, []):
                parcel.free()

    def _refuse_while_busy(self) -> None:
        if self.busy:
            raise UsageError(
                "MX-WRK-003", "the worker is busy", expected="one request after the other", where="worker",
                fix="wait for the result, or cancel",
            )  # fmt: skip

    def _crash(self) -> MedXlateError:
        code = self._process.poll() if self._process else None
        how = f"exit code {code}"
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-code).name
        tail = _tail(self._scratch / "worker.log")
        return ResourceError(
            "MX-WRK-001",
            f"the worker ended in the middle of its work ({how})" + (f"; the end of its log:\n{tail}" if tail else ""),
            expected="a result",
            where="worker",
            fix="start again; if it stays, memory is probably lacking: close other programs or use another device",
        )

    def _clean_up(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._settle(*self._pending, *self._parcels)
        self._resources.close()
        self._process = None
        self._seen = self._grid_bytes = 0


def _tail(log: Path) -> str:
    try:
        text = log.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])


def _remove_stale_folders() -> None:
    """Clear up after clients that were killed together with their workers."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, ResourceError):
            status = folder.stat()
            mine = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
            if folder in _own_folders or not mine or time.time() - status.st_mtime < _FRESH_S:
                continue
            with folder_lock(folder):  # held as long as its client lives
                remove_parcels(folder.name, 0)
            shutil.rmtree(folder, ignore_errors=True)
