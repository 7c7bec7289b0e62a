"""The ``medxlate`` command: what it loads, how it ends, what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types

import pytest

from MedXlateCore import __version__, cli
from MedXlateCore.errors import Cancelled, InputError, ResourceError, UsageError

HEAVY = ("torch", "scipy", "nibabel", "SimpleITK", "PIL", "lightning_fabric", "safetensors", "einops")
TRANSLATE = ["translate", "--model", "m", "--source", "T1=t1.nii.gz", "--output", "o.nii.gz"]


def python(*arguments, **options):
    """Run Python in a process of its own."""
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False, **options
    )


@pytest.fixture
def ends_with(monkeypatch):
    """Return a function that makes ``medxlate demo`` do something and returns the exit code."""

    def make(action, *options):
        fake = types.SimpleNamespace(add_arguments=lambda parser: None, run=action)
        monkeypatch.setitem(sys.modules, "MedXlateCore.commands.demo", fake)
        return cli.main(["demo", *options])

    return make


def raising(error):
    def action(options):
        raise error

    return action


# --- what is loaded ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "import MedXlateCore",
        "import MedXlateCore.cli",
        "import MedXlateCore.errors, MedXlateCore.volume, MedXlateCore.files",
    ],
)
def test_importing_loads_numpy_at_most(statement):
    done = python("-c", f"import sys; {statement}; print([m for m in {HEAVY} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("words", [["--help"], ["--version"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_is_light(words):
    code = f"""
import sys
from MedXlateCore.cli import main
try:
    main({words})
except SystemExit as end:
    print(end.code, [m for m in {HEAVY} if m in sys.modules], file=sys.stderr)
"""
    done = python("-c", code)
    assert done.stderr.strip() == "0 []"
    assert ("not for diagnosis" in done.stdout) != (words == ["--version"])


def test_help_lists_every_command_and_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cli.COMMANDS)
    assert "130 cancelled" in text


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"medxlate {__version__}\n"


def test_python_m_is_the_same_command():
    done = python("-m", "MedXlateCore", "--version")
    assert (done.returncode, done.stdout) == (0, f"medxlate {__version__}\n")


def test_only_the_module_of_the_command_given_is_loaded():
    code = """
import sys
from MedXlateCore.cli import COMMANDS, main
main(["models", "nonsense"])
print([name for name, (module, _) in COMMANDS.items() if f"MedXlateCore.commands.{module}" in sys.modules])
"""
    assert python("-c", code).stdout.strip() == "['models']"


# --- wrong command lines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--nonsense"],
        ["nonsense"],
        ["translate"],
        [*TRANSLATE, "--nonsense"],
        ["translate", "--source"],
        ["models", "nonsense"],
        [*TRANSLATE, "--targ", "T1ce"],
        ["models", "list", "--js"],
        ["phantom", "--shape", "x"],
    ],
)
def test_a_wrong_command_line_ends_with_2_and_a_code(words, capsys):
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("MX-USE-001: ")
    assert "what to do: see `medxlate" in captured.err
    assert captured.out == ""


def test_no_command_shows_the_help_and_ends_with_2(capsys):
    assert cli.main([]) == 2
    assert "COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--json", "--json-errors"])
def test_errors_can_be_asked_for_as_one_json_object(flag, capsys):
    assert cli.main([*TRANSLATE, flag, "--nonsense"]) == 2
    error = json.loads(capsys.readouterr().err)
    assert set(error) == {"code", "found", "expected", "where", "fix", "exit_code"}
    assert (error["code"], error["exit_code"]) == ("MX-USE-001", 2)


def test_the_json_of_evaluate_is_a_file_and_its_errors_stay_text(capsys):
    words = ["evaluate", "--reference", "a.nii", "--synthetic", "b.nii", "--json"]
    assert cli.main([*words, "x.json", "--nonsense"]) == 2
    assert capsys.readouterr().err.startswith("MX-USE-001")
    assert cli.main([*words, "x.json", "--nonsense", "--json-errors"]) == 2
    assert json.loads(capsys.readouterr().err)["code"] == "MX-USE-001"


# --- how it ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "exit_code", "code"),
    [
        (UsageError("MX-USE-999", "x"), 2, "MX-USE-999"),
        (InputError("MX-IMG-999", "x"), 3, "MX-IMG-999"),
        (ResourceError("MX-RES-999", "x"), 4, "MX-RES-999"),
        (Cancelled("here"), 130, "MX-RUN-130"),
        (KeyboardInterrupt(), 130, "MX-RUN-130"),
        (MemoryError(), 4, "MX-RES-001"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 4, "MX-RES-024"),
    ],
)
def test_every_kind_of_error_has_its_exit_code(ends_with, capsys, error, exit_code, code):
    assert ends_with(raising(error)) == exit_code
    text = capsys.readouterr()
    assert text.err.startswith(f"{code}: ")
    assert text.out == ""
    assert ends_with(raising(error), "--json-errors") == exit_code
    facts = json.loads(capsys.readouterr().err)
    assert (facts["code"], facts["exit_code"]) == (code, exit_code)


def test_a_missing_pytorch_says_how_to_install_it(ends_with, capsys):
    ends_with(raising(ModuleNotFoundError("No module named 'torch'", name="torch")))
    assert "pip install 'medxlate[torch]'" in capsys.readouterr().err


@pytest.mark.parametrize(("module", "package"), [("nibabel.nifti1", "nibabel"), ("PIL", "pillow")])
def test_a_missing_library_is_a_lack_and_no_defect(ends_with, capsys, module, package):
    assert ends_with(raising(ModuleNotFoundError(f"No module named '{module}'", name=module))) == 4
    assert f"PythonSlicer -m pip install {package})" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module named 'x'", name="x"), ValueError("a\ndefect")])
def test_a_defect_of_the_program_is_coded_and_shows_its_traceback_only_when_asked(ends_with, error, capsys):
    assert ends_with(raising(error)) == 70
    text = capsys.readouterr().err
    assert text.startswith(f"MX-INT-001: medxlate met something it does not know ({type(error).__name__}: ")
    assert "test_cli.py, line" in text
    assert "--debug" in text
    assert "Traceback" not in text
    assert ends_with(raising(error), "--debug") == 70
    text = capsys.readouterr().err
    assert text.startswith("Traceback (most recent call last):")
    assert "raise error" in text
    assert "MX-INT-001: " in text


@pytest.mark.parametrize("place", [1, 2, 3])
def test_options_of_every_command_may_stand_before_and_behind_an_action(place, capsys):
    words = ["models", "verify", "no-such-model"]
    words[place:place] = ["--json-errors", "--debug"]
    assert cli.main(words) == 3
    assert json.loads(capsys.readouterr().err)["code"] == "MX-MOD-010"


def test_a_defect_without_a_message_is_coded_too(ends_with, capsys):
    assert ends_with(raising(ValueError()), "--json-errors") == 70
    facts = json.loads(capsys.readouterr().err)
    assert (facts["code"], facts["exit_code"]) == ("MX-INT-001", 70)
    assert "ValueError: no message" in facts["found"]


def test_a_command_that_succeeds_ends_with_0(ends_with):
    assert ends_with(lambda options: 0) == 0


def test_text_that_is_not_ascii_stays_readable_in_json(ends_with, capsys):
    ends_with(raising(InputError("MX-IMG-999", "Kopf größer 🧠")), "--json")
    assert "größer 🧠" in capsys.readouterr().err


PRINTS = """
import sys, types
from MedXlateCore import cli
def run(options):
    {body}
    return 0
sys.modules["MedXlateCore.commands.demo"] = types.SimpleNamespace(add_arguments=lambda parser: None, run=run)
sys.exit(cli.main(["demo"]))
"""


def test_a_terminal_without_the_characters_does_not_spoil_a_finished_run():
    body = r'print("/tmp/größe \U0001f9e0 \udcff.nii.gz · done")'
    done = python("-c", PRINTS.format(body=body), env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert (done.returncode, done.stderr) == (0, "")
    assert r"gr\xf6\xdfe \U0001f9e0" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="pipes of a shell")
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_goes_away_is_no_error(tmp_path, lines):
    script = tmp_path / "script.py"
    script.write_text(PRINTS.format(body=f"import time; time.sleep(0.2)\n    for _ in range({lines}): print('a line')"))
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, script], stdout=writing, stderr=subprocess.PIPE, text=True, env=buffered
    ) as process:
        os.close(writing)
        os.close(reading)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
