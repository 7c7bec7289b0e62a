"""Methods for one source, some of them for several directions: whole runs, exact resuming, presets, cards."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from sample import sampled

from MedXlateCore.cli import main
from MedXlateCore.config import parse_toml, set_value
from MedXlateCore.errors import Cancelled
from MedXlateCore.io import read_volume
from MedXlateCore.models.registry import get_method, list_methods
from MedXlateCore.training.config import config_from_mapping, list_presets, load_config
from MedXlateCore.training.run import train

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from training_cases import CONFIG, StopAtCheck, state_of, write_cohort

METHODS = [
    name
    for name in list_methods()
    if not (method := get_method(name)).uses_regions
    and method.n_sources(method.presets["tiny"]) == 1
    and not method.many_scans  # they need another table: see test_training_scans.py
]
SEVERAL = [name for name in METHODS if hasattr(get_method(name).presets["tiny"], "directions")]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Return the table of the tiny cohort."""
    return write_cohort(tmp_path_factory.mktemp("cohort"))


def configuration(name, table):
    """Return a configuration of 4 steps that checkpoints every two, and takes all stages of a method that has some."""
    mapping = parse_toml(CONFIG.encode(), "tiny test configuration")
    shares = dict.fromkeys(("autoencoder_share", "spade_share", "diffusion_share"), 1.0) if name == "aldm" else {}
    mapping["model"], mapping["recipe"] = {"method": name, "preset": "tiny"}, shares
    mapping["data"] = {"directions": ["T1->T2", "T2->T1"]} if name in SEVERAL else {"sources": ["T1"], "target": "T2"}
    deep = ["grid.size_multiple=[1, 1, 16]"] if get_method(name).volumetric else []  # the cohort has 6 slices
    for assignment in (f'data.table="{table}"', "training.steps=4", "training.validate_every=2", *deep):
        set_value(mapping, assignment)
    return config_from_mapping(mapping)


@pytest.fixture(scope="module", params=sampled(METHODS))
def run(request, tmp_path_factory, table):
    """Return a method's name, its configuration and the folder of a run of four steps."""
    config, folder = configuration(request.param, table), tmp_path_factory.mktemp(request.param) / "run"
    train(config, folder, quiet=True)
    return request.param, config, folder


def test_an_interrupted_and_resumed_run_ends_with_the_same_bits(run, tmp_path):
    """Weights, optimisers and whatever else the recipe keeps between steps."""
    _, config, folder = run
    cases = 5 * len(config.directions)
    with pytest.raises(Cancelled):
        train(config, tmp_path / "run", quiet=True, interruption=StopAtCheck(cases + 3))
    train(config, tmp_path / "run", resume=True, quiet=True)
    assert state_of(tmp_path / "run") == state_of(folder)


def test_the_card_says_how_it_was_trained(run):
    name, _, folder = run
    card = json.loads((folder / "model/model.json").read_text())
    assert (card["method"], card["prompts"]) == (name, "none")
    assert card["training"]["unpaired"] == get_method(name).unpaired
    assert card["directions"] == (["T1->T2", "T2->T1"] if name in SEVERAL else [])


def test_it_translates(run, table, tmp_path):
    name, _, folder = run
    for source, target in (("T1", "T2"), ("T2", "T1"))[: 2 if name in SEVERAL else 1]:
        file, out = table.parent / f"d_{source}.nii.gz", tmp_path / f"{target}.nii.gz"
        words = ["translate", "--model", str(folder / "model"), "--source", f"{source}={file}", "--target", target]
        assert main([*words, "--device", "cpu", "--quiet", "--output", str(out)]) == 0
        assert read_volume(out, target).array.shape == read_volume(file, source).array.shape


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_presets(name):
    own = {preset for preset in list_presets() if preset.startswith(f"{name}-")}
    assert {f"{name}-{kind}" for kind in ("paper", "tiny")} <= own
    for preset in own:
        config = load_config(preset=preset, table=Path("cases.csv"))
        assert config.model.method == name
        assert all(len(direction.sources) == 1 for direction in config.directions)
