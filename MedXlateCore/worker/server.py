"""The worker's side: commands in, events out, one session at a time, the model kept between sessions."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import queue
import shutil
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from MedXlateCore.errors import InternalError, MedXlateError, ResourceError
from MedXlateCore.worker.arrays import remove_parcels, write_parcel
from MedXlateCore.worker.messages import describe, event_to_dict, line, nothing_open, volume_from_parcel
from MedXlateCore.worker.processes import end_tree

if TYPE_CHECKING:
    from MedXlateCore.inference.session import TranslationSession
    from MedXlateCore.models.package import LoadedModel

__all__ = ["main"]

_END = object()


def main(arguments: Sequence[str]) -> int:
    """Serve until ``quit``, or until the client is gone.

    Args:
        arguments: the client's scratch folder (its name is the token of its parcels), or nothing when tried by hand.
    """
    scratch = Path(arguments[0]) if arguments else None
    events = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is not an event
    commands: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, commands, scratch), daemon=True).start()
    worker = _Worker(events)
    worker.load_libraries()
    while (command := commands.get()) is not _END:
        worker.obey(command)
    return 0


def _listen(stream: BinaryIO, commands: queue.SimpleQueue[Any], scratch: Path | None) -> None:
    """Pass commands on; when the client's end closes without ``quit``, it is gone: end at once, mid-work or not."""
    count = 0
    for text in stream:
        command = json.loads(text)
        count += len(command.get("sources", ())) + 3  # an update has a region, a result and its uncertainty at most
        if command["command"] == "quit":
            commands.put(_END)
            return
        commands.put(command)
    if scratch is None:  # tried by hand: do what was asked for, then end
        commands.put(_END)
        return
    remove_parcels(scratch.name, count)
    shutil.rmtree(scratch, ignore_errors=True)
    end_tree(os.getpid() if sys.platform == "win32" else os.getpgrp(), scratch.name)  # the group is of our own
    os._exit(1)


class _Worker:
    """Holds what stays between commands: the loaded model and the open session."""

    def __init__(self, events: int) -> None:
        self._events = events
        self._model: LoadedModel | None = None
        self._session: TranslationSession | None = None

    def load_libraries(self) -> None:
        """Load torch and say so; a lack of it is told by the first command."""
        with contextlib.suppress(ImportError, OSError):
            import MedXlateCore.inference.session  # noqa: F401
            from MedXlateCore.provenance import software_versions

            self._send({"event": "ready", "versions": software_versions()})

    def obey(self, command: Mapping[str, Any]) -> None:
        """Do one command; whatever goes wrong becomes an event."""
        try:
            {"open": self._open, "update": self._update, "forget": self._forget}[command["command"]](command)
        except MedXlateError as error:
            self._fail(command, error)
        except MemoryError:
            self._fail(command, ResourceError("MX-RES-001", "memory ran out", where="worker"))
        except (ImportError, OSError) as error:  # torch is missing, or its libraries cannot be loaded
            self._fail(command, _unloadable(error))
        except Exception as error:  # noqa: BLE001 - the outermost edge: the client must hear of it
            traceback.print_exception(error)
            self._fail(command, InternalError.from_exception(error))

    def _open(self, command: Mapping[str, Any]) -> None:
        from MedXlateCore.inference.session import TranslationSession
        from MedXlateCore.models.sampling import Sampling

        self._session = None
        sources = [volume_from_parcel(facts) for facts in command["sources"]]
        options = dict(command["options"])
        asked = options.pop("sampling", None)
        sampling = None if asked is None else Sampling(**asked)
        model = self._load(Path(command["model"]))
        self._session = TranslationSession(sources, model, sampling=sampling, **options)
        self._send({"event": "opened", "id": command["id"]})

    def _load(self, folder: Path) -> LoadedModel:
        from MedXlateCore.models.card import read_card
        from MedXlateCore.models.package import load_package

        if self._model is None or self._model.path != folder or self._model.card != read_card(folder):
            self._model = None  # first: two models may not fit
            self._model = load_package(folder)
        return self._model

    def _update(self, command: Mapping[str, Any]) -> None:
        if self._session is None:
            raise nothing_open()
        roi = None if command["roi"] is None else volume_from_parcel(command["roi"])
        translation = self._session.update(roi=roi)
        for event in translation:
            self._send({**event_to_dict(event), "id": command["id"]})
        write_parcel(command["result"], translation.result.array)
        spread = translation.uncertainty if command.get("uncertainty") else None
        if spread is not None:
            write_parcel(command["uncertainty"], spread.array)
        answer = {"volume": describe(translation.result), "uncertainty": None if spread is None else describe(spread)}
        self._send({"event": "result", "id": command["id"], **answer, "record": translation.record.as_dict()})

    def _forget(self, command: Mapping[str, Any]) -> None:
        import torch

        self._session = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._send({"event": "forgotten", "id": command["id"]})

    def _fail(self, command: Mapping[str, Any], error: MedXlateError) -> None:
        self._send({"event": "failed", "id": command.get("id"), "error": error.as_dict()})

    def _send(self, message: Mapping[str, Any]) -> None:
        data = line(message)
        while data:
            data = data[os.write(self._events, data) :]


def _unloadable(error: Exception) -> MedXlateError:
    fix = "install PyTorch (in 3D Slicer: the PyTorch extension), or repair it by installing it again"
    if isinstance(error, ModuleNotFoundError):
        return ResourceError.missing_module(str(error.name), "worker", fix)
    return ResourceError(
        "MX-WRK-002", f"loading failed: {error}", expected="an installation with PyTorch", where="worker", fix=fix
    )
