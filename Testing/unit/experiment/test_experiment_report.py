"""Tables and report: one value a patient, corrected tests, everything stated, pictures only where they may be."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from experiment_cases import Conducted, conduct, mapping_for
from PIL import Image

from MedXlateCore.experiment.config import Experiment, experiment_from_mapping
from MedXlateCore.experiment.measuring import compare, figures_of
from MedXlateCore.experiment.results import write_results
from MedXlateCore.experiment.tables import Row, holm, results_csv, summarise_rows
from MedXlateCore.metrics.protocols import get_protocol
from MedXlateCore.metrics.statistics import paired_test
from MedXlateCore.volume import Geometry, Modality, Volume

pytestmark = pytest.mark.xdist_group("report")  # one worker: what they share is made once

Tiny = Callable[..., Experiment]


def written(found: Conducted) -> Path:
    write_results(found.experiment, found.cohort, found.plan, found.outcomes, (), "medxlate experiment tiny.toml")
    return found.experiment.folder


@pytest.fixture(scope="module")
def folder(done: Conducted) -> Path:
    return written(done)


# --- figures -------------------------------------------------------------------------------------------------------


def test_holms_correction_is_the_textbooks():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def rows_of(figures: dict[str, dict[str, list[float | None]]], metric: str = "psnr") -> list[Row]:
    """Return rows from values by method, patient and seed."""
    return [
        Row(method, "T1->T2", seed, patient, metric, "foreground", value)
        for method, patients in figures.items()
        for patient, values in patients.items()
        for seed, value in enumerate(values)
    ]


def test_seeds_are_averaged_within_a_patient_first():
    entry = summarise_rows(rows_of({"A": {"p": [1.0, 3.0], "q": [4.0, None]}}), "wilcoxon")[0]
    assert entry.values == {"p": 2.0, "q": 4.0}
    assert (entry.summary.mean, entry.summary.count) == (3.0, 2)


@pytest.mark.parametrize(("metric", "against"), [("psnr", {"A": "C", "B": "C", "C": "B"}),
                                                 ("mae", {"A": "B", "B": "A", "C": "A"})])  # fmt: skip
def test_each_method_is_tested_against_the_best_other(metric: str, against: dict[str, str]):
    patients = "pqrstu"
    levels = {"A": 1.0, "B": 2.0, "C": 3.0}
    figures = {name: {p: [level + 0.1 * n * level] for n, p in enumerate(patients)} for name, level in levels.items()}
    entries = summarise_rows(rows_of(figures, metric), "wilcoxon")
    assert {e.method: e.comparison.other for e in entries if e.comparison} == against
    expected = paired_test([v[0] for v in figures["A"].values()], [v[0] for v in figures[against["A"]].values()])
    first = entries[0].comparison
    assert first is not None
    assert first.test == expected
    assert first.p_holm == pytest.approx(min(1.0, 3 * expected.p_value))


def test_only_patients_that_both_methods_have_enter_a_test():
    figures = {"A": {"p": [1.0], "q": [2.0], "r": [3.0]}, "B": {"p": [2.0], "q": [None], "r": [5.0]}}
    comparison = summarise_rows(rows_of(figures), "wilcoxon")[0].comparison
    assert comparison is not None
    assert comparison.test.count == 2


def test_results_have_one_line_a_method_direction_seed_patient_metric_and_region(folder: Path):
    lines = list(csv.DictReader((folder / "results.csv").open()))
    keys = [tuple(line[k] for k in ("method", "direction", "seed", "patient", "metric", "region")) for line in lines]
    assert len(set(keys)) == len(keys)
    assert {key[0] for key in keys} == {"identity", "mean image", "One by one", "All at once"}
    assert {key[2] for key in keys if key[0] == "One by one"} == {"0", "1"}
    assert {key[2] for key in keys if key[0] == "identity"} == {""}
    assert {key[3] for key in keys} == {"Pd", "Pe", "Pf"}
    assert {key[4] for key in keys} == {"mae", "psnr", "ssim"}
    assert {"foreground", "lesion", "healthy"} <= {key[5] for key in keys}


def test_figures_are_written_in_full_precision():
    row = Row("A", "T1->T2", 0, "p", "psnr", "foreground", 1 / 3)
    assert next(csv.DictReader(io.StringIO(results_csv([row]))))["value"] == repr(1 / 3)


def test_the_summary_says_what_each_method_took(folder: Path):
    lines = list(csv.DictReader((folder / "summary.csv").open()))
    first = next(line for line in lines if line["method"] == "All at once" and line["metric"] == "psnr")
    assert (first["patients"], first["parameters"], first["trainings"], first["training_steps"]) == (
        "3",
        "2",
        "2",
        "2.0",
    )
    assert first["protocol"] == "volume3d"
    assert first["compared_with"]
    assert float(first["low"]) <= float(first["mean"]) <= float(first["high"])


# --- the report ----------------------------------------------------------------------------------------------------


def test_the_report_states_everything(folder: Path):
    text = (folder / "report.md").read_text("utf-8")
    for words in (
        "research use only, not for diagnosis",
        "2 steps",
        "Protocol volume3d",
        "| T1->T2 | 2 (2) | 1 (1) | 3 (3) |",
        "medxlate experiment tiny.toml",
        "peak memory",
        "seconds a case",
        "after Holm",
        "bootstrap interval",
        "torch",
        "no prompt",
    ):
        assert words in text, words


def test_the_page_is_self_contained_and_has_the_same_tables(folder: Path):
    page = (folder / "report.html").read_text("utf-8")
    assert "research use only, not for diagnosis" in page
    assert page.count('<img src="data:image/png;base64,') == 2
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<table>") == (folder / "report.md").read_text("utf-8").count("| --- |\n") >= 5


def test_there_is_one_picture_a_direction(folder: Path):
    pictures = sorted(path.name for path in folder.glob("panel-*.png"))
    assert pictures == ["panel-1.png", "panel-2.png"]
    with Image.open(folder / "panel-1.png") as picture:
        assert picture.width > 600
        assert len(picture.getcolors(1 << 20) or []) > 50


def test_cases_are_shown_only_if_the_file_allows_it(tiny: Tiny):
    out = written(conduct(tiny("experiment.directions=['T1->T2']")))
    assert not list(out.rglob("*.png"))
    assert not list((out / "runs").rglob("*.nii.gz"))
    assert "<img" not in (out / "report.html").read_text("utf-8")


def test_published_figures_stand_beside_ours_under_their_own_heading(done: Conducted, tiny: Tiny):
    out = written(conduct(tiny("experiment.directions=['T1->T2']", "experiment.published=['medprompt-table3']")))
    text = (out / "report.md").read_text("utf-8")
    section, further = text.split("## T1->T2")[1].split("## Further published figures")
    assert "published, other data, other protocol" in section
    assert "| IXI T1→T2 | MedPrompt | 29.25 | .90 | 3.96 |" in section
    assert "IXI T2→T1" not in section
    assert "| IXI T2→T1 | MedPrompt | 29.93 | .92 | 3.73 |" in further


def test_what_failed_and_what_was_skipped_is_named_with_its_code(blobs: Path, tmp_path: Path):
    mapping = mapping_for(blobs, tmp_path / "out", "experiment.directions=['T1->T2']", "experiment.skip_unknown=true",
                          "experiment.seeds=[0, 1]")  # fmt: skip
    mapping["method"][0]["recipe"] = {"nan_at": 1}
    mapping["method"].append({"method": "no_such_method"})
    text = (written(conduct(experiment_from_mapping(mapping))) / "report.md").read_text("utf-8")
    faults = text.split("## What could not be done")[1].split("##")[0]
    assert "failed: One by one, T1->T2, seed 0: MX-TRN-007" in faults
    assert "skipped: no_such_method, T1->T2: MX-MOD-001" in faults


def test_a_report_names_no_folder_of_the_machine(own_blobs: Path, tiny: Tiny):
    own_blobs.with_name("e_T2.nii.gz").write_bytes(b"no image")
    out = written(conduct(tiny("experiment.directions=['T1->T2']", table=own_blobs)))
    for name in ("report.md", "report.html", "results.csv", "summary.csv"):
        assert str(own_blobs.parent.parent) not in (out / name).read_text("utf-8")


# --- measuring -----------------------------------------------------------------------------------------------------


def shifted_pair() -> tuple[Volume, Volume]:
    """Return a synthetic volume whose grid ends before the reference's, and the reference; the same where both are."""
    rng = np.random.default_rng(5)
    array = np.zeros((24, 24, 12), dtype=np.float32)
    array[4:20, 4:20, 1:11] = rng.uniform(100, 900, (16, 16, 10))
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    reference = Volume(array, Geometry(array.shape, affine), Modality.T2)
    moved = affine.copy()
    moved[2, 3] = 9.0  # three slices up
    return Volume(array[:, :, 3:].copy(), Geometry((24, 24, 9), moved), Modality.T2, synthetic=True), reference


def test_what_the_source_does_not_show_is_not_measured_and_said():
    synthetic, reference = shifted_pair()
    made = compare(synthetic, reference, get_protocol("volume3d"), None, {})
    assert made.result.metrics["mae"] == 0.0
    assert made.mask is not None
    assert not made.mask.array[:, :, :3].any()
    assert [(w.code, "20.0%" in w.found) for w in made.warnings if w.code == "MX-EXP-101"] == [("MX-EXP-101", True)]


def test_a_part_that_is_the_whole_lesion_is_not_told_twice():
    synthetic, reference = shifted_pair()
    labels = np.zeros(reference.array.shape, dtype=np.uint8)
    labels[8:12, 8:12, 5:8] = 1
    drawn = Volume(labels, reference.geometry, Modality.LABEL)
    made = compare(synthetic, reference, get_protocol("volume3d"), drawn, {"oedema": [], "core": [1]})
    assert list(figures_of(made.result)) == ["foreground", "lesion", "healthy"]
    assert "MX-MET-102" not in {warning.code for warning in made.warnings}
