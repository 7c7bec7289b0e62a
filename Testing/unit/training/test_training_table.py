"""The table of cases: what is read, and what is refused before any volume is opened."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from training_cases import read_rows, write_table

from MedXlateCore.errors import MedXlateError
from MedXlateCore.training.config import DataTable
from MedXlateCore.training.table import read_table

DATA = DataTable(sources=("T1", "T2"), target="T1ce")


def table_of(cohort: Path, folder: Path, change=lambda rows: rows) -> DataTable:
    """Return data settings for a changed copy of the table, its files named by absolute path."""
    rows = read_rows(cohort)
    for row in rows:
        for column in ("T1", "T2", "T1ce", "seg"):
            row[column] = str(cohort.parent / row[column])
    path = write_table(folder / "cases.csv", change(rows) or rows)
    return dataclasses.replace(DATA, table=str(path))


def refused(data: DataTable) -> MedXlateError:
    with pytest.raises(MedXlateError) as caught:
        read_table(data)
    return caught.value


def test_cases_are_read_with_paths_from_the_tables_folder(cohort: Path):
    table = read_table(dataclasses.replace(DATA, table=str(cohort)))
    assert [row.case for row in table.rows] == list("abcdef")
    assert [row.case for row in table.split("val")] == ["d", "e"]
    first = table.rows[0]
    assert first.patient == "Pa"
    assert first.images["T1ce"] == cohort.parent / "a_T1ce.nii.gz"
    assert first.regions == cohort.parent / "a_seg.nii.gz"
    assert table.warnings == ()


def test_column_names_may_be_aliases_and_order_is_free(cohort: Path, tmp_path: Path):
    def rename(rows):
        return [
            {"t2w": r["T2"], "T1Gd": r["T1ce"], "t1n": r["T1"], "split": r["split"], "case": r["case"]} for r in rows
        ]

    table = read_table(table_of(cohort, tmp_path, rename))
    assert table.rows[0].images["T2"].name == "a_T2.nii.gz"
    assert table.rows[0].regions is None
    assert table.rows[0].patient == "a"


def test_a_patient_in_two_splits_is_refused(cohort: Path, tmp_path: Path):
    def leak(rows):
        rows[0]["patient"] = rows[3]["patient"]

    error = refused(table_of(cohort, tmp_path, leak))
    assert error.code == "MX-DAT-006"
    for word in ("Pd", "train", "val"):
        assert word in error.found


def test_a_patient_with_two_cases_in_one_split_is_fine(cohort: Path, tmp_path: Path):
    def join(rows):
        rows[0]["patient"] = rows[1]["patient"]

    assert len(read_table(table_of(cohort, tmp_path, join)).rows) == 6


def test_rows_can_be_chosen_by_a_column(cohort: Path, tmp_path: Path):
    def group(rows):
        return [{**row, "group": "even" if n % 2 == 0 else "odd"} for n, row in enumerate(rows)]

    data = table_of(cohort, tmp_path, group)
    assert [row.case for row in read_table(dataclasses.replace(data, where={"group": "even"})).rows] == list("ace")
    assert refused(dataclasses.replace(data, where={"gruop": "even"})).code == "MX-DAT-003"
    assert refused(dataclasses.replace(data, where={"group": "none such"})).code == "MX-DAT-009"


def test_a_case_without_target_is_left_out_and_recorded_or_refused(cohort: Path, tmp_path: Path):
    def empty(rows):
        rows[1]["T1ce"] = ""

    data = table_of(cohort, tmp_path, empty)
    table = read_table(data)
    assert [row.case for row in table.rows] == list("acdef")
    assert [warning.code for warning in table.warnings] == ["MX-DAT-008"]
    assert "'b' has no T1ce" in table.warnings[0].found
    error = refused(dataclasses.replace(data, missing="error"))
    assert (error.code, error.where.endswith("line 3")) == ("MX-DAT-008", True)


def test_a_case_without_annotation_is_used(cohort: Path, tmp_path: Path):
    def unannotated(rows):
        rows[0]["seg"] = ""

    assert read_table(table_of(cohort, tmp_path, unannotated)).rows[0].regions is None


@pytest.mark.parametrize("roi", ["seg", "lesions"])
def test_prompts_that_cannot_be_learned_are_noticed(cohort: Path, tmp_path: Path, roi: str):
    def unannotated(rows):
        for row in rows:
            row["seg"] = ""

    data = dataclasses.replace(table_of(cohort, tmp_path, unannotated), roi=roi)
    assert [warning.code for warning in read_table(data).warnings] == ["MX-DAT-012"]
    assert read_table(dataclasses.replace(data, roi=None)).warnings == ()


def change_cell(number: int, column: str, value: str):
    def change(rows):
        rows[number][column] = value

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (change_cell(2, "T1", "missing.nii.gz"), "MX-DAT-007"),
        (change_cell(2, "seg", "missing.nii.gz"), "MX-DAT-007"),
        (change_cell(1, "case", "a"), "MX-DAT-004"),
        (change_cell(1, "case", ""), "MX-DAT-004"),
        (change_cell(1, "split", "training"), "MX-DAT-005"),
        (lambda rows: [{k: v for k, v in row.items() if k != "split"} for row in rows], "MX-DAT-003"),
        (lambda rows: [{k: v for k, v in row.items() if k != "T2"} for row in rows], "MX-DAT-003"),
        (lambda rows: [{**row, "t1w": row["T1"]} for row in rows], "MX-DAT-003"),
        (lambda rows: [row for row in rows if row["split"] != "train"], "MX-DAT-009"),
    ],
)
def test_a_table_that_cannot_be_trained_on_is_refused(cohort: Path, tmp_path: Path, change, code: str):
    assert refused(table_of(cohort, tmp_path, change)).code == code


def test_without_validation_cases_a_warning_is_recorded(cohort: Path, tmp_path: Path):
    table = read_table(table_of(cohort, tmp_path, lambda rows: rows[:3]))
    assert [warning.code for warning in table.warnings] == ["MX-DAT-010"]


@pytest.mark.parametrize("content", [b"\n", b"\xff\xfe\x00", b"case,split,T1\na,train\n", b'case,"split\n'])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "cases.csv"
    path.write_bytes(content)
    assert refused(dataclasses.replace(DATA, table=str(path))).code == "MX-DAT-002"


def test_no_table_and_a_missing_table_are_refused(tmp_path: Path):
    assert refused(DATA).code == "MX-DAT-001"
    assert refused(dataclasses.replace(DATA, table=str(tmp_path / "none.csv"))).code == "MX-FIL-001"


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_a_table_with_other_separators_is_refused_by_their_name(tmp_path: Path, sign: str, name: str):
    path = tmp_path / "cases.csv"
    path.write_text(sign.join(("case", "split", "T1", "T2", "T1ce")) + "\n")
    with pytest.raises(MedXlateError, match="MX-DAT-002") as caught:
        read_table(dataclasses.replace(DATA, table=str(path)))
    assert f"separated by {name}" in caught.value.found
