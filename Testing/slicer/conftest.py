"""Fixtures for tests of the Slicer part: a real MRML scene, and a stand-in for the application around it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "MedXlateSlicer") not in sys.path:
    sys.path.insert(0, str(ROOT / "MedXlateSlicer"))


def _require(*names: str) -> None:
    """Skip the test, saying why, where Slicer's own libraries or Qt cannot be loaded on this machine."""
    for name in names:
        reason = f"{name} cannot be loaded; `make setup` and `make system-packages` install what it needs"
        pytest.importorskip(name, reason=reason, exc_type=ImportError)


@pytest.fixture
def slicer_scene(tmp_path: Path) -> Iterator[Any]:
    """Return a fresh scene: `slicer.mrmlScene`, with `slicer.app` and `slicer.modules.<name>.logic()`, without Qt."""
    _require("vtk", "slicer")
    from standin.install import installed_scene

    with installed_scene(tmp_path / "slicer") as scene:
        yield scene.scene


@pytest.fixture(scope="session")
def qt_is_there() -> None:
    """Skip the test where Slicer's libraries or Qt's widgets cannot be loaded."""
    _require("vtk", "slicer", "PySide6.QtWidgets", "PySide6.QtUiTools")


@pytest.fixture
def slicer_app(qt_is_there: None, tmp_path: Path) -> Iterator[Any]:
    """Return the stand-in application: `qt`, `ctk`, all of `slicer`, real .ui files; see standin.window.StandIn."""
    from standin.window import installed_application

    with installed_application(tmp_path / "slicer") as application:
        yield application
