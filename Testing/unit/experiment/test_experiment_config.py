"""The experiment file: what is refused before anything runs, and what templates and published figures hold."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from experiment_cases import TEXT, mapping_for

from MedXlateCore.errors import MedXlateError
from MedXlateCore.experiment.config import Experiment, experiment_from_mapping, load_experiment
from MedXlateCore.experiment.plan import make_plan
from MedXlateCore.experiment.published import list_published, published_table
from MedXlateCore.experiment.templates import list_templates, template_text
from MedXlateCore.models.registry import list_methods

Tiny = Callable[..., Experiment]


def refused(call: Callable[[], object]) -> MedXlateError:
    with pytest.raises(MedXlateError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("budget.steps=0", "MX-EXP-001"),
        ("budget.minutes=2.0", "MX-EXP-001"),
        ("experiment.directions=[]", "MX-EXP-003"),
        ("experiment.directions=['T1->T2', 'T1 → T2w']", "MX-EXP-003"),
        ("experiment.seeds=[1, 1]", "MX-EXP-003"),
        ("experiment.seeds=[-1]", "MX-EXP-003"),
        ("experiment.directions=['T1']", "MX-USE-050"),
        ("experiment.published=['medprompt-table4']", "MX-EXP-008"),
        ("data.sources=['T1']", "MX-EXP-004"),
        ("training.seed=3", "MX-EXP-004"),
        ("training.minutes=3.0", "MX-EXP-004"),
        ("experiment.directions=['T1->FLAIR']", "MX-USE-048"),
        ("evaluation.protocol=volume4d", "MX-MET-001"),
        ("experiment.prompt=always", "MX-USE-042"),
        ("experiment.pictres=true", "MX-USE-040"),
    ],
)
def test_a_file_that_cannot_work_is_refused(tiny: Tiny, override: str, code: str):
    assert refused(lambda: tiny(override)).code == code


def test_an_unknown_key_names_the_nearest(tiny: Tiny):
    assert "'pictures'" in refused(lambda: tiny("experiment.pictres=true")).fix


def test_a_budget_must_be_given(blobs: Path, tmp_path: Path):
    mapping = mapping_for(blobs, tmp_path)
    del mapping["budget"]
    assert refused(lambda: experiment_from_mapping(mapping)).code == "MX-EXP-001"


@pytest.mark.parametrize("names", [("A", "a"), ("Identity", "b"), ("../up", "b"), ("", "single")])
def test_each_method_needs_a_name_of_its_own(blobs: Path, tmp_path: Path, names: tuple[str, str]):
    mapping = mapping_for(blobs, tmp_path)
    mapping["method"] = [{"method": "single", "name": name} for name in names]
    assert refused(lambda: experiment_from_mapping(mapping)).code == "MX-EXP-002"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"preset": "huge"}, "MX-MOD-003"),
        ({"config": {"inpts": 1}}, "MX-USE-040"),
        ({"recipe": {"nan": 1}}, "MX-USE-040"),
        ({"method": "sinlge"}, "MX-MOD-001"),
    ],
)
def test_a_method_that_does_not_exist_as_written_is_refused(blobs: Path, tmp_path: Path, changes: dict, code: str):
    mapping = mapping_for(blobs, tmp_path)
    mapping["method"][0] |= changes
    assert refused(lambda: make_plan(experiment_from_mapping(mapping))).code == code


def test_relative_paths_start_at_the_file(tmp_path: Path):
    text = TEXT.replace('name = "tiny"', 'name = "tiny"\noutput = "there"') + '\n[data]\ntable = "in/cases.csv"\n'
    (tmp_path / "my.toml").write_text(text)
    experiment = load_experiment(tmp_path / "my.toml")
    assert experiment.data.table == str(tmp_path / "in/cases.csv")
    assert experiment.folder == tmp_path / "there"


def test_the_output_lies_beside_the_file_by_default(tmp_path: Path):
    (tmp_path / "my.toml").write_text(TEXT)
    assert load_experiment(tmp_path / "my.toml").folder == tmp_path / "my-results"


def test_there_is_a_template_for_each_publication():
    names = {"medprompt-table3", "medprompt-ablation", "tlp-table1", "tlp-ablation", "aldm-table2", "eva-ablation"}
    assert set(list_templates()) == names


@pytest.mark.parametrize("name", list_templates())
def test_a_template_is_a_sound_experiment(name: str):
    experiment = experiment_from_mapping(tomllib.loads(template_text(name)), name)
    known = [entry for entry in experiment.method if entry.method in list_methods()]
    if len(known) < len(experiment.method) and not experiment.experiment.skip_unknown:
        assert refused(lambda: make_plan(experiment)).code == "MX-MOD-001"
    elif known:
        faults = [skip.error for skip in make_plan(experiment).skips if skip.error["code"] != "MX-MOD-001"]
        # a method that fuses sources cannot take one, a method for one source cannot take two
        assert {fault["where"] for fault in faults} <= {"inputs", "[model.config] and [data]"}


def test_a_wrong_template_names_the_nearest():
    error = refused(lambda: template_text("tlp-table2"))
    assert (error.code, "tlp-table1" in error.fix) == ("MX-EXP-009", True)


def test_published_figures_are_those_printed():
    rows = {(row.label, row.method): row.values for row in published_table("medprompt-table3").row}
    assert rows["MRI→CT", "MedPrompt"] == ("23.33", ".83", "10.63")
    assert rows["MRI→CT", "ResViT"] == ("22.98", ".79", "10.39")
    rows = {(row.label, row.method): row.values for row in published_table("tlp-table1").row}
    assert rows["T1,T2→T1ce", "TLP"] == ("30.22±3.45", ".909±.040", ".138")
    matrix = {row.label: row.values for row in published_table("aldm-table2").row}
    assert matrix["BraTS T2→FLAIR"] == ("25.07",)
    assert len(matrix) == 16 + 9


@pytest.mark.parametrize("name", list_published())
def test_a_published_table_has_a_figure_for_each_column(name: str):
    table = published_table(name)
    assert table.row
    assert {len(row.values) for row in table.row} == {len(table.columns)}
