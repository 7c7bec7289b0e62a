"""Putting the stand-in where `import slicer`, `import qt` find it, and taking it away again."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# views without a display: Mesa in memory; read when VTK makes its first window
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkOSOpenGLRenderWindow")

MISSING = object()


class Patches:
    """Attributes and modules set for one test, with what was there before."""

    def __init__(self) -> None:
        self._attributes: list[tuple[Any, str, Any]] = []
        self._modules = dict(sys.modules)

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute; it is put back by `undo`."""
        self._attributes.append((owner, name, vars(owner).get(name, MISSING)))
        setattr(owner, name, value)

    def hide(self, owner: Any, name: str) -> None:
        """Take an attribute away; it is put back by `undo`."""
        self._attributes.append((owner, name, vars(owner)[name]))
        delattr(owner, name)

    def module(self, name: str, module: ModuleType) -> None:
        """Make a module importable, as an attribute of its package too."""
        sys.modules[name] = module
        package, _, last = name.rpartition(".")
        if package:
            self.set(sys.modules[package], last, module)

    def undo(self, ours: tuple[str, ...]) -> None:
        """Put back attributes, and modules where they are the stand-in's or were imported on top of it."""
        for owner, name, value in reversed(self._attributes):
            if value is not MISSING:
                setattr(owner, name, value)
            elif name in vars(owner):
                delattr(owner, name)
        for name in list(sys.modules):
            if name.split(".")[0] in ours or name in ours:
                if name in self._modules:
                    sys.modules[name] = self._modules[name]
                else:
                    del sys.modules[name]


@contextlib.contextmanager
def installed_scene(folder: Path) -> Iterator[Any]:
    """Give `slicer` a fresh scene, `slicer.app` and the built-in modules' logics, without Qt; yield the scene."""
    import slicer
    import slicer.util

    from .application import App, Modules
    from .scene import Scene

    scene = Scene()
    patches = Patches()
    patches.set(slicer, "mrmlScene", scene.scene)
    patches.set(slicer, "app", App(scene, folder))
    patches.set(slicer, "modules", Modules(scene))
    try:
        yield scene
    finally:
        scene.close()
        patches.undo(())
