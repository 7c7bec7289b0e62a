"""Every row of the fault table, driven through the real command: the answer is the one that the table promises.

After an error nothing is left: no output, no temporary file, no lock, and every input as it was, byte for byte. After a
warning the result is there, on the right grid, and the warning stands in its record.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import makers
import makers_dicom  # noqa: F401 - registers its makers
import makers_surroundings
import nibabel as nib
import numpy as np
import pytest
from describe import PAGE, page
from fault_table import Row, rows
from scene import MAKERS, TEMPORARY, Scene

from MedXlateCore.cli import main
from MedXlateCore.io import read_volume, sidecar_path
from MedXlateCore.volume import Geometry

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "training"))
from training_cases import CONFIG, write_cohort

ROWS = rows()
EVALUATED = Geometry((26, 28, 20), makers.grid_affine((26, 28, 20), (3.0, 3.0, 3.0), "RAS", (0, 0, 0), 0.0, (0, 0, 0)))
BLOCK = r"{code}: [^\n]+\n(?P<expected>  expected: [^\n]+\n)?(  where: [^\n]+\n)?  what to do: [^\n]+\n\Z"
PRINTED = re.compile(r"^warning: (MX-[A-Z]{3}-\d{3})", re.MULTILINE)
NOTHING_EXPECTED = {"MX-RES-001", "MX-RES-022", "MX-RUN-130"}  # no memory, no device, cancelled: "more" says nothing


@pytest.fixture(scope="session")
def good_inputs(patient_files, make_patient, tmp_path_factory) -> dict[str, dict[str, Path]]:
    """Return good inputs by command: short name -> file. Nobody changes them."""
    compared = tmp_path_factory.mktemp("compared")
    volumes = make_patient(EVALUATED)
    rng = np.random.default_rng(3)
    image = volumes["T1"].array
    arrays = {
        "reference": image,
        "synthetic": (image + (image > 0) * rng.normal(0, 30, image.shape)).astype(np.float32),
        "mask": (image > 0).astype(np.uint8),
        "regions": volumes["region"].array,
    }
    for name, array in arrays.items():
        makers.save(compared / f"{name}.nii.gz", array, EVALUATED.affine_ras)
    project = tmp_path_factory.mktemp("project")
    table = write_cohort(project)
    config = project / "config.toml"
    settings = CONFIG.replace('target = "T1ce"', 'target = "T1ce", table = "cases.csv"')
    config.write_text(settings.replace("[training]", "[training]\nvalidation_cases = 1"))
    volumes = {path.name.removesuffix(".nii.gz"): path for path in project.glob("*.nii.gz")}
    return {
        "translate": patient_files,
        "evaluate": {name: compared / f"{name}.nii.gz" for name in arrays},
        "train": {"table": table, "config": config, **volumes},
    }


@pytest.fixture(scope="session")
def sound_results(patient_files, tiny_package, tmp_path_factory) -> dict[str, np.ndarray]:
    """Return the voxels that sound calls give: without a prompt and with the region as drawn."""
    folder = tmp_path_factory.mktemp("sound")
    found = {}
    for name, more in (("plain", []), ("region", ["--roi", str(patient_files["region"])])):
        sources = [f"--source={role}={patient_files[role]}" for role in ("T1", "T2")]
        output = folder / f"{name}.nii.gz"
        line = ["translate", "--model", str(tiny_package), *sources, f"--output={output}", "--device", "cpu", *more]
        assert main([*line, "--quiet"]) == 0
        found[name] = makers.load(output)[0]
    assert not np.array_equal(found["plain"], found["region"])
    return found


@pytest.fixture
def make_scene(good_inputs, tiny_package, patient, make_patient, tmp_path, monkeypatch) -> Callable[[Row], Scene]:
    """Return a function from a row to its spoiled scene."""

    def make(row: Row) -> Scene:
        (tmp_path / "in").mkdir()
        files = {}
        for name, path in good_inputs.get(row.command, {}).items():
            files[name] = Path(shutil.copy(path, tmp_path / "in" / path.name))
        outputs = {"translate": "out/T1ce.nii.gz", "evaluate": "out/figures.json"}
        grid = EVALUATED if row.command == "evaluate" else patient["T1"].geometry
        scene = Scene(
            tmp_path, row.command, files, str(tiny_package), tmp_path / outputs.get(row.command, "out"),
            grid.shape, grid.affine_ras, make_patient, monkeypatch,
        )  # fmt: skip
        for name, arguments in row.make.items():
            MAKERS[name](scene, **arguments)
        scene.options += [
            word.replace("{folder}", str(tmp_path)).replace("{model}", scene.model) for word in row.options
        ]
        return scene

    return make


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.group}: {row.name}" for row in ROWS])
def test_a_fault_gets_the_answer_of_the_table(row: Row, make_scene, sound_results, capsys):
    _skip_unless_possible(row)
    scene = make_scene(row)
    before = {name: kind for name, kind in scene.contents().items() if not _is_temporary(name)}
    with scene.around:
        status = main(scene.words())
    after = scene.contents()
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert [name for name in after if _is_temporary(name)] == []
    if row.answer == "error":
        _assert_refused(row, status, printed.err, printed.out)
        assert {name: kind for name, kind in after.items() if not _may_stay(name, row)} == before
    else:
        assert status == 0, printed.err
        assert _unchanged(scene, before, after)
        recorded = PRINTED.findall(printed.out) if row.command == "check" else _recorded(scene)
        assert set(recorded) == set(row.codes), printed.err
        if row.command == "translate":
            array = _right_image(scene)
            assert not row.same or np.array_equal(array, sound_results[row.same])


def _is_temporary(name: str) -> bool:
    return any(mark in name for mark in TEMPORARY)


def _skip_unless_possible(row: Row) -> None:
    if "posix" in row.needs and os.name == "nt":
        pytest.skip("Windows does not have this")
    if "permissions" in row.needs and not _permissions_count():
        pytest.skip("this user may read and write everywhere")


@cache
def _permissions_count() -> bool:
    """Say whether a file without permissions cannot be read, as it can by the superuser and on Windows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "closed")
        path.touch(mode=0)
        return not os.access(path, os.R_OK)


def _assert_refused(row: Row, status: int, text: str, out: str) -> None:
    """The last thing said is one block with the code, what was expected and what to do; the exit status fits."""
    block = re.search(BLOCK.format(code=re.escape(row.codes[0])), text)
    assert block, text
    assert block["expected"] or row.codes[0] in NOTHING_EXPECTED, text
    assert status == row.exit, text
    before_block = text[: text.rindex(row.codes[0])]
    assert all(line.startswith("warning: ") for line in before_block.splitlines()), text
    assert out == ""


def _may_stay(name: str, row: Row) -> bool:
    """Say whether a name is the folder that a row keeps, above it or inside it."""
    return bool(row.keeps) and (f"{name}/".startswith(f"{row.keeps}/") or f"{row.keeps}/".startswith(f"{name}/"))


def _unchanged(scene: Scene, before: dict, after: dict) -> bool:
    """Say whether everything that was there still is as it was, and only the output and its record are new."""
    own = [scene.output, sidecar_path(scene.output)]
    names = {str(Path(os.path.abspath(path)).relative_to(scene.folder)) for path in own}  # noqa: PTH100 - keeps links
    old = {name: kind for name, kind in before.items() if name not in names}
    new = set(after) - set(before) - names
    parents = {str(parent) for name in names for parent in Path(name).parents}
    inside = {name for name in new if scene.output.is_dir() and (scene.folder / name).is_relative_to(scene.output)}
    return {name: after.get(name) for name in old} == old and new - parents - inside == set()


def _recorded(scene: Scene) -> list[str]:
    """Return the codes of the warnings in the result's own record."""
    records = {
        "translate": sidecar_path(scene.output), "evaluate": scene.output, "train": scene.output / "run.json",
    }  # fmt: skip
    path = records.get(scene.command)
    return [warning["code"] for warning in json.loads(path.read_text())["warnings"]] if path else []


def _right_image(scene: Scene) -> np.ndarray:
    """Return the result's voxels, after checking that they are finite and lie where the reference lies."""
    if ".nii" in scene.output.name.lower():
        image = nib.load(scene.output)
        array, affine = np.asanyarray(image.dataobj), image.affine
    else:
        volume = read_volume(scene.output)
        array, affine = volume.array, volume.geometry.affine_ras
    assert array.shape == tuple(scene.shape)
    assert np.allclose(affine, scene.affine, rtol=1e-6, atol=1e-4), affine - scene.affine
    assert np.isfinite(array).all()
    assert json.loads(sidecar_path(scene.output).read_text())["synthetic"] is True
    return array


def test_every_name_in_the_table_is_unique_and_every_maker_is_used():
    names = [(row.group, row.name) for row in ROWS]
    assert len(set(names)) == len(names)
    assert {name for row in ROWS for name in row.make} == set(MAKERS)


def test_the_table_has_at_least_120_distinct_faults():
    distinct = {
        json.dumps([row.command, row.make, row.options], sort_keys=True, default=str)
        for row in ROWS
        if row.answer != "ok"
    }
    assert len(distinct) >= 120
    assert makers_surroundings.HOSTILE  # faults of packages are shared with their own test


def test_the_page_about_the_faults_is_in_step_with_the_table():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python Testing/faults/describe.py"
