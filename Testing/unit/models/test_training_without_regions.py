"""Methods that take no prompt: trained, validated and exported as any other; a region is refused."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from sample import sampled

from MedXlateCore.cli import main
from MedXlateCore.config import parse_toml
from MedXlateCore.io import read_volume
from MedXlateCore.models.registry import get_method, list_methods
from MedXlateCore.training.config import list_presets, load_config, preset_text

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from training_cases import CONFIG, write_cohort

METHODS = [
    name
    for name in list_methods()
    if not (method := get_method(name)).uses_regions and method.n_sources(method.presets["tiny"]) == 2
]
SHORT = ["training.steps=2", "training.validate_every=1", "training.previews=1", "training.ema_decay=0.5"]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Return the table of three phantoms: two to train on, one to validate."""
    folder = tmp_path_factory.mktemp("phantoms")
    rows = list(csv.DictReader(write_cohort(folder).open()))
    return folder / "cases.csv", rows


@pytest.fixture(scope="module", params=sampled(METHODS))
def run(request, tmp_path_factory, phantoms):
    """Return a method's name and the folder of a run of two steps."""
    folder = tmp_path_factory.mktemp(request.param)
    text = CONFIG.replace('method = "tlp"', f'method = "{request.param}"').replace("config = { levels = 1 }", "")
    if get_method(request.param).volumetric:
        text = text.replace("[grid.crop]", "[grid]\nsize_multiple = [1, 1, 16]\n\n[grid.crop]")  # of 6 slices
    config = folder / "config.toml"
    config.write_text(text.replace(', preset = "tiny", ', ', preset = "tiny"'))
    settings = [word for setting in SHORT for word in ("--set", setting)]
    arguments = ["train", str(config), "--data", str(phantoms[0]), "--out", str(folder / "run"), *settings, "--quiet"]
    assert main(arguments) == 0
    return request.param, folder / "run"


def test_the_comparators_are_among_the_methods_without_regions():
    assert {"unet", "pix2pix", "resvit", "hinet", "mmgsn_net", "reggan"} <= set(METHODS)


def test_the_card_promises_no_prompt(run):
    name, folder = run
    card = json.loads((folder / "model/model.json").read_text())
    assert (card["method"], card["prompts"]) == (name, "none")


def test_validation_has_no_prompted_figures_but_the_lesions(run):
    with (run[1] / "metrics.csv").open() as stream:
        found = {row["metric"] for row in csv.DictReader(stream) if row["split"] == "val" and int(row["step"]) > 0}
    assert {"none.mae", "none.psnr", "none.lesion_mae", "score"} <= found
    assert not [name for name in found if name.startswith(("given", "sham"))]
    assert list((run[1] / "previews").glob("*.png"))


def test_it_translates_and_refuses_a_region(run, phantoms, tmp_path, capsys):
    table, rows = phantoms
    files = {key: table.parent / rows[0][key] for key in ("T1", "T2", "T1ce", "seg")}
    words = ["translate", "--model", str(run[1] / "model"), "--source", f"T1={files['T1']}", "--source"]
    words += [f"T2={files['T2']}", "--device", "cpu", "--quiet", "--output"]
    assert main([*words, str(tmp_path / "made.nii.gz")]) == 0
    assert read_volume(tmp_path / "made.nii.gz", "T1ce").array.shape == read_volume(files["T1"], "T1").array.shape
    capsys.readouterr()
    assert main([*words, str(tmp_path / "refused.nii.gz"), "--roi", str(files["seg"])]) == 2
    assert "MX-ROI-010" in capsys.readouterr().err
    assert not (tmp_path / "refused.nii.gz").exists()


def test_two_runs_are_the_same_to_the_bit(run, phantoms, tmp_path):
    text = (run[1] / "config.toml").read_text()
    assert parse_toml(text.encode(), "config.toml")["model"]["method"] == run[0]
    config = tmp_path / "config.toml"
    config.write_text(text)
    words = ["train", str(config), "--data", str(phantoms[0]), "--out", str(tmp_path / "run"), "--quiet"]
    assert main([*words, "--steps", "2"]) == 0
    hashes = [json.loads((f / "model/model.json").read_text())["weights"]["sha256"] for f in (run[1], tmp_path / "run")]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_without_regions_has_its_presets(name):
    own = [preset for preset in list_presets() if preset_method(preset) == name]
    assert {f"{name}-paper", f"{name}-tiny"} <= set(own)
    for preset in own:
        assert load_config(preset=preset, table=Path("cases.csv")).architecture().inputs == 2


def preset_method(preset: str) -> str:
    return parse_toml(preset_text(preset).encode(), preset)["model"]["method"]
