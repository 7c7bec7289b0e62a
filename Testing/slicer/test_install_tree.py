"""The extension as CMake packages it: complete, importable, and described for the extensions index."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from patients import MODULES, ROOT

CMAKE = shutil.which("cmake") or shutil.which("cmake", path=str(Path(sys.executable).parent))
OURS = ("MedXlateCore", "MedXlateSlicerLib")
NOT_SHIPPED = {"__pycache__"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Return the folder of the modules in an install tree made without Slicer."""
    if CMAKE is None:
        pytest.skip("cmake is not installed; `make setup` installs it")
    folder = tmp_path_factory.mktemp("cmake")
    for command in (
        [CMAKE, "-S", str(ROOT), "-B", str(folder / "build")],
        [CMAKE, "--install", str(folder / "build"), "--prefix", str(folder / "tree")],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder / "tree" / "lib" / "qt-scripted-modules"


def files_below(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and not NOT_SHIPPED & set(path.parts))
    return {str(path.relative_to(folder)) for path in found if not path.name.startswith(".")}


def names_imported(path: Path) -> set[str]:
    """Return the modules of ours that a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.split(".")[0] in OURS}


def test_both_libraries_are_whole(tree):
    for source in (ROOT / "MedXlateCore", MODULES / "MedXlateSlicerLib"):
        assert files_below(source) - files_below(tree / source.name) == set()


def test_every_file_that_a_module_imports_is_there(tree):
    modules = [tree / f"{name}.py" for name in ("MedXlate", "MedXlateEvaluate")]
    wanted = modules + list((tree / "MedXlateSlicerLib").rglob("*.py")) + list((tree / "MedXlateCore").rglob("*.py"))
    checked = 0
    for path in wanted:
        for name in names_imported(path):
            parts = tree.joinpath(*name.split("."))
            parent = parts.parent
            is_module = parts.with_suffix(".py").is_file() or (parts / "__init__.py").is_file()
            is_name = parent.with_suffix(".py").is_file() or (parent / "__init__.py").is_file()
            assert is_module or is_name, (path.name, name)
            checked += 1
    assert checked > 500


def test_resources_lie_where_the_modules_look_for_them(tree):
    for name in ("UI/MedXlate.ui", "UI/MedXlateEvaluate.ui", "Icons/MedXlate.png", "Icons/MedXlateEvaluate.png"):
        assert (tree / "Resources" / name).is_file()
    assert (tree / "Resources" / "requirements.txt").is_file()
    assert list((tree / "MedXlateCore" / "resources" / "models" / "starter").glob("*.safetensors"))
    assert list((tree / "MedXlateCore" / "resources" / "presets").glob("*.toml"))


def test_no_script_but_the_modules_lies_beside_them(tree):
    assert {path.name for path in tree.glob("*.py")} == {"MedXlate.py", "MedXlateEvaluate.py"}
    assert (tree / "Scripts" / "medxlate_batch.py").is_file()


def test_a_module_of_the_tree_loads_with_its_own_libraries_alone(tree):
    """The checkout must not help: only the tree is on the path."""
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import MedXlateCore, MedXlateSlicerLib.models as m;"
        "from MedXlateCore.models.catalogue import list_packages; print(MedXlateCore.__file__, m.__file__);"
        "print([e.name for e in list_packages() if e.card])"
    )
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(tree)],
        capture_output=True,
        text=True,
        env=environment,
        cwd="/",
        check=True,
    )
    assert done.stdout.count(str(tree)) == 2
    assert "starter" in done.stdout


def test_the_installed_panel_opens(tree, slicer_app, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "MedXlateSlicerLib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tree))
    handle = slicer_app.load_module(tree / "MedXlate.py")
    panel = slicer_app.enter(handle)
    assert str(tree) in sys.modules["MedXlateSlicerLib.panel"].__file__
    assert panel.ui.modelsTable.rowCount >= 1
    for name in [name for name in sys.modules if name.split(".")[0] == "MedXlateSlicerLib"]:
        del sys.modules[name]


def test_in_developer_mode_the_module_finds_its_libraries_by_itself():
    """As Slicer does with a module path added by hand: the file is executed, nothing else is on the path."""
    text = (MODULES / "MedXlate" / "MedXlate.py").read_text(encoding="utf-8")
    start = text.index("for _folder, _package in zip(")
    block = text[start : text.index("\n\n\n", start)]
    code = f"import sys\nfrom pathlib import Path\n__file__ = {str(MODULES / 'MedXlate' / 'MedXlate.py')!r}\n{block}\n"
    code += "from importlib.util import find_spec\n"
    code += "print([find_spec(name).origin for name in ('MedXlateSlicerLib', 'MedXlateCore')])"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert done.stdout.strip() == str(
        [str(MODULES / "MedXlateSlicerLib/__init__.py"), str(ROOT / "MedXlateCore/__init__.py")]
    )


def test_loading_a_module_imports_neither_torch_nor_anything_else_that_is_heavy(tree):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import MedXlateSlicerLib.translator, MedXlateSlicerLib.evaluation, MedXlateSlicerLib.models;"
        "heavy = ('torch', 'nibabel', 'SimpleITK', 'lightning', 'skimage', 'qt', 'PySide6');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, str(tree)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_imported_or_done_at_the_top_of_a_module_but_what_slicer_brings():
    for name in ("MedXlate", "MedXlateEvaluate"):
        body = ast.parse((MODULES / name / f"{name}.py").read_text(encoding="utf-8")).body
        imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {(getattr(n, "module", None) or n.names[0].name).split(".")[0] for n in imports}
        assert names == {"sys", "pathlib", "slicer", "vtk"}
        others = [type(node).__name__ for node in body if not isinstance(node, ast.Import | ast.ImportFrom)]
        assert set(others) <= {"Expr", "For", "ClassDef", "FunctionDef"}


# --- with Slicer ----------------------------------------------------------------------------------------------------

PRETEND = """
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/empty.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/empty.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/empty.cmake")
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib/Slicer-5.12/qt-scripted-modules)
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR lib/Slicer-5.12/qt-scripted-modules)
set(BUILD_TESTING ON)
function(packaged)
  set(flags NO_INSTALL_SUBDIR WITH_GENERIC_TESTS)
  set(single TARGET_NAME NAME DESTINATION_DIR INSTALL_DIR)
  cmake_parse_arguments(P "${flags}" "${single}" "SCRIPTS;RESOURCES" ${ARGN})
  if(P_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown: ${P_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file IN LISTS P_SCRIPTS P_RESOURCES)
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "no file ${file}")
    endif()
    file(APPEND "${CMAKE_BINARY_DIR}/packaged.txt" "${file}\\n")
  endforeach()
endfunction()
macro(ctkMacroCompilePythonScript)
  packaged(${ARGN})
endmacro()
macro(slicerMacroBuildScriptedModule)
  packaged(${ARGN})
endmacro()
function(slicer_add_python_unittest kind script)
  get_filename_component(script "${script}" ABSOLUTE)
  if(NOT EXISTS "${script}")
    message(FATAL_ERROR "no test ${script}")
  endif()
endfunction()
"""


def test_slicers_own_macros_get_the_same_files(tree, tmp_path):
    """Slicer itself is not here: its macros are replaced by some that only look at what they are given."""
    if not all(shutil.which(compiler) for compiler in ("cc", "c++", "make")):
        pytest.skip("no compiler: CMake's default languages cannot be set up")
    (tmp_path / "SlicerConfig.cmake").write_text(PRETEND, encoding="utf-8")
    (tmp_path / "empty.cmake").write_text("", encoding="utf-8")
    build = tmp_path / "build"
    command = [CMAKE, "-S", str(ROOT), "-B", str(build), f"-DSlicer_DIR={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    packaged = set((build / "packaged.txt").read_text(encoding="utf-8").split())
    assert packaged | {"Scripts/medxlate_batch.py"} == files_below(tree)


# --- the extensions index -------------------------------------------------------------------------------------------


def test_the_index_entry_has_the_fields_of_its_schema_and_no_others():
    entry = json.loads((ROOT / "Resources" / "MedXlate.json").read_text(encoding="utf-8"))
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.2.json#")
    required = {"$schema", "category", "scm_url"}
    optional = {
        "scm_revision",
        "scm_type",
        "build_dependencies",
        "build_subdirectory",
        "enabled",
        "tier",
        "dicom_support_rule",
    }
    assert required <= set(entry) <= required | optional
    assert entry["category"] == "Image Synthesis"
    assert entry["build_dependencies"] == ["PyTorch"]
    assert Path(entry["scm_url"]).stem == "SlicerMedXlate"
    assert entry["tier"] in range(1, 6)


def test_cmake_and_index_agree_and_every_picture_that_is_named_exists():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert set(re.findall(r"project\((\w+)", text)) == {"MedXlate"}
    values = dict(re.findall(r'set\((EXTENSION_\w+) "([^"]*)"\)', text))
    assert values["EXTENSION_CATEGORY"] == "Image Synthesis"
    assert values["EXTENSION_DEPENDS"] == "PyTorch"
    for url in (values["EXTENSION_ICONURL"], *values["EXTENSION_SCREENSHOTURLS"].split()):
        assert (ROOT / url.split("/main/")[1]).is_file(), url
    assert (ROOT / "LICENSE").is_file()


def test_every_module_folder_lists_its_own_files():
    for name in ("MedXlate", "MedXlateEvaluate"):
        text = (MODULES / name / "CMakeLists.txt").read_text(encoding="utf-8").replace("${MODULE_NAME}", name)
        resources = [str(path.relative_to(MODULES / name)) for path in (MODULES / name / "Resources").rglob("*.*")]
        assert [r for r in resources if r not in text and not Path(r).match("Resources/Icons/phantom-*.png")] == []
