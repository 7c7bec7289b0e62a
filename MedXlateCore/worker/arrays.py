"""Voxels between two processes: shared memory, or a file where there is none (or too little) of it.

The client makes every parcel and takes it away; the worker only attaches. Python's resource tracker is left out of it
on both sides: before Python 3.13 the tracker of a process that merely attached takes the memory away when that process
ends, and inside a host program the tracker could not even be started. Instead the names begin with the client's token:
the worker clears up after a client that was killed, and the next client after both (:func:`remove_parcels`).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.errors import InputError, ResourceError

__all__ = ["Parcel", "array_header", "read_parcel", "remove_parcels", "write_parcel"]

_SHARED_MEMORY = Path("/dev/shm")  # where Linux shows it as files
_NOT_ANNOUNCED = 4  # parcels a killed client can have made without telling the worker


class Parcel:
    """Room for one array that the other process can reach. Call ``free`` when it is no longer needed.

    Args:
        name: unique; also the file's name where it has to be a file.
        size: bytes.
        folder: where such a file goes.
        shared: False to use a file in any case.

    Raises:
        ResourceError: ``MX-WRK-004``, neither memory nor disk has room.
    """

    def __init__(self, name: str, size: int, folder: Path, shared: bool = True) -> None:
        self._memory = _create(name, size) if shared else None
        self._file = None if self._memory else folder / name
        self._size = size

    @property
    def reference(self) -> dict[str, str]:
        """How the other process finds it."""
        return {"memory": self._memory.name} if self._memory else {"file": str(self._file)}

    def put(self, array: NDArray) -> None:
        """Copy an array in."""
        write_parcel(self.reference, array)

    def take(self, header: Mapping[str, Any]) -> NDArray:
        """Return a copy of what the other process put in."""
        return read_parcel(self.reference, header)

    def free(self) -> None:
        """Give the memory back. May be called twice."""
        if self._memory is not None:
            self._memory.close()
            with _untracked(), contextlib.suppress(FileNotFoundError):
                self._memory.unlink()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.unlink()
        self._memory = self._file = None


def array_header(array: NDArray) -> dict[str, Any]:
    """Return shape, type and memory order; the order is kept because sums depend on it in their last bits.

    Raises:
        InputError: ``MX-WRK-004``, values that are no numbers.
    """
    if array.dtype.kind not in "biuf":
        raise InputError(
            "MX-WRK-004",
            f"voxels of type {array.dtype} cannot be passed on",
            expected="integers or real numbers",
            fix="convert the image to float32",
        )
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return {"shape": list(array.shape), "dtype": array.dtype.str, "order": order}


def write_parcel(reference: Mapping[str, str], array: NDArray) -> None:
    """Copy an array into a parcel, in the order that :func:`array_header` tells."""
    order = array_header(array)["order"]
    try:
        if "file" in reference:
            Path(reference["file"]).write_bytes(array.tobytes(order))
            return
        with _attached(reference["memory"]) as memory:
            np.ndarray(array.shape, array.dtype, memory.buf, order=order)[...] = array
    except (OSError, ValueError, TypeError) as error:
        raise _unpassable(error) from error


def read_parcel(reference: Mapping[str, str], header: Mapping[str, Any]) -> NDArray:
    """Return a copy of a parcel's array."""
    shape, dtype = tuple(header["shape"]), np.dtype(header["dtype"])
    order: Literal["C", "F"] = "F" if header["order"] == "F" else "C"
    try:
        if "file" in reference:
            return np.fromfile(reference["file"], dtype).reshape(shape, order=order)
        with _attached(reference["memory"]) as memory:
            return np.ndarray(shape, dtype, memory.buf, order=order).copy(order)
    except (OSError, ValueError, TypeError) as error:
        raise _unpassable(error) from error


def remove_parcels(token: str, count: int) -> None:
    """Take away the shared memory that a client left behind.

    Args:
        token: start of its names.
        count: how many it has made, as far as is known; on Linux all are found anyway.
    """
    names = {f"{token}-{number}" for number in range(count + _NOT_ANNOUNCED)}
    if _SHARED_MEMORY.is_dir():
        names = {path.name for path in _SHARED_MEMORY.glob(f"{token}-*")}
    for name in names:
        with contextlib.suppress(OSError, ValueError), _untracked() as options:
            memory = SharedMemory(name, **options)
            memory.close()
            memory.unlink()


def _create(name: str, size: int) -> SharedMemory | None:
    """Return new shared memory whose pages exist; None where there is no room: touching it would end the process."""
    memory = None
    try:
        with _untracked() as options:
            memory = SharedMemory(name, create=True, size=max(size, 1), **options)
        place = _SHARED_MEMORY / memory.name
        if place.exists() and sys.platform != "win32":
            descriptor = os.open(place, os.O_RDWR)
            try:
                os.posix_fallocate(descriptor, 0, max(size, 1))
            finally:
                os.close(descriptor)
    except (OSError, ValueError):
        if memory is not None:
            memory.close()
            with _untracked(), contextlib.suppress(OSError):
                memory.unlink()
        return None
    return memory


@contextlib.contextmanager
def _attached(name: str) -> Iterator[SharedMemory]:
    with _untracked() as options:
        memory = SharedMemory(name, **options)
    try:
        yield memory
    finally:
        memory.close()


@contextlib.contextmanager
def _untracked() -> Iterator[dict[str, Any]]:
    """Keep shared memory out of the resource tracker's books; yields the option that Python 3.13 has for that."""
    if sys.version_info >= (3, 13):
        yield {"track": False}
        return
    register, unregister = resource_tracker.register, resource_tracker.unregister

    def but_memory(original: Any) -> Any:
        """Return the tracker's function, deaf to shared memory only."""
        return lambda name, kind: None if kind == "shared_memory" else original(name, kind)

    resource_tracker.register, resource_tracker.unregister = but_memory(register), but_memory(unregister)
    try:
        yield {}
    finally:
        resource_tracker.register, resource_tracker.unregister = register, unregister


def _unpassable(error: Exception) -> ResourceError:
    return ResourceError(
        "MX-WRK-004",
        f"voxels could not be passed between the processes ({error})",
        expected="shared memory or disk space of the volume's size",
        where="worker",
        fix="free memory or disk space, or run without the worker",
    )
