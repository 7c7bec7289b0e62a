"""`slicer.app` and `slicer.modules`. Nothing here needs Qt; where Qt runs, events are processed."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from .iomanager import IoManager
from .layout import qSlicerLayoutManager
from .scene import LOGICS, Scene
from .settings import ctkSettings
from .strict import Strict


class CommandOptions:
    """What the command line said: nothing."""

    testingEnabled = False
    noMainWindow = False
    isTestingEnabled = False


class App(Strict):
    """The application object of one test."""

    _API = "qSlicerApplication"

    def __init__(self, scene: Scene, folder: Path | None = None) -> None:
        super().__init__()
        self._scene = scene
        self._folder = folder or Path(tempfile.gettempdir())
        self._layout_manager = qSlicerLayoutManager(scene)
        self._store: dict[str, Any] = {}
        self._testing = False
        self._exit_code: int | None = None
        self._restarts = 0

    applicationName = property(lambda self: "Slicer")
    applicationVersion = property(lambda self: "5.13.0-2026-11-20")
    mainApplicationName = property(lambda self: "Slicer")
    mainApplicationDisplayName = property(lambda self: "3D Slicer")
    majorVersion = property(lambda self: 5)
    minorVersion = property(lambda self: 13)
    revision = property(lambda self: "34500")
    os = property(lambda self: {"linux": "linux", "darwin": "macosx"}.get(sys.platform, "win"))
    arch = property(lambda self: "amd64")
    isInstalled = property(lambda self: True)
    slicerHome = property(lambda self: self._place("home"))
    slicerSharePath = property(lambda self: "share/Slicer-5.13")
    temporaryPath = property(lambda self: self._place("temporary"))
    cachePath = property(lambda self: self._place("cache"))
    startupWorkingPath = property(lambda self: str(Path.cwd()))
    extensionsInstallPath = property(lambda self: self._place("extensions"))
    slicerUserSettingsFilePath = property(lambda self: str(self._folder / "Slicer.ini"))

    def _place(self, name: str) -> str:
        path = self._folder / name
        path.mkdir(parents=True, exist_ok=True)
        return str(path)

    def applicationLogic(self) -> Any:
        """Return the scene's vtkSlicerApplicationLogic."""
        return self._scene.application_logic

    def mrmlScene(self) -> Any:
        """Return the scene."""
        return self._scene.scene

    def layoutManager(self) -> qSlicerLayoutManager:
        """Return the layout manager."""
        return self._layout_manager

    def moduleLogic(self, name: str) -> Any:
        """Return the logic of a built-in module."""
        return self._scene.module_logics[name]

    def settings(self) -> ctkSettings:
        """Return the settings of this revision and user, one store in memory."""
        return ctkSettings(self._store)

    userSettings = revisionUserSettings = settings

    def commandOptions(self) -> CommandOptions:
        """Return what the command line said."""
        return CommandOptions()

    def testingEnabled(self) -> bool:
        """Say whether the application runs its self tests; dialogs then answer themselves."""
        return self._testing

    def startupEnvironment(self) -> dict[str, str]:
        """Return the environment without Slicer's own entries."""
        return dict(os.environ)

    def clipboard(self) -> Any:
        """Return the clipboard of Qt's application."""
        from PySide6.QtGui import QGuiApplication

        return QGuiApplication.clipboard()

    def processEvents(self, *ignored: Any) -> None:
        """Let Qt work off its events, where Qt runs."""
        widgets = sys.modules.get("PySide6.QtWidgets")
        application = widgets.QApplication.instance() if widgets else None
        if application is not None:
            application.processEvents()
            application.sendPostedEvents(None, 52)  # deferred deletions, as the event loop does them

    def setOverrideCursor(self, *ignored: Any) -> None:
        """Do nothing: there is no cursor."""

    def restoreOverrideCursor(self) -> None:
        """Do nothing: there is no cursor."""

    def pauseRender(self) -> None:
        """Do nothing: nothing renders."""

    def resumeRender(self) -> None:
        """Do nothing: nothing renders."""

    def setRenderPaused(self, pause: bool) -> None:
        """Do nothing: nothing renders."""

    def exit(self, code: int = 0) -> None:
        """Remember the exit code: the tests go on."""
        object.__setattr__(self, "_exit_code", code)

    def quit(self) -> None:
        """Remember that the application was to end."""
        self.exit(0)

    def restart(self) -> None:
        """Remember that the application was to start again."""
        object.__setattr__(self, "_restarts", self._restarts + 1)

    def toSlicerHomeRelativePath(self, path: str) -> str:
        """Return the path as it is."""
        return path

    toSlicerHomeAbsolutePath = toSlicerHomeRelativePath

    def coreIOManager(self) -> IoManager:
        """Return what reads and writes files."""
        return IoManager(self._scene)

    ioManager = coreIOManager

    def dicomDatabase(self) -> None:
        """Return None: no database is open."""


class ModuleHandle:
    """`slicer.modules.<name>`: a built-in module, or a scripted one that a test loaded."""

    def __init__(self, name: str, path: str = "", logic: Any = None, widget: Any = None) -> None:
        self.name, self.path, self.title = name, path, name
        self._logic, self._widget = logic, widget

    def __repr__(self) -> str:
        shown = type(self).__name__
        return f"{shown} ({shown} at: {id(self):#x})"

    def logic(self) -> Any:
        """Return the module's logic."""
        return self._logic

    def widgetRepresentation(self) -> Any:
        """Return the module's panel, made at the first call."""
        if self._widget is None:
            raise NotImplementedError(f"the stand-in for Slicer has no panel of the module {self.name}")
        return self._widget()

    createNewWidgetRepresentation = widgetRepresentation


class qSlicerScriptedLoadableModule(ModuleHandle):
    """A module in Python."""


class Modules:
    """`slicer.modules`: the built-in modules whose logic slicer-core holds."""

    def __init__(self, scene: Scene) -> None:
        for name in LOGICS:
            setattr(self, name.lower(), ModuleHandle(name, logic=scene.module_logics[name]))
        for name in ("SampleData", "SegmentEditor"):
            setattr(self, name.lower(), qSlicerScriptedLoadableModule(name))
