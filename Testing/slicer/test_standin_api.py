"""The stand-in offers what the application offers and no more: its classes are held to the golden record of names."""

from __future__ import annotations

import pytest
from standin.api import class_api, known_classes, record

# classes of the application that no module of this project uses; importing one fails
ABSENT = {
    "qMRMLSubjectHierarchyComboBox",
    "qMRMLSubjectHierarchyTreeView",
    "qMRMLVolumeThresholdWidget",
    "qMRMLWindowLevelWidget",
    "qMRMLVolumePropertyNodeWidget",
    "qSlicerSimpleMarkupsWidget",
    "ctkPythonConsole",
    "ctkErrorLogWidget",
}
# made in plain Python; their objects come from slicer.app
PLAIN = {"qMRMLSliceWidget", "qMRMLThreeDWidget", "qMRMLLayoutManager", "qSlicerApplication", "QSettings"}
CLASSES = sorted(set(known_classes()) - ABSENT - PLAIN)


def made(name: str):
    """Return an object of a class that the stand-in has."""
    import ctk
    import qt
    import slicer

    holder = ctk if name.startswith("ctk") else slicer if name.startswith("q") else qt
    return getattr(holder, name)()


@pytest.fixture(scope="module")
def application(qt_is_there, tmp_path_factory):
    """Return one stand-in application for all classes."""
    from standin.window import installed_application

    with installed_application(tmp_path_factory.mktemp("slicer")) as standin:
        yield standin


@pytest.mark.parametrize("name", CLASSES)
def test_a_name_that_the_class_lacks_is_refused(application, name):
    thing = made(name)
    assert class_api(name).kind("noSuchName") is None
    with pytest.raises(AttributeError):
        _ = thing.noSuchName
    with pytest.raises(AttributeError):
        thing.noSuchName = 1


@pytest.mark.parametrize("name", CLASSES)
def test_properties_are_values_and_methods_are_slots(application, name):
    thing, api = made(name), class_api(name)
    for key in api.types:
        try:
            value = getattr(thing, key)
        except NotImplementedError:
            continue
        assert type(value).__name__ != "builtin_qt_slot", key
    for key in api.methods - set(api.types) - set(api.signals):
        assert type(getattr(thing, key)).__name__ in ("builtin_qt_slot", "method", "partial"), key


def test_most_properties_of_the_widgets_are_there(application):
    lacking, known = [], 0
    for name in CLASSES:
        thing = made(name)
        for key in class_api(name).types:
            known += 1
            try:
                getattr(thing, key)
            except NotImplementedError:
                lacking.append(f"{name}.{key}")
    assert len(lacking) < 0.02 * known, lacking


def test_classes_that_nobody_uses_are_absent(application):
    import slicer

    for name in ABSENT - {"ctkPythonConsole", "ctkErrorLogWidget"}:
        assert not hasattr(slicer, name)


def test_objects_in_plain_python_have_only_names_of_the_record(application):
    import slicer

    manager = slicer.app.layoutManager()
    for thing in (slicer.app, manager, manager.sliceWidget("Red"), slicer.app.settings()):
        own = {key for base in type(thing).__mro__[:-1] for key in vars(base) if not key.startswith("_")}
        api = class_api(thing._API)
        assert {key for key in own if api.kind(key) is None} == set(), type(thing).__name__


def test_functions_that_were_replaced_are_the_applications(application):
    import slicer

    golden = record("slicer_api.json")["slicer_util"]
    for name in golden:
        if not name.startswith("_"):
            assert callable(getattr(slicer.util, name)), name
    with pytest.raises(AttributeError):
        _ = slicer.util.noSuchFunction


@pytest.mark.parametrize(
    "module", ["slicer.i18n", "slicer.packaging", "slicer.testing", "slicer.ScriptedLoadableModule"]
)
def test_small_modules_have_only_names_of_the_record(application, module):
    import sys

    own = {key for key in vars(sys.modules[module]) if not key.startswith("_")}
    assert own <= set(record("slicer_api.json")["modules"][module])
