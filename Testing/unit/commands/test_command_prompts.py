"""``medxlate prompts``: shares of the prompt components as a table and a picture."""

from __future__ import annotations

import csv
from xml.etree import ElementTree

import pytest
import torch
from tiny import make_tiny_card

from MedXlateCore.cli import main
from MedXlateCore.config import to_mapping
from MedXlateCore.models.medprompt import MedPromptConfig, MedPromptNetwork
from MedXlateCore.models.package import save_package

DIRECTIONS = ("T1->T2", "T2->T1", "T1->PD")
CONFIG = MedPromptConfig(
    dim=8, blocks=(1, 1, 1, 1), refinement_blocks=0, prompt_sizes=(4, 4, 4), components=3,
    task_conditioning="embedding", directions=DIRECTIONS,
)  # fmt: skip


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    torch.manual_seed(0)
    network = MedPromptNetwork(CONFIG)
    for block in network.prompts:
        block.extraction.tasks.data *= 200  # as different as trained ones
    minmax = {"kind": "minmax"}
    card = make_tiny_card(
        method="medprompt", config=to_mapping(CONFIG), sources=("T1", "T2"), targets=("T2", "T1", "PD"),
        directions=DIRECTIONS, prompts="none", grid={"orientation": "LPS", "size_multiple": [8, 8, 1]},
        normalisers=dict.fromkeys(("T1", "T2", "PD"), minmax),
        output={key: {"kind": "relative", "low": 0.0, "high": 1.0} for key in DIRECTIONS},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("package") / "many"
    save_package(folder, card, network)
    return folder


@pytest.fixture
def table(tmp_path, patient_files):
    t1, t2 = patient_files["T1"], patient_files["T2"]
    path = tmp_path / "cases.csv"
    path.write_text(f"case,split,T1,T2\na,test,{t1},{t2}\nb,train,{t1},\n")
    return path


def rows(folder):
    with (folder / "prompt_weights.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_every_direction_has_its_shares(package, table, tmp_path):
    assert main(["prompts", str(package), "--data", str(table), "--out", str(tmp_path / "out")]) == 0
    found = rows(tmp_path / "out")
    assert len(found) == len(DIRECTIONS) * 3 * 3
    for direction in DIRECTIONS:
        for block in "123":
            shares = [float(r["mean"]) for r in found if (r["direction"], r["block"]) == (direction, block)]
            assert sum(shares) == pytest.approx(1, abs=1e-5)
    slices = {row["direction"]: int(row["slices"]) for row in found}
    assert slices["T1->T2"] == 2 * slices["T2->T1"] > 0  # the second case has no T2
    first = {d: [r["mean"] for r in found if r["direction"] == d] for d in DIRECTIONS}
    assert first["T1->T2"] != first["T1->PD"]


def test_the_picture_names_every_direction_and_share(package, table, tmp_path):
    main(["prompts", str(package), "--data", str(table), "--split", "test", "--out", str(tmp_path / "out")])
    picture = ElementTree.parse(tmp_path / "out" / "prompt_weights.svg")
    texts = [element.text for element in picture.iter() if element.text]
    assert set(DIRECTIONS) <= set(texts)
    assert next(f"{float(row['mean']):.2f}" for row in rows(tmp_path / "out")) in texts


def test_a_model_without_prompt_components_is_refused(tiny_package, table, tmp_path, capsys):
    code = main(["prompts", str(tiny_package), "--data", str(table), "--out", str(tmp_path / "out")])
    assert code == 2
    assert "MX-MOD-094" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_case_at_all_is_refused(package, table, tmp_path, capsys):
    code = main(["prompts", str(package), "--data", str(table), "--split", "val", "--out", str(tmp_path / "out")])
    assert code == 3
    assert "MX-DAT-015" in capsys.readouterr().err
