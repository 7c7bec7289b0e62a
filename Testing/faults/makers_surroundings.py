"""Makers of faults around the images: outputs, disks, model packages, devices, tables of cases, checkpoints."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import pickle
import shutil
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from makers import load, save
from scene import Scene, maker
from test_hostile_packages import HOSTILE, Package

# --- inputs that are no plain files --------------------------------------------------------------------------------


@maker
def missing(scene: Scene, file: str) -> None:
    """Take the file away."""
    scene.files[file].unlink()


@maker
def folder_instead(scene: Scene, file: str) -> None:
    """Have a folder of this name."""
    scene.files[file].unlink()
    scene.files[file].mkdir()


@maker
def pipe_instead(scene: Scene, file: str) -> None:
    """Have a pipe of this name, on which reading would wait for ever."""
    scene.files[file].unlink()
    os.mkfifo(scene.files[file])


@maker
def linked(scene: Scene, file: str, broken: bool = False, circle: bool = False) -> None:
    """Give the file through a symbolic link."""
    path = scene.files[file]
    link = path.with_name(f"link-{path.name}")
    link.symlink_to(link.name if circle else "nowhere.nii.gz" if broken else path.name)
    scene.files[file] = link


@maker
def unreadable(scene: Scene, file: str) -> None:
    """Take away the permission to read."""
    scene.files[file].chmod(0)


@maker
def input_name(scene: Scene, file: str, name: str) -> None:
    """Say a name on the command line that no file has."""
    scene.files[file] = Path(name)


# --- outputs and disks ---------------------------------------------------------------------------------------------


@maker
def output(scene: Scene, name: str, relative: bool = False, long: int = 0) -> None:
    """Give the output a name, in a folder that need not exist; ``long`` fills the name up to so many bytes."""
    name = "x" * (long - len(name)) + name if long else name
    scene.output = Path(name) if relative else scene.folder / name
    if relative:
        scene.patch.chdir(scene.folder)


@maker
def output_is(scene: Scene, file: str, by: str = "name") -> None:
    """Write onto an input: by its name, a roundabout path, a symbolic or a hard link."""
    path = scene.files[file]
    link = path.with_name(f"link-{path.name}")
    if by == "symbolic link":
        link.symlink_to(path)
    elif by == "hard link":
        os.link(path, link)
    elif by == "dots":
        link = path.parent / ".." / path.parent.name / path.name
    scene.output = path if by == "name" else link


@maker
def in_the_way(scene: Scene, kind: str, name: str, text: str = "x") -> None:
    """Have something where the output, its folder or its record should be."""
    path = scene.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(text)
    else:
        path.write_text(text)
        path.chmod(0o444 if kind == "read-only file" else 0o644)


@maker
def read_only_folder(scene: Scene, name: str) -> None:
    """Have an output folder without permission to write."""
    (scene.folder / name).mkdir(mode=0o500)


@maker
def read_only_disk(scene: Scene) -> None:
    """Have a file system on which nothing can be made."""

    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    scene.patch.setattr(Path, "touch", refuse)


@maker
def free_space(scene: Scene, bytes_free: int) -> None:
    """Have so little room on the disk."""
    room = types.SimpleNamespace(free=bytes_free)
    scene.patch.setattr("MedXlateCore.files.shutil.disk_usage", lambda path: room)


@maker
def file_size_limit(scene: Scene, limit: int) -> None:
    """Let no file grow beyond this size while the command runs: what a full disk or a quota does on the way."""
    import resource

    @contextlib.contextmanager
    def limited() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    scene.around.enter_context(limited())


@maker
def failing_flush(scene: Scene, number: int) -> None:
    """Have the disk report an error when the written bytes are flushed to it."""

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    scene.patch.setattr("MedXlateCore.files.os.fsync", fail)


@maker
def locked_output(scene: Scene) -> None:
    """Have another run hold the output's lock."""
    from MedXlateCore.files import folder_lock, path_lock

    scene.patch.setattr("MedXlateCore.io._LOCK_TIMEOUT_S", 0.1)
    is_folder = scene.command in {"train", "phantom"}
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with folder_lock(scene.output) if is_folder else path_lock(scene.output):
            held.set()
            done.wait(60)

    rival = threading.Thread(target=hold)
    rival.start()
    held.wait(10)
    scene.around.callback(rival.join)
    scene.around.callback(done.set)


# --- model packages ------------------------------------------------------------------------------------------------


def _own_package(scene: Scene) -> Package:
    package = Package(scene.folder)
    if not package.folder.exists():
        shutil.copytree(scene.model, package.folder)
        scene.model = str(package.folder)
    return package


@maker
def model(scene: Scene, name: str) -> None:
    """Ask for this model; ``{folder}`` stands for the row's folder."""
    scene.model = name.replace("{folder}", str(scene.folder))


@maker
def hostile(scene: Scene, what: str) -> None:
    """Spoil the package as ``test_hostile_packages.py`` does."""
    HOSTILE[what][0](_own_package(scene))


@maker
def card(scene: Scene, **changes: Any) -> None:
    """Change entries of the model card."""
    _own_package(scene).edit(**changes)


@maker
def promptless(scene: Scene) -> None:
    """Have a sound model that takes no region."""
    scene.patch.setattr("MedXlateCore.models.package.load_package", _without_prompt(scene))


def _without_prompt(scene: Scene) -> Any:
    import dataclasses

    from MedXlateCore.models.package import load_package

    def load_without(package: Any, *more: Any, **options: Any) -> Any:
        loaded = load_package(package, *more, **options)
        return dataclasses.replace(loaded, card=dataclasses.replace(loaded.card, prompts="none"))

    return load_without


@maker
def network_gives(scene: Scene, value: float) -> None:
    """Have the network answer with one value everywhere."""
    from MedXlateCore.models.tlp import TlpNetwork

    original = TlpNetwork.forward
    scene.patch.setattr(TlpNetwork, "forward", lambda self, *a, **k: _constant(original(self, *a, **k), value))


def _constant(answer: Any, value: float) -> Any:
    if isinstance(answer, torch.Tensor):
        return torch.full_like(answer, value)
    return type(answer)(_constant(item, value) for item in answer)


@maker
def checkpoint(scene: Scene, kind: str) -> None:
    """Give a file to import that is no checkpoint of the authors."""
    path = scene.folder / "weights.pth"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Path("x")}))
    elif kind == "text":
        path.write_text("no checkpoint")
    elif kind == "other network":
        torch.save({"conv.weight": torch.zeros(1, 1, 3, 3)}, path)
    elif kind == "no tensors":
        torch.save({"epoch": 3}, path)
    scene.options += [str(path)]


# --- devices -------------------------------------------------------------------------------------------------------


@maker
def no_gpu(scene: Scene) -> None:
    """Have a computer without any GPU."""
    scene.patch.setattr(torch.cuda, "is_available", lambda: False)
    scene.patch.setattr(torch.backends.mps, "is_available", lambda: False)


@maker
def broken_gpu(scene: Scene, reason: str, cpu_too: bool = False) -> None:
    """Have a GPU that the driver shows and that fails at the first kernel."""
    from MedXlateCore import devices

    true_probe = devices._probe

    def probe(device: torch.device) -> str:
        return reason if device.type == "cuda" or cpu_too else true_probe(device)

    scene.patch.setattr(torch.cuda, "is_available", lambda: True)
    scene.patch.setattr(torch.backends.mps, "is_available", lambda: False)
    scene.patch.setattr(devices, "_probe", probe)


@maker
def failing_network(scene: Scene, message: str, after: int = 2, kind: str = "RuntimeError", times: int = 1000) -> None:
    """Have the computation break off after some passes, so many times."""
    from MedXlateCore.models.tlp import TlpNetwork

    classes = {c.__name__: c for c in (RuntimeError, MemoryError, KeyboardInterrupt, ZeroDivisionError)}
    classes["OutOfMemoryError"] = torch.cuda.OutOfMemoryError
    original, left, failures = TlpNetwork.forward, iter(range(after)), iter(range(times))

    def forward(self: TlpNetwork, *arguments: Any, **options: Any) -> Any:
        if next(left, None) is None and next(failures, None) is not None:
            raise classes[kind](message)
        return original(self, *arguments, **options)

    scene.patch.setattr(TlpNetwork, "forward", forward)


@maker
def little_memory(scene: Scene, bytes_free: int) -> None:
    """Have so little memory on every device."""
    scene.patch.setattr("MedXlateCore.inference.ladder.available_memory", lambda *_: bytes_free)


@maker
def no_module(scene: Scene, name: str) -> None:
    """Have an installation without this Python module."""
    import sys

    scene.patch.setitem(sys.modules, name, None)


# --- tables of cases and configurations ----------------------------------------------------------------------------


def _read_table(scene: Scene) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(scene.files["table"].read_text())))


def _write_table(scene: Scene, rows: list[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["case"])
    writer.writeheader()
    writer.writerows(rows)
    scene.files["table"].write_text(text.getvalue())


@maker
def cell(scene: Scene, case: str, column: str, value: str) -> None:
    """Change one cell of the table of cases; case ``*`` means all."""
    rows = _read_table(scene)
    for row in rows:
        if case in ("*", row["case"]):
            row[column] = value
    _write_table(scene, rows)


@maker
def column(scene: Scene, name: str, to: str = "") -> None:
    """Rename a column of the table of cases, or leave it out."""
    rows = [{to if key == name else key: value for key, value in row.items()} for row in _read_table(scene)]
    _write_table(scene, [{key: value for key, value in row.items() if key} for row in rows])


@maker
def leave_out(scene: Scene, split: str) -> None:
    """Leave the cases of one split out of the table."""
    _write_table(scene, [row for row in _read_table(scene) if row["split"] != split])


@maker
def replaced(scene: Scene, file: str, old: str, new: str, count: int = -1, encoding: str = "utf-8") -> None:
    """Replace text in a text file."""
    text = scene.files[file].read_text()
    if old not in text:
        raise ValueError(f"'{old}' is not in {file}")
    scene.files[file].write_bytes(text.replace(old, new, count).encode(encoding))


@maker
def same_file(scene: Scene, source: str, to: str) -> None:
    """Have one file's bytes in another's place."""
    shutil.copyfile(scene.files[source], scene.files[to])


@maker
def existing_run(scene: Scene, text: str = "") -> None:
    """Have a run in the output's folder already."""
    scene.output.mkdir()
    (scene.output / "config.toml").write_text(text)


# --- evaluation ----------------------------------------------------------------------------------------------------


@maker
def give(scene: Scene, **options: str) -> None:
    """Give further inputs by option."""
    scene.given |= options


@maker
def moved(scene: Scene, file: str, shift: tuple[float, ...]) -> None:
    """Have the image at another place in space (mm)."""
    array, matrix = load(scene.files[file])
    matrix = matrix.copy()
    matrix[:3, 3] += np.array(shift)
    save(scene.files[file], array, matrix)
