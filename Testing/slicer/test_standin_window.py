"""The stand-in application as a whole: .ui files, scripted modules, dialogs, and no trace after a test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

UI = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0">
 <class>Panel</class>
 <widget class="qMRMLWidget" name="Panel">
  <layout class="QVBoxLayout" name="verticalLayout">
   <item><widget class="ctkCollapsibleButton" name="inputs"><property name="text"><string>Inputs</string></property>
    <layout class="QFormLayout" name="form">
     <item row="0" column="0"><widget class="QLabel" name="label">
      <property name="text"><string>Source</string></property></widget></item>
     <item row="0" column="1"><widget class="qMRMLNodeComboBox" name="source">
      <property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist></property>
      <property name="noneEnabled"><bool>true</bool></property>
      <property name="SlicerParameterName" stdset="0"><string notr="true">source</string></property></widget></item>
     <item row="1" column="1"><widget class="ctkPathLineEdit" name="folder">
      <property name="filters"><set>ctkPathLineEdit::Dirs|ctkPathLineEdit::NoDot</set></property></widget></item>
     <item row="2" column="1"><widget class="QCheckBox" name="flag"/></item>
    </layout></widget></item>
   <item><widget class="QPushButton" name="apply"><property name="text">
    <string>Apply</string></property></widget></item>
  </layout>
 </widget>
 <customwidgets>
  <customwidget><class>qMRMLWidget</class><extends>QWidget</extends><header>qMRMLWidget.h</header><container>1</container></customwidget>
  <customwidget><class>ctkCollapsibleButton</class><extends>QWidget</extends><header>c.h</header><container>1</container></customwidget>
  <customwidget><class>qMRMLNodeComboBox</class><extends>QWidget</extends><header>n.h</header></customwidget>
  <customwidget><class>ctkPathLineEdit</class><extends>QWidget</extends><header>p.h</header></customwidget>
 </customwidgets>
 <connections>
  <connection><sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal><receiver>source</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection>
  <connection><sender>flag</sender><signal>toggled(bool)</signal><receiver>apply</receiver><slot>setEnabled(bool)</slot></connection>
 </connections>
</ui>
"""

MODULE = """
import slicer
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin
from slicer import vtkMRMLScalarVolumeNode


class Probe(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Probe")
        slicer.app.connect("startupCompleted()", started)


started_calls = []


def started():
    started_calls.append(1)


@parameterNodeWrapper
class ProbeParameters:
    source: vtkMRMLScalarVolumeNode


class ProbeWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/Probe.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.closed = []
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, lambda c, e: self.closed.append("closing"))
        self.parameters = ProbeParameters(ProbeLogic().getParameterNode())
        self.tag = self.parameters.connectGui(self.ui)

    def cleanup(self):
        self.parameters.disconnectGui(self.tag)
        self.removeObservers()


class ProbeLogic(ScriptedLoadableModuleLogic):
    pass
"""


@pytest.fixture
def probe(slicer_app, tmp_path):
    """Return a loaded scripted module with a panel."""
    (tmp_path / "Resources" / "UI").mkdir(parents=True)
    (tmp_path / "Resources" / "UI" / "Probe.ui").write_text(UI)
    (tmp_path / "Probe.py").write_text(MODULE)
    return slicer_app.load_module(tmp_path / "Probe.py")


def test_a_scripted_module_shows_its_panel(slicer_app, probe):
    import slicer

    panel = slicer_app.enter(probe)
    assert probe.title == "Probe"
    assert probe.python_module.started_calls == [1]
    assert panel.ui.inputs.text == "Inputs"
    assert panel.ui.source.mrmlScene() is slicer.mrmlScene
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T1")
    panel.ui.source.setCurrentNode(volume)
    assert panel.parameters.source is volume
    volume.SetName("T1 of the patient")
    assert panel.ui.source.findChild("QComboBox").currentText == "T1 of the patient"
    slicer_app.close_scene()
    assert panel.closed == ["closing"]
    assert panel.ui.source.currentNode() is None


def test_connections_of_a_ui_file_work(slicer_app, probe):
    panel = slicer_app.enter(probe)
    panel.ui.flag.checked = True
    panel.ui.flag.checked = False
    assert not panel.ui.apply.enabled


def test_a_panel_can_be_pictured(slicer_app, probe, tmp_path):
    panel = slicer_app.enter(probe)
    picture = slicer_app.screenshot(panel.parent, tmp_path / "panel.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 1000


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name="noneEnabled"', 'name="noneAllowed"', "no property 'noneAllowed'"),
        ('class="ctkPathLineEdit"', 'class="ctkPathEdit"', "no widget class ctkPathEdit"),
        ("mrmlSceneChanged(vtkMRMLScene*)", "sceneChanged()", "no signal"),
    ],
)
def test_a_ui_file_that_the_application_would_not_understand_is_refused(slicer_app, tmp_path, old, new, message):
    import slicer

    (tmp_path / "wrong.ui").write_text(UI.replace(old, new))
    with pytest.raises(RuntimeError, match=message):
        slicer.util.loadUI(tmp_path / "wrong.ui")


def test_a_missing_ui_file_is_refused(slicer_app, tmp_path):
    import slicer

    with pytest.raises(RuntimeError, match="file not found"):
        slicer.util.loadUI(str(tmp_path / "none.ui"))


def test_dialogs_are_kept_and_questions_wait_for_the_tests_answer(slicer_app):
    import slicer

    slicer.util.errorDisplay("It failed", detailedText="why")
    slicer_app.dialogs.answer(1024, 4194304)
    assert slicer.util.confirmOkCancelDisplay("Go on?") is True
    assert slicer.util.confirmOkCancelDisplay("Go on?") is False
    assert slicer_app.dialogs.texts == ["It failed", "Go on?", "Go on?"]
    with pytest.raises(AssertionError, match="waits for an answer"):
        slicer.util.confirmYesNoDisplay("And now?")


def test_no_dialog_of_qt_waits(slicer_app):
    import qt

    slicer_app.dialogs.answer("/data", 1)
    assert qt.QFileDialog.getExistingDirectory(None, "Folder of the models") == "/data"
    dialog = qt.QDialog()
    dialog.windowTitle = "Models"
    assert dialog.exec_() == 1
    assert [shown.kind for shown in slicer_app.dialogs.shown] == ["QFileDialog.getExistingDirectory", "QDialog.exec"]
    with pytest.raises(AssertionError, match="waits for an answer"):
        qt.QMessageBox.question(None, "Title", "Text")


def test_an_error_in_a_slot_fails_the_test(qt_is_there, tmp_path):
    from standin.window import installed_application

    def fail():
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"), installed_application(tmp_path) as application:
        import qt

        button = qt.QPushButton("Go")
        button.connect("clicked()", fail)
        button.click()
        assert len(application.slot_errors) == 1


def test_nothing_of_the_stand_in_stays_after_a_test(qt_is_there, tmp_path):
    import slicer
    from standin.window import installed_application

    before, names, hook = set(sys.modules), set(vars(slicer)), sys.excepthook
    with installed_application(tmp_path):
        assert "qt" in sys.modules
        assert not hasattr(slicer, "loadVolume"), "the application has it in slicer.util only"
    assert {"qt", "ctk", "slicer.parameterNodeWrapper"}.isdisjoint(sys.modules)
    assert set(vars(slicer)) == names
    assert sys.excepthook is hook
    assert {name for name in set(sys.modules) - before if name.split(".")[0] not in ("standin", "PySide6")} == set()


def test_pip_is_only_asked(slicer_app):
    from slicer.packaging import pip_ensure

    assert pip_ensure("numpy>=1.20") == []
    pip_ensure(["no-such-package-at-all>=3"], requester="MedXlate")
    assert [request[:2] for request in slicer_app.packages.requests] == [("pip_ensure", ["no-such-package-at-all>=3"])]
    slicer_app.packages.decline = True
    with pytest.raises(RuntimeError, match="declined"):
        pip_ensure("no-such-package-at-all")


def test_volumes_are_written_and_read(slicer_app, tmp_path):
    import numpy as np
    import slicer

    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    node = slicer.util.addVolumeFromArray(array, name="T1")
    assert slicer.util.saveNode(node, str(tmp_path / "t1.nrrd"))
    again = slicer.util.loadVolume(str(tmp_path / "t1.nrrd"))
    assert np.array_equal(slicer.util.arrayFromVolume(again), array)
    with pytest.raises(RuntimeError, match="Failed to load"):
        slicer.util.loadVolume(str(Path(tmp_path) / "none.nrrd"))


def test_modules_are_found_by_name(slicer_app, probe):
    import slicer

    panel = slicer.util.getModuleWidget("Probe")
    assert panel is slicer.modules.probe.widgetRepresentation().self() is slicer.modules.ProbeWidget
    assert slicer.util.getModuleLogic("Volumes") is slicer.modules.volumes.logic()
    slicer.util.selectModule("SegmentEditor")
    assert slicer.util.selectedModule() == "SegmentEditor"
    with pytest.raises(RuntimeError, match="Could not find module"):
        slicer.util.selectModule("NoSuchModule")


def test_plain_numbers_stand_for_enums(slicer_app):
    import qt

    table = qt.QTableWidget()
    table.setColumnCount(2)
    table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
    item = qt.QTableWidgetItem("T1")
    item.setFlags(item.flags() & ~qt.Qt.ItemIsEditable)
    assert not item.flags() & qt.Qt.ItemIsEditable
    label = qt.QLabel("x")
    label.setAlignment(qt.Qt.AlignRight | qt.Qt.AlignTop)
    assert label.alignment & qt.Qt.AlignRight
    with pytest.raises(ValueError, match="Could not find matching overload"):
        label.setAlignment("right")


def test_web_pages_are_not_opened(slicer_app):
    import qt

    qt.QDesktopServices.openUrl(qt.QUrl("https://example.org/guide"))
    assert slicer_app.dialogs.texts == ["https://example.org/guide"]


def test_a_class_of_qt_can_be_derived(slicer_app):
    import qt

    class Timer(qt.QTimer):
        def __init__(self):
            qt.QTimer.__init__(self)
            self.ticks = 0
            self.connect("timeout()", self.tick)

        def tick(self):
            self.ticks += 1

    timer = Timer()
    timer.start(0)
    slicer_app.wait_until(lambda: timer.ticks >= 3, seconds=5)
    timer.stop()


def test_a_slot_of_qt_gets_the_signals_value(slicer_app):
    import qt

    switch, detail = qt.QCheckBox(), qt.QLineEdit()
    switch.connect("toggled(bool)", detail.setEnabled)
    switch.connect("toggled(bool)", detail.clear)
    detail.text = "x"
    switch.checked = True
    assert (detail.enabled, detail.text) == (True, "")
    switch.checked = False
    assert not detail.enabled
