"""The batch script for 3D Slicer: it always ends with an exit code, finds the library, and its options are its own."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from MedXlateCore.commands.batch import add_arguments

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "MedXlateSlicer" / "Scripts" / "medxlate_batch.py"
# what 3D Slicer and its launcher take for themselves (qSlicerCoreCommandOptions, qSlicerCommandOptions, ctkAppLauncher)
SLICERS = {
    "help", "testing", "disable-python", "python-script", "python-code", "ignore-slicerrc", "additional-module-path",
    "additional-module-paths", "modules-to-ignore", "disable-cli-modules", "disable-loadable-modules",
    "disable-scripted-loadable-modules", "disable-builtin-modules", "disable-builtin-cli-modules",
    "disable-builtin-loadable-modules", "disable-builtin-scripted-loadable-modules", "disable-modules",
    "disable-message-handlers", "disable-terminal-outputs", "disable-settings", "version", "program-path", "home",
    "settings-path", "temporary-path", "keep-temporary-settings", "verbose-module-discovery", "verbose",
    "exit-after-startup", "ignore-rest", "no-splash", "no-main-window", "show-python-interactor", "hide-module-panel",
    "attach-process", "list-modules", "launch", "gdb", "designer", "display-program-path", "display-version-and-exit",
    "display-settings-path", "display-home-path",
}  # fmt: skip


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("medxlate_batch_under_test", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def slicer_exit(monkeypatch):
    """Return the codes that ``slicer.util.exit`` was given."""
    codes, slicer = [], ModuleType("slicer")
    slicer.util = SimpleNamespace(exit=codes.append)
    monkeypatch.setitem(sys.modules, "slicer", slicer)
    return codes


def options():
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    return [name.lstrip("-") for action in parser._actions for name in action.option_strings]


def test_no_option_is_one_that_slicer_takes_for_itself():
    assert len(options()) >= 10
    assert not set(options()) & SLICERS
    assert not [name for name in options() if len(name) == 1 or name.startswith("launcher")]


def test_the_exit_code_of_the_batch_ends_the_application(script, slicer_exit, capsys):
    script.leave(script.run(["--input", "none.csv", "--model", "no-such", "--output", "x"]))
    assert slicer_exit == [3]
    script.leave(script.run(["--nonsense"]))
    assert slicer_exit == [3, 2]
    assert "MX-USE-001" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), KeyboardInterrupt(), RecursionError(), SystemError("y")])
def test_an_uncaught_error_ends_the_application_too(script, slicer_exit, monkeypatch, error, capsys):
    def broken(arguments):
        raise error

    monkeypatch.setattr("MedXlateCore.cli.main", broken)
    script.leave(script.run([]))
    assert slicer_exit == [70]
    assert type(error).__name__ in capsys.readouterr().err


def test_help_has_a_name_that_slicer_leaves_alone(script, slicer_exit, capsys):
    script.leave(script.run(["--batch-help"]))
    assert slicer_exit == [0]
    assert "--roi-column" in capsys.readouterr().out


def test_a_missing_library_ends_the_application(script, slicer_exit, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "MedXlateCore.cli", None)
    script.leave(script.run([]))
    assert slicer_exit == [70]


@pytest.mark.parametrize(
    "place", ["lib/Slicer-5.12/qt-scripted-modules/Scripts", "lib/Slicer-5.12/qt-scripted-modules"]
)
def test_an_installed_script_finds_the_library_beside_the_modules(tmp_path, place):
    modules = tmp_path / "lib" / "Slicer-5.12" / "qt-scripted-modules"
    target = tmp_path / place / SCRIPT.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(SCRIPT, target)
    (modules / "MedXlateCore").symlink_to(ROOT / "MedXlateCore")
    code = "import sys, runpy; sys.argv = sys.argv[1:]; sys.modules['slicer'] = None;" \
           "runpy.run_path(sys.argv[0], run_name='__main__')"  # fmt: skip
    line = [str(target), "--input", "none.csv", "--model", "no-such", "--output", "x"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *line], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "MX-MOD-010" in done.stderr


def test_in_a_checkout_the_script_runs_a_whole_batch(tmp_path, patient_files, tiny_package):
    table = tmp_path / "cases.csv"
    table.write_text(f"case,T1,T2\none,{patient_files['T1']},{patient_files['T2']}\ntwo,,{patient_files['T2']}\n")
    line = [sys.executable, SCRIPT, "--input", table, "--model", tiny_package, "--output", tmp_path / "out"]
    done = subprocess.run(
        [*map(str, line), "--device", "cpu"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "out" / "one" / "one_synthetic-T1ce.nii.gz").is_file()
    assert "[2/2] two: failed, MX-DAT-008" in done.stdout
