"""Many scans a patient: their table, what training draws of them, and runs through all stages."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_cases import StopAtCheck, read_rows, state_of, write_table

from MedXlateCore.config import parse_toml, set_value
from MedXlateCore.errors import Cancelled, InputError, UsageError
from MedXlateCore.io import write_volume
from MedXlateCore.models.dclip import tokens_of
from MedXlateCore.models.eva_i2i import known_domains
from MedXlateCore.models.package import load_package
from MedXlateCore.prompts.acquisition_text import parse
from MedXlateCore.training import scans as training_scans
from MedXlateCore.training.config import config_from_mapping, load_config
from MedXlateCore.training.run import train
from MedXlateCore.training.scan_table import read_scans
from MedXlateCore.training.scans import ScanData, prepare_scans
from MedXlateCore.transforms.planes import PLANES
from MedXlateCore.volume import Geometry, Modality, Volume

CONFIG = """
model = { method = "eva_i2i", preset = "tiny" }
recipe = { dclip_share = 0.33, init_share = 0.5, discriminator_widths = [8, 8, 8], discriminator_blocks = 1 }
data = { roi = "none" }
intensity = { T1 = { kind = "minmax" }, T1ce = { kind = "minmax" }, T2 = { kind = "minmax" }, CT = { kind = "minmax" } }

[grid]
size_multiple = [4, 4, 1]

[grid.crop]
kind = "none"

[training]
steps = 6
batch_size = 2
validate_every = 3
checkpoint_every = 1
log_every = 1
ema_decay = 0.9
accelerator = "cpu"
tensorboard = false
previews = 1
flip = true
"""
T1 = {"modality": "MR", "sequence": "T1", "organ": "brain", "contrast_agent": False, "echo_time_ms": 12.0}
T1CE = {**T1, "contrast_agent": True}
T2 = {"modality": "MR", "sequence": "T2", "organ": "brain", "repetition_time_ms": 4000.0}
CT = {"modality": "CT", "organ": "brain"}
SCANS = {"a": ("train", (T1, T2, CT)), "b": ("train", (T1CE, T2)), "c": ("val", (T2, T1, CT))}
LEVELS = {"T1": 600, "T2": 900, "CT": 1200}


def write_scans(folder):
    """Write scans of 20 x 24 x 16 voxels that differ by their level and their texture; return the table's rows."""
    shape, rows = (20, 24, 16), []
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    head = (i / 0.8) ** 2 + (j / 0.9) ** 2 + (k / 0.9) ** 2 < 1
    for number, (case, (split, scans)) in enumerate(SCANS.items()):
        rng = np.random.default_rng(number)
        for n, facts in enumerate(scans):
            level = LEVELS[facts.get("sequence", "CT")] * (1 + 0.5 * bool(facts.get("contrast_agent")))
            array = head * (level * (1 + 0.3 * np.cos((n + 2) * i) * np.sin(3 * j + k)) + rng.normal(0, 20, shape))
            geometry = Geometry(shape, np.diag([-1.5, -1.5, 1.5, 1.0]))
            path = folder / f"{case}_{n}.nii.gz"
            write_volume(Volume(array.astype(np.float32), geometry, Modality.OTHER), path)
            told = {"case": case, "patient": f"P{case}", "split": split, "image": path.name}
            rows.append({**told, "facts": json.dumps(facts), "held_out": ""})
    return rows


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    return write_table(folder / "scans.csv", write_scans(folder))


@pytest.fixture(scope="module")
def configure(table, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def make(*overrides, table=table):
        mapping = parse_toml(CONFIG.encode(), "test")
        for assignment in (f'data.table="{table}"', f'data.cache="{cache}"', *overrides):
            set_value(mapping, assignment)
        return config_from_mapping(mapping)

    return make


@pytest.fixture(scope="module")
def scans(configure, tmp_path_factory):
    config = configure()
    return config, prepare_scans(config, tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def finished(configure, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(configure(), folder, quiet=True)
    return folder


def changed_table(table, change):
    """Write the table again beside the first one, changed row by row."""
    rows = [change(dict(row)) for row in read_rows(table)]
    return write_table(table.parent / f"changed-{abs(hash(str(rows)))}.csv", rows)


def test_a_table_tells_directions_and_domains(configure):
    config = configure()
    pairs = ("T1->T2", "T2->T1", "T1->CT", "CT->T1", "T2->CT", "CT->T2", "T1ce->T2", "T2->T1ce")
    assert set(config.data.directions) == set(pairs)
    assert config.architecture().domains == (
        "CT image of the brain.",
        "T1-weighted MR image of the brain. Contrast-enhanced.",
        "T1-weighted MR image of the brain. Without contrast agent.",
        "T2-weighted MR image of the brain.",
    )  # fmt: skip
    assert config.architecture().directions == config.data.directions


def test_directions_that_are_given_stay(configure):
    config = configure('data.directions=["T1->T2"]')
    assert [str(direction) for direction in config.directions] == ["T1->T2"]


def test_presets_can_be_read_without_a_table():
    for name in ("eva_i2i-tiny", "eva_i2i-paper"):
        assert load_config(preset=name).directions == ()


def test_held_out_scans_are_not_there_for_training(table, configure):
    held = changed_table(table, lambda row: {**row, "held_out": "T1" if row["image"] == "a_0.nii.gz" else ""})
    rows = {row.case: row for row in read_scans(configure(table=held).data).rows}
    assert rows["a"].modalities == ("T2", "CT")
    assert rows["c"].modalities == ("T2", "T1", "CT")


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("facts", "{", "MX-DAT-016"),
        ("facts", "[1]", "MX-DAT-016"),
        ("facts", '{"sequence": "T1"}', "MX-DAT-016"),
        ("facts", '{"modality": "MR", "echo_time": 3}', "MX-DAT-016"),
        ("facts", '{"modality": "MR", "echo_time_ms": -3}', "MX-DAT-016"),
        ("split", "training", "MX-DAT-005"),
        ("case", "", "MX-DAT-004"),
        ("image", "nowhere.nii.gz", "MX-DAT-007"),
        ("patient", "Pc", "MX-DAT-006"),
        ("case", "c", "MX-DAT-006"),
    ],
)
def test_faults_of_the_table_are_refused(table, configure, column, value, code):
    wrong = changed_table(table, lambda row: {**row, column: value} if row["image"] == "a_1.nii.gz" else row)
    with pytest.raises(InputError, match=code):
        configure(table=wrong)


def test_a_missing_column_is_named(tmp_path, configure):
    path = tmp_path / "scans.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["case", "split", "image"], ["a", "train", "x.nii"]])
    with pytest.raises(UsageError, match="MX-DAT-003"):
        configure(table=path)


def test_a_training_needs_a_case_with_two_scans(table, configure):
    lonely = changed_table(table, lambda row: {**row, "case": row["image"], "patient": row["image"]})
    with pytest.raises(InputError, match="MX-DAT-009"):
        configure(table=lonely)


def test_source_and_target_show_one_place_of_one_patient(scans):
    config, data = scans
    examples = ScanData(data.scans, config, 4)
    assert examples.size == (24, 24)
    places = 0
    for step in range(12):
        batch = examples.at_step(step, config)
        assert batch.images.shape == batch.foregrounds.shape == (3, 2, 1, 24, 24)
        assert batch.tokens.shape[:2] == batch.domains.shape == (4, 2)
        assert torch.equal(batch.foregrounds[0], batch.foregrounds[1])  # all scans of a head have its outline
        assert (batch.images[0] - batch.images[1]).abs().max() > 0.01
        places += int((batch.foregrounds[0] != batch.foregrounds[2]).any())
    assert places > 6  # the intermediate is from elsewhere


def test_sentences_are_true_of_their_slices(scans, monkeypatch):
    config, data = scans
    examples, told = ScanData(data.scans, config, 4), []
    monkeypatch.setattr(training_scans, "tokens_of", lambda *given: told.append(given[0]) or tokens_of(*given))
    known, planes, lengths = list(known_domains(config.architecture()).values()), set(), set()
    for step in range(10):
        batch = examples.at_step(step, config)
        facts = [parse(text).facts for text in told[-1]]
        for fact, number in zip(facts, batch.domains.flatten().tolist(), strict=True):
            domain = known[number]
            assert (fact.modality, fact.sequence, fact.contrast_agent) == (
                domain.modality,
                domain.sequence,
                domain.contrast_agent,
            )
        assert all((fact.sequence, fact.organ) == ("T1", "brain") for fact in facts[6:])
        assert [facts[n].plane for n in (0, 1)] == [facts[n].plane for n in (2, 3)] == [facts[n].plane for n in (4, 5)]
        assert batch.positive.diagonal().all()
        assert batch.positive.dtype is torch.bool
        alike = torch.tensor([[f.sequence == g.sequence and f.plane == g.plane for g in facts[:6]] for f in facts[:6]])
        assert not (batch.positive & ~alike).any()
        assert batch.positive.shape == alike.shape
        planes |= {fact.plane for fact in facts}
        lengths |= {len(fact.known()) for fact in facts[:6]}
    assert planes == set(PLANES)
    assert len(lengths) > 2  # optional sentences come and go


def test_a_batch_is_a_function_of_seed_and_step(scans):
    config, data = scans
    first, again = (ScanData(data.scans, config, 4).at_step(5, config) for _ in range(2))
    other = ScanData(data.scans, config, 4).at_step(5, replace(config, training=replace(config.training, seed=1)))
    for name in ("images", "foregrounds", "tokens", "domains", "positive"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.images, other.images)


def test_every_scan_of_a_validation_case_is_made_once(scans):
    config, data = scans
    names = [str(direction) for direction in config.directions]
    assert sorted(names[pair.direction] for pair in data.val) == ["CT->T1", "T1->T2", "T2->CT"] or len(data.val) == 3
    for pair in data.val:
        source, target = names[pair.direction].split("->")
        assert set(pair.fitted) == {source, target}
        assert pair.images.shape == (*pair.shape[:1], 2, *pair.size)
        assert pair.masks.shape[1] == 3
        assert pair.target_facts.modality == ("CT" if target == "CT" else "MR")


def test_a_run_goes_through_all_stages_and_leaves_a_model(finished, configure):
    with (finished / "metrics.csv").open() as stream:
        named = {(int(row["step"]), row["metric"]) for row in csv.DictReader(stream)}
    assert {(1, "dclip"), (3, "rec"), (6, "adv")} <= named
    assert not {(3, "dclip"), (1, "rec"), (3, "adv")} & named
    assert any(metric.endswith("/none.mae") for _, metric in named)
    loaded = load_package(finished / "model")
    assert loaded.card.directions == configure().data.directions
    assert loaded.config.domains == configure().architecture().domains
    made = loaded.method.with_text(loaded.network, loaded.config, "T2 brain")
    assert made(torch.zeros(1, 1, 20, 24)).shape == (1, 1, 20, 24)


@pytest.mark.slow
def test_a_run_that_was_stopped_in_each_stage_ends_with_the_same_bits(finished, configure, tmp_path):
    config, folder = configure(), tmp_path / "run"
    for at in (5, 5, 6):  # three cases, then steps and passes of validations
        with pytest.raises(Cancelled):
            train(config, folder, quiet=True, resume=folder.exists(), interruption=StopAtCheck(at))
    train(config, folder, quiet=True, resume=True)
    assert state_of(folder) == state_of(finished)
