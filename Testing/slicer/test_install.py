"""Dependencies inside 3D Slicer: asked for once, torch from its extension alone, nothing that is there is changed."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from MedXlateSlicerLib import install
from MedXlateSlicerLib.install import (
    NEEDED_TO_TRANSLATE,
    ensure,
    import_problem,
    installed_constraints,
    missing_requirements,
)
from packaging.requirements import Requirement

from MedXlateCore.errors import Cancelled, ResourceError

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "MedXlateSlicer" / "MedXlate" / "Resources" / "requirements.txt"


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Return a Slicer made of notes: which versions are there, what was asked and installed."""

    class World:
        versions = {"numpy": "2.0.2", "torch": "2.5.1+cu124"}
        asked, torch_calls, pip_calls, constraints = [], [], [], []
        works = ""

        def requirements(self, *lines):
            path = tmp_path / "requirements.txt"
            path.write_text("# a remark\n" + "\n".join(lines) + "\n")
            return path

        def agree(self, question):
            self.asked.append(question)
            return True

    world = World()
    world.asked, world.torch_calls, world.pip_calls, world.constraints = [], [], [], []
    world.versions = dict(World.versions)

    def version(name):
        if name.lower() not in world.versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return world.versions[name.lower()]

    monkeypatch.setattr(install.importlib.metadata, "version", version)
    monkeypatch.setattr(install, "_module_version", lambda name: "")
    monkeypatch.setattr(install, "_require_loadable", lambda: None)
    world.packaging = packaging = ModuleType("slicer.packaging")

    def pip_ensure(requirements, constraints=None, prompt_install=True, prompt_restart=True, requester=None):
        world.pip_calls.append(([str(requirement) for requirement in requirements], prompt_install, requester))
        world.constraints.append(Path(constraints).read_text())
        world.versions.update({requirement.name.lower(): "99.0" for requirement in requirements})

    packaging.pip_ensure, packaging.Requirement = pip_ensure, Requirement
    monkeypatch.setitem(sys.modules, "slicer.packaging", packaging)
    world.extension = extension = ModuleType("PyTorchUtils")

    class PyTorchUtilsLogic:
        def installTorch(self, askConfirmation=True, forceComputationBackend=None, torchVersionRequirement=None):
            world.torch_calls.append((askConfirmation, torchVersionRequirement))
            world.versions["torch"] = "2.9.0"
            return ModuleType("torch")

    extension.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    return world


def test_nothing_is_asked_where_nothing_is_missing(world):
    assert ensure(world.requirements("numpy>=1.26", "torch>=2.2"), world.agree) == []
    assert world.asked == world.pip_calls == world.torch_calls == []


def test_what_is_missing_is_asked_for_once_and_installed(world):
    path = world.requirements("numpy>=1.26", "nibabel>=5.2", "einops>=0.8", "torch>=2.2")
    assert ensure(path, world.agree) == ["nibabel", "einops"]
    assert len(world.asked) == 1 and "nibabel>=5.2" in world.asked[0] and "numpy" not in world.asked[0]
    assert world.pip_calls == [(["nibabel>=5.2", "einops>=0.8"], False, "MedXlate")]
    assert world.torch_calls == []


def test_torch_comes_from_its_extension_and_never_from_pip(world):
    del world.versions["torch"]
    assert ensure(world.requirements("torch>=2.2", "einops>=0.8"), world.agree) == ["torch", "einops"]
    assert world.torch_calls == [(False, ">=2.2")]
    assert world.pip_calls == [(["einops>=0.8"], False, "MedXlate")]
    assert "3 GB" in world.asked[0]


def test_an_older_extension_gets_only_the_arguments_it_knows(world):
    class Older:
        def installTorch(self):
            world.versions["torch"] = "2.4"
            return object()

    world.extension.PyTorchUtilsLogic = Older
    del world.versions["torch"]
    assert ensure(world.requirements("torch>=2.2"), world.agree) == ["torch"]


def test_a_version_that_is_too_old_is_named(world):
    world.versions["torch"] = "1.13.1"
    [missing] = missing_requirements(world.requirements("torch>=2.2", "numpy>=1.26"))
    assert (missing.name, missing.found) == ("torch", "1.13.1")


@pytest.mark.parametrize(("version", "missing"), [("2.2", 0), ("2.10.0+cpu", 0), ("2.1.9", 1), ("", 1)])
def test_versions_are_compared_as_numbers(world, version, missing):
    world.versions["torch"] = version
    assert len(missing_requirements(world.requirements("torch>=2.2"))) == missing


def test_what_only_files_need_does_not_hold_up_a_translation(world):
    path = world.requirements("torch>=2.2", "nibabel>=5.2")
    assert ensure(path, world.agree, needed=NEEDED_TO_TRANSLATE) == []
    assert world.asked == world.pip_calls == []
    del world.versions["torch"]
    assert ensure(path, world.agree, needed=NEEDED_TO_TRANSLATE) == ["torch", "nibabel"]  # asked once, for all


def test_torch_is_tried_here_only_where_it_will_be_loaded_here(world, monkeypatch):
    tried = []
    monkeypatch.setattr(install, "_require_loadable", lambda: tried.append(1))
    ensure(world.requirements("torch>=2.2"), world.agree, load_here=False)
    assert tried == []
    ensure(world.requirements("torch>=2.2"), world.agree)
    assert tried == [1]


def test_declining_installs_nothing(world):
    with pytest.raises(Cancelled):
        ensure(world.requirements("einops>=0.8"), lambda question: False)
    assert world.pip_calls == []


def test_declining_in_the_extensions_own_dialog_is_a_cancel_too(world):
    world.extension.PyTorchUtilsLogic.installTorch = lambda self: None
    del world.versions["torch"]
    with pytest.raises(Cancelled):
        ensure(world.requirements("torch>=2.2"), world.agree)


def test_without_the_extension_the_user_is_told_where_to_get_it(world, monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    del world.versions["torch"]
    with pytest.raises(ResourceError, match="MX-SLI-160") as caught:
        ensure(world.requirements("torch>=2.2"), world.agree)
    assert "Extensions Manager" in caught.value.fix


@pytest.mark.parametrize("error", [TypeError("'NoneType' object is not iterable"), OSError(28, "full"), KeyError("x")])
def test_whatever_the_extension_raises_becomes_advice(world, error):
    def broken(self):
        raise error

    world.extension.PyTorchUtilsLogic.installTorch = broken
    del world.versions["torch"]
    with pytest.raises(ResourceError, match="MX-SLI-161"):
        ensure(world.requirements("torch>=2.2"), world.agree)


def test_a_failing_pip_becomes_advice(world):
    def broken(*_, **__):
        raise RuntimeError("Command returned non-zero exit status 1")

    world.packaging.pip_ensure = broken
    with pytest.raises(ResourceError, match=r"MX-SLI-161.*(\n.*)*antivirus"):
        ensure(world.requirements("einops>=0.8"), world.agree)


def test_an_installation_that_changed_nothing_is_noticed(world):
    world.packaging.pip_ensure = lambda *_, **__: None
    with pytest.raises(ResourceError, match="einops still missing"):
        ensure(world.requirements("einops>=0.8"), world.agree)


def test_slicer_5_10_installs_through_slicer_util(world, monkeypatch):
    util, calls = ModuleType("slicer.util"), []

    def pip_install(text):
        calls.append(text)
        world.constraints.append(Path(text.split('-c "')[1].rstrip('"')).read_text())
        world.versions["einops"] = "0.8.1"

    util.pip_install = pip_install
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.setitem(sys.modules, "slicer.util", util)
    assert ensure(world.requirements("einops>=0.8"), world.agree) == ["einops"]
    assert calls[0].startswith('"einops>=0.8" --only-binary=:all: -c ')
    assert not Path(calls[0].split('-c "')[1].rstrip('"')).exists()


def test_everything_installed_is_held_where_it_is(world):
    ensure(world.requirements("einops>=0.8"), world.agree)
    held = world.constraints[0].splitlines()
    assert held == installed_constraints()
    assert any(line.lower().startswith("numpy==") for line in held)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==\S+", line) for line in held)


def test_a_version_that_pip_would_not_read_is_left_out_of_what_is_held(monkeypatch):
    class Made:
        def __init__(self, name, version):
            self.metadata, self.version = {"Name": name}, version

    made = [Made("good", "1.2.3+cu121"), Made("odd", "unknown"), Made("half", None), Made("worse", "1.0 (local build)")]
    monkeypatch.setattr(install.importlib.metadata, "distributions", lambda: made)
    assert installed_constraints() == ["good==1.2.3+cu121"]


def test_the_question_goes_through_a_dialog_of_the_application(world, monkeypatch):
    util, shown = ModuleType("slicer.util"), []
    util.confirmOkCancelDisplay = lambda text, windowTitle=None: shown.append((text, windowTitle)) or False
    monkeypatch.setitem(sys.modules, "slicer.util", util)
    with pytest.raises(Cancelled):
        ensure(world.requirements("einops>=0.8"))
    assert "einops>=0.8" in shown[0][0] and shown[0][1] == "MedXlate"


# --- torch is tried in a process of its own -------------------------------------------------------------------------


def test_a_module_that_loads_has_no_problem():
    assert import_problem(("json",)) == ""


def test_a_module_that_does_not_load_says_why():
    assert "no_such_module" in import_problem(("no_such_module",))


def test_a_module_that_crashes_takes_nobody_with_it(tmp_path, monkeypatch):
    (tmp_path / "crashing.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "code -6" in import_problem(("crashing",))


def test_a_torch_that_cannot_be_loaded_is_told_with_what_to_do(monkeypatch):
    monkeypatch.setattr(install, "import_problem", lambda: "OSError: libcudnn.so.9: cannot open")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(ResourceError, match="MX-SLI-162") as caught:
        install._require_loadable()
    assert "libcudnn" in caught.value.found and "PyTorch Utils" in caught.value.fix


def test_the_shipped_list_agrees_with_the_packages_own():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = {*project["dependencies"], *project["optional-dependencies"]["torch"]}
    lines = {line for line in SHIPPED.read_text().splitlines() if not line.startswith("#")}
    assert lines == own


def test_what_can_be_imported_here_can_be_imported_in_a_process_of_its_own(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "only_known_here.py").write_text("")
    assert import_problem(("only_known_here",)) != ""
    monkeypatch.syspath_prepend(str(folder))
    assert import_problem(("only_known_here",)) == ""


def test_the_library_loads_before_anything_is_installed():
    parts = "bridge evaluation install models nodes panel_state placement regions roles runner sample_data translator"
    code = (
        "import importlib, sys\n"
        "for name in ('torch', 'nibabel', 'SimpleITK', 'PIL', 'safetensors'): sys.modules[name] = None\n"
        f"for name in {parts.split()!r}: importlib.import_module(f'MedXlateSlicerLib.{{name}}')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "MedXlateSlicer"), str(ROOT)])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
