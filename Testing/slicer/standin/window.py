"""The stand-in application of one test: what a test does with it, and how it is put in place."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import slicer
import slicer.util
from PySide6 import QtCore, QtWidgets

from . import extras, objects, scripted, utilities
from .application import ModuleHandle, qSlicerScriptedLoadableModule
from .ctkwidgets import define_widgets
from .dialogs import Dialogs
from .install import Patches, installed_scene
from .qmrml import define_nodes, stop_observing
from .qtmodules import CtkModule, QtModule
from .scene import Scene
from .segments import define_segments
from .settings import QSettings

OURS = ("qt", "ctk", "SampleData", "slicer.i18n", "slicer.testing", "slicer.packaging")
OURS += ("slicer.ScriptedLoadableModule", "slicer.parameterNodeWrapper")


class qSlicerAppMainWindow(QtWidgets.QMainWindow):
    """The application's window."""


class Representation:
    """`slicer.modules.<name>.widgetRepresentation()` of a scripted module: its frame, with `self()` for the panel."""

    def __init__(self, panel: Any) -> None:
        self._panel = panel

    def self(self) -> Any:
        """Return the panel's Python object."""
        return self._panel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._panel._frame, name)


class StandIn:
    """What a test holds: the scene, the application, dialogs, packages, errors in slots; and what it can do."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.scene, self.app, self.folder = scene.scene, slicer.app, folder
        self.dialogs, self.packages = Dialogs(), extras.Packages()
        self.sample_data: list[dict[str, Any]] = []
        self.slot_errors: list[BaseException] = []
        self.loaded: list[ModuleHandle] = []
        self.panels: list[Any] = []
        self.window = objects.wrapper_of(qSlicerAppMainWindow())
        self.window.objectName = "qSlicerMainWindow"

    def load_module(self, path: Path | str) -> ModuleHandle:
        """Load a scripted module's file as the application does at its start; return slicer.modules.<name>."""
        path = Path(path)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        handle = qSlicerScriptedLoadableModule(path.stem, str(path))
        handle.python_module = module
        handle._widget = lambda: Representation(self.panel(handle))
        setattr(slicer.modules, path.stem.lower(), handle)
        parent = SimpleNamespace(name=path.stem, path=str(path), icon=None)
        handle.instance = getattr(module, path.stem)(parent)
        handle.title = parent.title
        self.loaded.append(handle)
        self.app._signals.emit("startupCompleted()")
        return handle

    def panel(self, handle: ModuleHandle) -> Any:
        """Return the module's widget object, made and set up at the first call, as when its panel is opened first."""
        if not hasattr(handle, "panel"):
            import qt

            frame = slicer.qMRMLWidget()
            frame.setLayout(qt.QVBoxLayout())
            frame.setMRMLScene(slicer.mrmlScene)
            handle.panel = getattr(handle.python_module, f"{handle.name}Widget")(frame)
            handle.panel._frame = frame
            setattr(slicer.modules, f"{handle.name}Widget", handle.panel)
            self.panels.append(handle.panel)
            handle.panel.setup()
            self.process_events()
        return handle.panel

    def enter(self, handle: ModuleHandle) -> Any:
        """Open the module's panel: set up where it was not, then shown, then `enter`; return the widget object."""
        panel = self.panel(handle)
        panel._frame.show()
        if hasattr(panel, "enter"):
            panel.enter()
        self.process_events()
        return panel

    def leave(self, panel: Any) -> None:
        """Go to another module."""
        if hasattr(panel, "exit"):
            panel.exit()
        panel._frame.hide()

    def process_events(self) -> None:
        """Let Qt work off its events."""
        slicer.app.processEvents()

    def wait_until(self, condition: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Process events until the condition holds; return its value, or fail after that many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.process_events()
            found = condition()
            if found:
                return found
            time.sleep(0.002)
        raise TimeoutError(f"still not so after {seconds:g} s: {condition}")

    def close_scene(self) -> None:
        """Close the scene, as File > Close Scene does."""
        self.scene.Clear(False)
        self.process_events()

    def screenshot(self, widget: Any, path: Path | str, width: int | None = None, height: int | None = None) -> Path:
        """Save a picture of a widget as PNG."""
        native = widget._q
        native.resize(width or max(native.sizeHint().width(), 400), height or max(native.sizeHint().height(), 100))
        native.show()
        self.process_events()
        if not native.grab().save(str(path)):
            raise OSError(f"the picture {path} could not be written")
        return Path(path)

    def close(self) -> None:
        """Take the panels down, as the application does when it ends."""
        for panel in self.panels:
            panel.cleanup()
        stop_observing()
        for widget in QtWidgets.QApplication.topLevelWidgets():
            if widget.parent() is None:
                widget.close()
                widget.deleteLater()
        self.process_events()

    def collect(self, kind: type, error: BaseException, trace: Any) -> None:
        """Keep an error that was raised in a slot, where nobody could catch it."""
        traceback.print_exception(kind, error, trace)
        self.slot_errors.append(error)


def _define_all() -> None:
    if "ctkCollapsibleButton" not in objects.CUSTOM:
        define_widgets()
        define_nodes()
        define_segments()
        objects.CUSTOM["qSlicerAppMainWindow"] = qSlicerAppMainWindow


def _install(patches: Patches, standin: StandIn) -> None:
    """Put modules, classes and functions where `import` and `slicer.` find them."""
    from .parameters import module as parameter_module

    qt, ctk = QtModule("qt"), CtkModule("ctk")
    qt.QSettings = lambda *ignored: QSettings(standin.app._store)
    for name, module in {
        "qt": qt,
        "ctk": ctk,
        "SampleData": extras.sample_data(standin.sample_data),
        "slicer.i18n": extras.i18n(),
        "slicer.testing": extras.testing(),
        "slicer.packaging": standin.packages.module(),
        "slicer.parameterNodeWrapper": parameter_module(),
        "slicer.ScriptedLoadableModule": scripted_module(),
    }.items():
        patches.module(name, module)
    for name in objects.CUSTOM:
        if not name.startswith("ctk"):
            patches.set(slicer, name, objects.qt_class(name))
    patches.set(slicer, "selfTests", {})
    patches.set(slicer, "moduleNames", SimpleNamespace())
    for name, function in utilities.replaced(standin.dialogs, standin.packages, standin.window).items():
        patches.set(slicer.util, name, function)
    # slicer-core copies slicer.util into slicer; the application does not
    for name, value in list(vars(slicer).items()):
        if not name.startswith("_") and name in vars(slicer.util) and getattr(value, "__module__", "") == "slicer.util":
            patches.hide(slicer, name)
    patches.set(objects, "ASK", standin.dialogs)
    patches.set(sys, "excepthook", standin.collect)


def scripted_module() -> ModuleType:
    """Return slicer.ScriptedLoadableModule; `from ... import *` gives what the real one gives."""
    module = ModuleType("slicer.ScriptedLoadableModule")
    for name in ("", "Widget", "Logic", "Test"):
        setattr(module, f"ScriptedLoadableModule{name}", getattr(scripted, f"ScriptedLoadableModule{name}"))
    return module


@contextlib.contextmanager
def installed_application(folder: Path) -> Iterator[StandIn]:
    """Put the whole stand-in in place, yield it, and take it away again; errors raised in slots come out at the end."""
    if QtWidgets.QApplication.instance() is None:
        QtCore.QCoreApplication.setAttribute(QtCore.Qt.ApplicationAttribute.AA_ShareOpenGLContexts)
        QtWidgets.QApplication(["Slicer"]).setStyle("Fusion")
    _define_all()
    with installed_scene(folder) as scene:
        patches = Patches()
        standin = StandIn(scene, folder)
        try:
            _install(patches, standin)
            yield standin
        finally:
            try:
                standin.close()
            finally:
                patches.undo((*OURS, *(handle.name for handle in standin.loaded)))
        if standin.slot_errors:
            raise standin.slot_errors[0]
