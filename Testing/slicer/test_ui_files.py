"""The .ui files: no styling of their own, every text translated, tooltips, tab order, names that the code uses."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from patients import MODULES, ROOT

FILES = [MODULES / name / "Resources" / "UI" / f"{name}.ui" for name in ("MedXlate", "MedXlateEvaluate")]
CODE = sorted((MODULES / "MedXlateSlicerLib").glob("*.py"))
FOR_THE_USER = {
    "QPushButton", "QComboBox", "QTableWidget", "QPlainTextEdit", "QProgressBar", "QGroupBox", "QSpinBox", "QCheckBox",
    "QLineEdit", "ctkSliderWidget",
    "ctkCollapsibleButton", "ctkCollapsibleGroupBox", "qMRMLNodeComboBox", "qMRMLTableView",
}  # fmt: skip
REACHED_BY_TAB = FOR_THE_USER - {"QProgressBar", "QGroupBox"}
NO_PROSE = {"SlicerParameterName", "nodeTypes"}
# nothing that paints, colours or sets a font
STYLING = {"styleSheet", "palette", "font", "autoFillBackground"}


def widgets(path: Path) -> list[ElementTree.Element]:
    return list(ElementTree.parse(path).getroot().iter("widget"))


def properties(widget: ElementTree.Element) -> dict[str, ElementTree.Element]:
    return {entry.get("name"): entry for entry in widget.findall("property")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_widget_has_a_style_of_its_own(path):
    assert [w.get("name") for w in widgets(path) if STYLING & set(properties(w))] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_everything_a_user_touches_has_a_tooltip(path):
    bare = [w.get("name") for w in widgets(path) if w.get("class") in FOR_THE_USER and "toolTip" not in properties(w)]
    assert bare == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_text_is_translated_and_what_is_no_text_is_not(path):
    for widget in widgets(path):
        for name, entry in properties(widget).items():
            for text in entry.iter("string"):
                parent = entry.find("stringlist")
                holder = parent if parent is not None else text
                assert (holder.get("notr") == "true") == (name in NO_PROSE), (widget.get("name"), name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_tab_key_goes_through_all_controls_from_top_to_bottom(path):
    order = [stop.text for stop in ElementTree.parse(path).getroot().iter("tabstop")]
    assert order == [w.get("name") for w in widgets(path) if w.get("class") in REACHED_BY_TAB]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_names_are_used_once(path):
    names = [w.get("name") for w in widgets(path)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_cell_of_a_layout_is_taken_twice(path):
    for layout in ElementTree.parse(path).getroot().iter("layout"):
        taken = [
            (int(item.get("row")), int(item.get("column")) + n)
            for item in layout.findall("item")
            if item.get("row") is not None
            for n in range(int(item.get("colspan", "1")))
        ]
        assert len(taken) == len(set(taken)), layout.get("name")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_selector_gets_the_scene(path):
    receivers = {entry.text for entry in ElementTree.parse(path).getroot().iter("receiver")}
    scene_widgets = {w.get("name") for w in widgets(path) if w.get("class").startswith("qMRML")} - {path.stem}
    assert receivers == scene_widgets


@pytest.mark.parametrize(("path", "kind"), [(FILES[0], "TranslateParameters"), (FILES[1], "EvaluateParameters")])
def test_bound_widgets_name_parameters_that_exist(slicer_app, path, kind):
    from MedXlateSlicerLib import parameters

    known = getattr(parameters, kind).__annotations__
    bound = [
        properties(w)["SlicerParameterName"].find("string").text
        for w in widgets(path)
        if "SlicerParameterName" in properties(w)
    ]
    assert bound
    assert set(bound) <= set(known)


def test_every_widget_that_the_code_names_is_in_a_file():
    known = {w.get("name") for path in FILES for w in widgets(path)}
    named = set()
    for path in CODE:
        named |= set(re.findall(r"\bui\.(\w+)", path.read_text(encoding="utf-8")))
    assert named - known == set()


def test_texts_in_the_code_of_the_panels_go_through_translation():
    ways = (
        r"^\s*[\w.]+\.(?:text|toolTip|title|windowTitle) = f?\"\w",
        r"set_text\([^,]+, f?\"\w",
        r"windowTitle=f?\"(?!MedXlate\")",
    )
    pattern = re.compile("|".join(ways), re.MULTILINE)
    assert [path.name for path in CODE if pattern.search(path.read_text(encoding="utf-8"))] == []


def test_nothing_in_the_panels_styles_a_widget_or_moves_a_view():
    for path in [*CODE, *MODULES.glob("MedXlate*/*.py")]:
        text = path.read_text(encoding="utf-8")
        for word in ("setStyleSheet", "styleSheet", "resetSliceViews(", "FitSliceToAll(", "fitSlice", "QMessageBox"):
            assert word not in text, (path.name, word)


def test_the_tutorial_shows_every_state_of_the_panel_with_pictures_that_exist():
    tutorial = ROOT / "Docs" / "tutorials" / "slicer-first-t1ce.md"
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", tutorial.read_text(encoding="utf-8"))
    assert [link for link in shown if not (tutorial.parent / link).is_file()] == []
    assert {Path(link).stem for link in shown} >= {"empty", "ready", "running", "done", "error", "evaluate", "models"}
