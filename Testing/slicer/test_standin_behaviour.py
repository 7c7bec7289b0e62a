"""The stand-in answers as the application did: every probe of the golden record is asked again."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from standin.api import record

OBSERVATIONS = record("slicer_behaviour.json")["observations"]
# what a test inside one process, without the application's own event loop and command line, cannot ask
LEFT_OUT = {
    "threads": "how the application's event loop holds Python's lock; the stand-in's loop is pytest's",
    "command line": "how the application's process ends; no process is started",
}
LEFT_OUT_CODE = {'__import__("sys").argv': "what the application's own command line was"}
# one application each: the topics of a group share their objects
GROUPS = [
    (
        "property",
        "combo",
        "signal",
        "enum",
        "object",
        "table",
        "size",
        "timer",
        "settings",
        "app",
        "segeditor",
        "volumes",
    ),
    ("array",),
    ("mrml",),
    ("parameterNodeWrapper", "connectGui"),
]


class Quality(enum.Enum):
    """The enum of the probes."""

    FAST = 1
    BEST = 2


def objects(group: tuple[str, ...]) -> dict[str, Any]:
    """Return the objects that the probes of a group name."""
    import ctk
    import qt
    import slicer
    import vtk

    found: dict[str, Any] = {"slicer": slicer, "qt": qt, "ctk": ctk, "np": np, "hits": [], "Quality": Quality}
    if "property" in group:
        widgets = {
            "b": qt.QPushButton("Go"),
            "w": qt.QWidget(),
            "sp": qt.QSpinBox(),
            "ck": qt.QCheckBox(),
            "le": qt.QLineEdit(),
        }
        widgets |= {"pb": qt.QProgressBar(), "sl": ctk.ctkSliderWidget(), "col": ctk.ctkCollapsibleButton()}
        return (
            found
            | widgets
            | {"gb": qt.QGroupBox("t"), "cb": qt.QComboBox(), "tw": qt.QTableWidget(), "timer": qt.QTimer()}
        )
    if "array" in group:
        return found
    found["v"] = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    if "mrml" in group:
        found["v"].SetAndObserveImageData(vtk.vtkImageData())  # a volume whose array had been refused: no values
    return found | (parameters() if "connectGui" in group else {})


def parameters() -> dict[str, Any]:
    """Return a parameter node wrapper and widgets for it."""
    import qt
    import slicer
    import vtk
    from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

    class P:
        """The parameters of the probes."""

        __annotations__ = {
            "n": Annotated[int, WithinRange(1, 5)],
            "q": Quality,
            "flag": bool,
            "vol": slicer.vtkMRMLScalarVolumeNode,
            "items": list[str],
            "d": dict[str, str],
            "s": str,
            "f": float,
        }
        n = 2
        flag = True

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    p, events = parameterNodeWrapper(P)(node), []
    p.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: events.append(event))
    ui = type("", (), {})()
    ui.s, ui.cq, ui.cs = qt.QSpinBox(), qt.QComboBox(), slicer.qMRMLNodeComboBox()
    ui.cs.noneEnabled = True
    ui.cs.setMRMLScene(slicer.mrmlScene)
    for widget, name in ((ui.s, "n"), (ui.cq, "q"), (ui.cs, "vol")):
        widget.setProperty("SlicerParameterName", name)
    return {"p": p, "node": node, "events": events, "ui": ui, "s": ui.s, "cq": ui.cq, "cs": ui.cs}


def plain(text: str) -> str:
    """Return a representation without addresses."""
    return re.sub(r"\(0x[0-9a-f]+\)?| at:? 0x[0-9a-f]+\)?", "", text)


def ask(probe: dict[str, str], names: dict[str, Any]) -> dict[str, str]:
    """Run one probe; return what the golden record holds of it."""
    try:
        if probe.get("result") == "'(ran)'" or ("error" in probe and re.match(r"[\w.]+=[^=]", probe["code"])):
            exec(probe["code"], names)
            return {"result": "'(ran)'", "type": "str"}
        value = eval(probe["code"], names)
    except (AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"result": plain(repr(value)), "type": type(value).__name__}


def same(asked: dict[str, str], probe: dict[str, str]) -> bool:
    """Say whether the answers agree; paths differ, and the record cuts long answers at 160 characters."""
    if probe.get("result") == "'<path>'":
        return Path(asked["result"].strip("'")).is_absolute() and asked["type"] == probe["type"]
    expected = {key: probe[key] for key in ("result", "error", "type") if key in probe}
    if len(expected.get("result", "")) >= 155:
        return asked["result"].startswith(expected["result"]) and asked["type"] == expected["type"]
    return asked == expected


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group[0])
def test_every_probe_is_answered_as_the_application_answered(slicer_app, group):
    names = objects(group)
    wrong = []
    for probe in (p for p in OBSERVATIONS if p["topic"] in group and p["code"] not in LEFT_OUT_CODE):
        asked = ask(probe, names)
        if not same(asked, probe):
            wrong.append(f"{probe['topic']}: {probe['code']}\n  application: {probe}\n  stand-in:    {asked}")
    assert not wrong, "\n".join(wrong)


def test_every_topic_is_asked_or_left_out_for_a_reason():
    assert {p["topic"] for p in OBSERVATIONS} == set(LEFT_OUT) | {topic for group in GROUPS for topic in group}
    assert set(LEFT_OUT_CODE) <= {p["code"] for p in OBSERVATIONS}
