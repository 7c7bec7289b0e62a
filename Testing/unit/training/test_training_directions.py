"""Trainings with several directions: batches, figures, the card, and translation by what is there."""

from __future__ import annotations

import csv
import json
from collections import Counter

import numpy as np
import pytest
import torch
from training_cases import StopAtCheck, config_for, read_rows, state_of, write_table

from MedXlateCore.errors import Cancelled, InputError, UsageError
from MedXlateCore.io import read_volume
from MedXlateCore.models.package import load_package
from MedXlateCore.pipeline import translate
from MedXlateCore.training.data import SliceData, prepare_data
from MedXlateCore.training.run import train

pytestmark = pytest.mark.xdist_group("directions")  # one worker: what they share is made once

MANY = (
    'data.directions=["T1->T2", "T2->T1", "T1->T1ce"]', "data.sources=[]", 'data.target=""', 'data.roi="none"',
    'model.method="medprompt"', "recipe={}", "training.ema_decay=0.0",
    'model.config={task_conditioning="embedding", dim=8, blocks=[1, 1, 1, 1], refinement_blocks=0}',
)  # fmt: skip


@pytest.fixture(scope="session")
def many(cohort, shared_cache):
    return lambda *overrides: config_for(cohort, f'data.cache="{shared_cache}"', *MANY, *overrides)


@pytest.fixture(scope="session")
def finished(many, tmp_path_factory):
    folder = tmp_path_factory.mktemp("directions") / "run"
    train(many("training.previews=1"), folder, quiet=True)
    return folder


@pytest.fixture(scope="session")
def volumes(cohort):
    row = next(row for row in read_rows(cohort) if row["case"] == "f")
    return {name: read_volume(cohort.parent / row[name], name) for name in ("T1", "T2", "T1ce")}


def test_every_batch_holds_one_direction_and_they_take_turns(many, shared_cache):
    config = many()
    data = SliceData(prepare_data(config, shared_cache).train)
    batches = [data.at_step(step, config) for step in range(12)]
    assert Counter(batch.direction for batch in batches) == {0: 4, 1: 4, 2: 4}
    for round_ in range(4):
        assert {batch.direction for batch in batches[3 * round_ : 3 * round_ + 3]} == {0, 1, 2}


def test_a_batch_shows_its_direction(many, shared_cache):
    config = many()
    prepared = prepare_data(config, shared_cache)
    data = SliceData(prepared.train)
    there, back = (data.batch([data.numbers_of(direction)[3]]) for direction in (0, 1))
    assert (there.direction, back.direction) == (0, 1)
    assert torch.equal(there.images, back.target)
    assert torch.equal(there.target, back.images)


def test_the_log_names_the_directions(finished):
    with (finished / "metrics.csv").open() as stream:
        names = {row["metric"] for row in csv.DictReader(stream) if row["split"] == "val"}
    assert {"T1->T2/none.psnr", "T2->T1/none.psnr", "T1->T1ce/none.psnr", "T1->T1ce/identity.psnr", "score"} <= names
    assert len(list((finished / "previews").glob("*.png"))) == 2 * 3  # validations times directions


def test_the_card_lists_the_directions(finished):
    card = load_package(finished / "model").card
    assert card.directions == ("T1->T2", "T2->T1", "T1->T1ce")
    assert (card.sources, card.targets) == (("T1", "T2"), ("T2", "T1", "T1ce"))
    assert sorted(card.output) == sorted(card.directions)
    assert card.sources_for("T1") == ("T2",)
    assert card.config["directions"] == list(card.directions)


def test_a_model_translates_each_of_its_directions(finished, volumes):
    model = load_package(finished / "model")
    made = {
        target: translate([volumes[source]], model, target=target, device="cpu").run()
        for source, target in (("T1", "T2"), ("T2", "T1"), ("T1", "T1ce"))
    }
    for target, volume in made.items():
        assert volume.modality.value == target
        assert volume.array.shape == volumes["T1"].array.shape
    assert not np.array_equal(made["T2"].array, made["T1ce"].array)


def test_without_its_source_a_direction_is_refused(finished, volumes):
    model = load_package(finished / "model")
    with pytest.raises(InputError, match="MX-IMG-030"):
        translate([volumes["T1"]], model, target="T1", device="cpu").run()
    with pytest.raises(UsageError, match="MX-MOD-091"):
        translate([volumes["T1"]], model, device="cpu")


def test_a_session_keeps_to_one_direction_bit_by_bit(finished, volumes):
    model = load_package(finished / "model")
    alone = translate([volumes["T1"]], model, target="T2", device="cpu").run()
    with_more = translate([volumes["T2"], volumes["T1"]], model, target="T2", reference="T1", device="cpu").run()
    assert np.array_equal(alone.array, with_more.array)


def test_an_interrupted_run_ends_like_one_that_was_not(many, finished, tmp_path):
    config = many("training.previews=1")
    with pytest.raises(Cancelled):
        train(config, tmp_path / "run", quiet=True, interruption=StopAtCheck(30))
    train(config, tmp_path / "run", resume=True, quiet=True)
    assert state_of(tmp_path / "run") == state_of(finished)


def test_a_case_that_lacks_a_modality_is_left_out_of_its_directions_only(many, cohort, shared_cache):
    rows = read_rows(cohort)
    rows[0]["T1ce"] = ""
    table = write_table(cohort.parent / "lacking.csv", rows)
    config = config_for(table, f'data.cache="{shared_cache}"', *MANY)
    data = prepare_data(config, shared_cache)
    assert Counter(case.direction for case in data.train) == {0: 3, 1: 3, 2: 2}
    assert [w.code for w in data.warnings if "T1ce" in w.found] == ["MX-DAT-008"]


def test_a_direction_nobody_has_data_for_is_refused(many, cohort, shared_cache):
    rows = [{**row, "T1ce": ""} for row in read_rows(cohort)]
    config = config_for(write_table(cohort.parent / "none.csv", rows), f'data.cache="{shared_cache}"', *MANY)
    with pytest.raises(InputError, match="MX-DAT-009"):
        prepare_data(config, shared_cache)


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ('data.target="T2"', "MX-USE-047"),
        ('data.directions=["T1->T2", "T1->T2"]', "MX-USE-047"),
        ('data.directions=["T1->T2", "T1->CT"]', "MX-USE-048"),
        ('data.directions=["T1"]', "MX-USE-050"),
        ('data.directions=["T1,T2->T1ce"]', "MX-TRN-013"),
        ('model.config={task_conditioning="none"}', "MX-TRN-014"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_anything_is_read(many, override, code):
    with pytest.raises(UsageError, match=code):
        many(override)


def test_a_method_for_one_direction_refuses_several(many):
    with pytest.raises(UsageError, match="MX-TRN-014"):
        many('model={method="tlp", preset="tiny", config={inputs=1}}')


def test_a_damaged_list_of_directions_in_a_card_is_refused(finished, tmp_path):
    facts = json.loads((finished / "model" / "model.json").read_text())
    for wrong in (["T1->T2"], ["T1->T2", "T2->T1", "T1->T9"], ["T1->T2"] * 3, ["T1", "T2", "T1ce"]):
        (tmp_path / "model.json").write_text(json.dumps({**facts, "directions": wrong}))
        with pytest.raises(InputError, match=r"MX-MOD-0(12|22)"):
            load_package(tmp_path)
