"""Functions of slicer.util that slicer-core has in an older form, or that need a window: by their names there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import slicer
import slicer.util

from .dialogs import Dialogs
from .extras import Packages
from .uiloader import load_ui


def findChild(widget: Any, name: str, properties: dict[str, Any] | None = None) -> Any:
    """Return the first child of that name; RuntimeError where there is none."""
    for child in slicer.util.findChildren(widget, name=name):
        if all(getattr(child, key, None) == value for key, value in (properties or {}).items()):
            return child
    raise RuntimeError(f"Widget named {name} does not exist.")


def launchConsoleProcess(
    args: list[str],
    useStartupEnvironment: bool = True,
    updateEnvironment: dict[str, str] | None = None,
    cwd: str | None = None,
    blocking: bool = True,
    logCallback: Callable[[str], None] | None = None,
    completedCallback: Callable[[int], None] | None = None,
) -> subprocess.Popen:
    """Start a process; its output goes to logProcessOutput, or is polled by a timer."""
    environment = {**slicer.app.startupEnvironment(), **(updateEnvironment or {})}
    process = subprocess.Popen(
        args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=cwd, encoding="utf-8"
    )
    if not blocking:
        _poll(process, logCallback, completedCallback)
    return process


def _poll(process: subprocess.Popen, log: Callable | None, done: Callable | None) -> None:
    import qt

    timer = qt.QTimer()
    timer.setInterval(100)

    def look() -> None:
        if process.poll() is None:
            return
        timer.stop()
        for line in process.stdout:
            if log:
                log(line.rstrip())
        if done:
            done(process.returncode)

    timer.connect("timeout()", look)
    timer.start()


def logProcessOutput(proc: subprocess.Popen, logCallback: Callable[[str], None] | None = None) -> None:
    """Wait for a process; a failure raises CalledProcessError with its output."""
    output, _ = proc.communicate()
    for line in output.splitlines():
        (logCallback or print)(line)
    if proc.returncode:
        raise subprocess.CalledProcessError(proc.returncode, proc.args, output=output)


def executePythonModule(
    module: str,
    args: list[str],
    blocking: bool = True,
    logCallback: Callable[[str], None] | None = None,
    completedCallback: Callable[[int], None] | None = None,
) -> None:
    """Run a Python module in a process of its own."""
    command = [sys.executable, "-m", module, *args]
    process = launchConsoleProcess(
        command,
        useStartupEnvironment=False,
        blocking=blocking,
        logCallback=logCallback,
        completedCallback=completedCallback,
    )
    if blocking:
        logProcessOutput(process, logCallback)


def replaced(dialogs: Dialogs, packages: Packages, main_window: Any) -> dict[str, Any]:
    """Return the functions to put into slicer.util, by name."""

    def lookupTopLevelWidget(objectName: str) -> Any:
        if main_window.objectName == objectName:
            return main_window
        raise RuntimeError(f"Failed to obtain reference to '{objectName}'")

    def pip_install(requirements: Any, **kwargs: Any) -> Any:
        return packages.request("pip_install", requirements, **kwargs)

    def pip_uninstall(requirements: Any, **kwargs: Any) -> Any:
        return packages.request("pip_uninstall", requirements, **kwargs)

    selected: list[str] = []

    def getModule(moduleName: str) -> Any:
        if not hasattr(slicer.modules, moduleName.lower()):
            raise RuntimeError(f"Could not find module with name '{moduleName}'")
        return getattr(slicer.modules, moduleName.lower())

    def selectModule(module: Any) -> None:
        selected.append(getModule(module if isinstance(module, str) else module.name).name)

    def getModuleWidget(module: Any) -> Any:
        return (getModule(module) if isinstance(module, str) else module).widgetRepresentation().self()

    def getModuleLogic(module: Any) -> Any:
        found = getModule(module) if isinstance(module, str) else module
        return found.logic() if found.logic() is not None else getModuleWidget(found).logic

    return {
        "getModule": getModule,
        "selectModule": selectModule,
        "selectedModule": lambda: selected[-1] if selected else "",
        "getModuleWidget": getModuleWidget,
        "getModuleLogic": getModuleLogic,
        "loadUI": load_ui,
        "findChild": findChild,
        "messageBox": dialogs.message_box,
        "delayDisplay": dialogs.delay_display,
        "lookupTopLevelWidget": lookupTopLevelWidget,
        "launchConsoleProcess": launchConsoleProcess,
        "logProcessOutput": logProcessOutput,
        "executePythonModule": executePythonModule,
        "pip_install": pip_install,
        "pip_uninstall": pip_uninstall,
    }
