"""Pictures of the panels in every state, for Resources/Screenshots and the tutorial.

    QT_QPA_PLATFORM=offscreen .venv/bin/python Testing/slicer/screenshots.py [FOLDER]

They show the real .ui files and logic on the stand-in for the application that the tests use: frames and buttons look
a little different in 3D Slicer itself.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
for _folder in (HERE, ROOT / "MedXlateSlicer", ROOT):
    sys.path.insert(0, str(_folder))

WIDTH = 440


def main(folder: Path) -> None:
    """Take all pictures."""
    from standin.window import installed_application

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work, installed_application(Path(work) / "slicer") as app:
        take(app, folder, Path(work))


def take(app: Any, folder: Path, work: Path) -> None:
    """Go through the states of both panels."""
    import numpy as np
    from MedXlateSlicerLib.sample_data import PHANTOM_SEEDS, load_phantom_case
    from mrml import add_linear
    from patients import MODULES, apply_and_wait, open_panel

    def shot(panel: Any, name: str) -> None:
        app.process_events()
        app.screenshot(panel._frame, folder / f"{name}.png", WIDTH)

    panel = open_panel(app)
    shot(panel, "empty")
    nodes = load_phantom_case(app.scene, work / "cache", PHANTOM_SEEDS[0])
    panel.ui.detectButton.click()
    panel.ui.segmentation.setCurrentNode(nodes["region"])
    panel.ui.deviceCombo.setCurrentIndex(1)
    shot(panel, "ready")
    parts = [getattr(panel.ui, f"{name}Section") for name in ("sources", "region", "translation", "display")]
    for part in parts:
        part.collapsed = True
    panel.ui.modelsSection.collapsed = False
    shot(panel, "models")
    for part in parts:
        part.collapsed = False
    panel.ui.modelsSection.collapsed = True
    panel.ui.applyButton.click()
    status = panel.panel.translator.status
    app.wait_until(lambda: status.total and status.done > status.total * 0.4, 120)
    shot(panel, "running")
    app.wait_until(lambda: panel.panel.translator.status.phase != "running", 300)
    panel.ui.recordSection.collapsed = False
    shot(panel, "done")
    panel.ui.recordSection.collapsed = True

    elsewhere = np.eye(4)
    elsewhere[:3, 3] = 900
    add_linear(app.scene, elsewhere, nodes["T2"])
    apply_and_wait(app, panel)
    shot(panel, "error")
    app.leave(panel)

    evaluate = app.enter(app.load_module(MODULES / "MedXlateEvaluate" / "MedXlateEvaluate.py"))
    evaluate.ui.reference.setCurrentNode(nodes["T1ce"])
    evaluate.ui.segmentation.setCurrentNode(nodes["region"])
    evaluate.ui.applyButton.click()
    shot(evaluate, "evaluate")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "Resources" / "Screenshots")
