"""The demonstration, with the tiny untrained package on a coarse phantom."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from MedXlateCore.cli import main
from MedXlateCore.demo import DEMO_SEED, PROMPTS, Step, run_demo, sham_label_map
from MedXlateCore.io import read_volume
from MedXlateCore.phantom.head import build_subject, render_subject
from MedXlateCore.transforms.foreground import foreground_mask
from MedXlateCore.transforms.orientation import AxisOrder
from MedXlateCore.transforms.resampling import resample
from MedXlateCore.volume import Modality, Volume

pytestmark = pytest.mark.xdist_group("demo")  # one worker: what they share is made once

SPACING_MM = (8.0, 8.0, 9.0)
FILES = {
    "overview.png",
    "report.html",
    *(f"evaluation_{name}.html" for name in PROMPTS),
    *(f"patient/{name}.nii.gz" for name in ("T1", "T2", "T1ce", "region")),
    *(f"synthetic/T1ce_{name}.{suffix}" for name in PROMPTS for suffix in ("nii.gz", "json")),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_package):
    """Return the folder of a finished demonstration and its steps; nobody changes it."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, list(run_demo(folder, tiny_package, device="cpu", spacing_mm=SPACING_MM))


def test_all_files_are_written_and_no_others(finished):
    folder, steps = finished
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == FILES
    assert all(step.path.exists() for step in steps)
    assert steps[-1].path == folder / "report.html"
    assert str(DEMO_SEED) in steps[0].text


def test_the_report_says_what_it_is_and_stands_alone(finished):
    page = (finished[0] / "report.html").read_text("utf-8")
    assert "research use only" in page.lower()
    assert "tiny" in page
    assert page.count("<img") >= 1
    assert not re.findall(r'(?:src|href)="(?!data:|evaluation_|#)', page)
    for words in (*PROMPTS.values(), "identity"):
        assert words in page
    for target in re.findall(r'href="(evaluation_[^"]+)"', page):
        assert (finished[0] / target).exists()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_each_evaluation_says_research_use_only(finished, prompt):
    assert "research use only" in (finished[0] / f"evaluation_{prompt}.html").read_text("utf-8").lower()


def test_the_three_results_differ_in_their_prompt_only(finished):
    records = {name: json.loads((finished[0] / f"synthetic/T1ce_{name}.json").read_text()) for name in PROMPTS}
    assert records["no_prompt"]["prompt"] is None
    given, sham = (records[name]["prompt"] for name in ("given_prompt", "sham_prompt"))
    assert (given["name"], sham["name"]) == ("region.nii.gz", "sham region")
    assert 0.8 * given["voxels_on_model_grid"] <= sham["voxels_on_model_grid"] <= given["voxels_on_model_grid"]
    assert len({json.dumps(record["inputs"]) for record in records.values()}) == 1
    volumes = [read_volume(finished[0] / f"synthetic/T1ce_{name}.nii.gz", "T1ce") for name in PROMPTS]
    assert all(volume.synthetic for volume in volumes)
    assert len({volume.array.tobytes() for volume in volumes}) == 3


def test_the_acquired_images_are_not_called_synthetic(finished):
    for name in ("T1", "T2", "T1ce"):
        assert not read_volume(finished[0] / f"patient/{name}.nii.gz", name).synthetic


def patient_of(seed, spacing_mm=SPACING_MM):
    subject = build_subject(seed, spacing_mm=spacing_mm, lesion_count=1)
    return subject.label_volume(), render_subject(subject, (Modality.T1,))[Modality.T1]


@pytest.mark.parametrize("seed", [DEMO_SEED, 5, 11])
def test_the_sham_region_lies_in_tissue_and_off_the_lesion(seed):
    region, t1 = patient_of(seed)
    sham = sham_label_map(region, t1)
    placed = resample(sham.array, sham.geometry, region.geometry, order=0) > 0
    assert np.count_nonzero(placed) == np.count_nonzero(sham.array)
    assert np.count_nonzero(placed) >= 0.8 * np.count_nonzero(region.array) > 0
    assert not (placed & (region.array > 0)).any()
    assert foreground_mask(t1.array, Modality.T1)[placed].all()
    assert sham.modality is Modality.LABEL
    assert set(np.unique(sham.array)) <= {0, 1, 2}
    assert 1 in sham.array


def test_the_place_of_the_sham_region_depends_on_the_seed_only_not_on_the_axis_order():
    region, t1 = patient_of(DEMO_SEED)
    order = AxisOrder((2, 0, 1), (True, False, True))
    turned = [
        Volume(order.apply_to_array(v.array), order.apply_to_geometry(v.geometry), v.modality) for v in (region, t1)
    ]
    first, second, other = sham_label_map(region, t1), sham_label_map(*turned), sham_label_map(region, t1, seed=1)
    assert np.array_equal(first.array, second.array)
    assert np.array_equal(first.array, sham_label_map(region, t1).array)
    assert not np.array_equal(first.array, other.array)


def test_the_command_without_a_model_says_so_and_writes_nothing(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--model", str(tmp_path / "none")]) == 3
    assert "MX-MOD-010" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_a_folder_that_cannot_be_written(tmp_path, tiny_package, capsys):
    (tmp_path / "file").write_text("x")
    assert main(["demo", "--out", str(tmp_path / "file"), "--model", str(tiny_package)]) == 4
    assert "MX-FIL-011" in capsys.readouterr().err


def test_the_command_passes_its_options_on_and_says_where_the_report_is(tmp_path, monkeypatch, capsys):
    def quick_demo(folder, model_name, device):
        assert (folder, model_name, device) == (tmp_path / "demo", "mine", "cpu")
        yield Step("synthetic T1ce, sham region", folder / "x.nii.gz")
        yield Step("report", folder / "report.html")

    monkeypatch.setattr("MedXlateCore.demo.run_demo", quick_demo)
    assert main(["demo", "--out", str(tmp_path / "demo"), "--model", "mine", "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert captured.out == (
        f"Open {tmp_path / 'demo' / 'report.html'} in a browser. "
        "Synthetic images: research use only, not for diagnosis.\n"
    )
    assert "synthetic T1ce, sham region" in captured.err
