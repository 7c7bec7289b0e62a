"""The gate: facts told from similarities, and roles that do not fit."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.config import to_mapping
from MedXlateCore.inference.gate import SURE, Gate, can_judge, doubts, role_check
from MedXlateCore.models.card import ModelCard
from MedXlateCore.models.dclip import DCLIP_PRESETS, Dclip
from MedXlateCore.models.eva_i2i import EvaI2I
from MedXlateCore.models.package import LoadedModel
from MedXlateCore.pipeline import Started, translate
from MedXlateCore.transforms.planes import PLANES
from MedXlateCore.volume import Geometry, Modality, Volume

METHOD = EvaI2I()
T1 = Acquisition(modality="MR", sequence="T1", organ="brain", contrast_agent=False)
T1_FAT = T1.with_facts(scan_options=("FS",))
T1CE = T1.with_facts(contrast_agent=True)
CT = Acquisition(modality="CT", organ="brain", contrast_agent=False)
KINDS = (T1, T1_FAT, T1CE, CT)


@pytest.fixture(scope="module")
def gate():
    torch.manual_seed(0)
    return Gate(Dclip(DCLIP_PRESETS["tiny"]).eval(), KINDS, wordings=2)


def cosines(gate, **likes):
    """Return cosines of one slice that is like some kinds, told by number of the kind and plane."""
    row = torch.full((1, len(gate.kinds)), -0.5)
    for name, value in likes.items():
        kind, plane = name.split("_")
        row[0, int(kind[1:]) * 3 + PLANES.index(plane)] = value
    return row


def test_kinds_are_all_domains_in_all_planes(gate):
    assert len(gate.kinds) == 12
    assert [facts.plane for facts in gate.kinds[:3]] == list(PLANES)
    assert set(gate.modalities) == {"T1", "T1ce", "CT"}


def test_the_kind_that_fits_best_tells_every_fact(gate):
    looks = gate.told(cosines(gate, k1_coronal=0.9))
    assert (looks.modality.value, looks.sequence.value, looks.plane.value) == ("T1", "T1", "coronal")
    assert looks.fat_suppressed.value is True
    assert looks.contrast_agent.value is False
    assert looks.facts == T1_FAT.with_facts(plane="coronal")
    assert looks.modality.probability > 0.99
    assert sum(looks.modality.probabilities.values()) == pytest.approx(1)


def test_probabilities_are_the_softmax_over_the_best_kind_of_each_value(gate):
    looks = gate.told(cosines(gate, k0_axial=0.5, k1_axial=0.4, k3_axial=0.43))
    expected = torch.tensor([0.5, -0.5, 0.43]).div(0.07).softmax(dim=0)
    assert looks.modality.probabilities["T1"] == pytest.approx(expected[0].item(), abs=1e-6)
    assert looks.modality.probabilities["CT"] == pytest.approx(expected[2].item(), abs=1e-6)


def test_slices_of_known_planes_tell_nothing_of_other_planes(gate):
    both = torch.cat((cosines(gate, k0_axial=0.3, k3_coronal=0.9), cosines(gate, k0_coronal=0.3, k3_axial=0.9)))
    looks = gate.told(both, ["axial", "coronal"])
    assert looks.modality.value == "T1"  # CT would fit better, but in the wrong planes
    assert looks.facts == T1
    assert gate.told(both).modality.value == "CT"


def test_slices_of_any_size_are_compared(gate):
    similarities = gate.similarities([np.zeros((30, 41), np.float32), np.ones((52, 20), np.float32)])
    assert similarities.shape == (2, 12)
    assert similarities.abs().max() <= 1 + 1e-5
    assert gate.classify([np.zeros((30, 41), np.float32)]).plane.value in PLANES


def test_slices_are_seen_in_the_middle_of_a_black_square_of_the_side_asked_for(gate):
    image = np.random.default_rng(0).uniform(-1, 1, (20, 16)).astype(np.float32)
    square = np.full((40, 40), -1.0, np.float32)
    square[10:30, 12:28] = image
    assert torch.allclose(gate.similarities([image], side=40), gate.similarities([square]), atol=1e-6)
    assert not torch.allclose(gate.similarities([image], side=40), gate.similarities([image]), atol=1e-3)


@pytest.fixture
def model():
    torch.manual_seed(0)
    domains = tuple(
        f"{text} of the brain. {agent}."
        for text, agent in (("T1-weighted MR image", "Without contrast agent"), ("CT image", "Without contrast agent"))
    )
    config = METHOD.config_type(
        **{**vars(METHOD.presets["tiny"]), "domains": domains, "directions": ("T1->CT", "CT->T1", "T1->T2")}
    )
    card = ModelCard(
        name="gate",
        version="1",
        method="eva_i2i",
        config=to_mapping(config),
        sources=("T1", "CT"),
        targets=("CT", "T1", "T2"),
        directions=config.directions,
        grid={"orientation": "LPS"},
        normalisers={
            "T1": {"kind": "percentile"},
            "T2": {"kind": "percentile"},
            "CT": {"kind": "window", "low": -1000, "high": 1000},
        },
        output={name: {"kind": "relative", "low": 0.0, "high": 1.0} for name in config.directions},
    )
    return LoadedModel(card, METHOD.build(config).eval(), METHOD, config, None)


def head(low=0.0):
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in (20, 24, 18)), indexing="ij")
    inside = i**2 + j**2 + k**2 < 0.7
    array = np.where(inside, 40 + 10 * np.cos(5 * i), low).astype(np.float32)
    return Volume(array, Geometry(array.shape, np.diag([2.0, 2.0, 2.0, 1.0])), Modality.OTHER)


class Told(Gate):
    """A gate that sees what it is told: T1 or CT, by the range of the slices."""

    def __init__(self, like):
        self.kinds = tuple(facts.with_facts(plane=plane) for facts in (T1, CT) for plane in PLANES)
        self.modalities = ("T1",) * 3 + ("CT",) * 3
        self.like, self.ranges = like, []

    def similarities(self, images, side=0):
        self.ranges.append((len(images), min(image.min() for image in images)))
        row = torch.tensor([0.8 if name == self.like else 0.3 for name in self.modalities])
        return row.expand(len(images), -1)


def test_another_role_than_it_looks_like_is_a_warning(model):
    check = role_check(head(), "CT", model, Told("T1"))
    assert not check.agrees
    assert check.looks.modality.value == "T1"
    assert check.looks.modality.probability > SURE
    assert [warning.code for warning in check.warnings] == ["MX-IMG-040"]
    assert "CT volume looks like T1" in check.warnings[0].found


def test_the_declared_role_is_no_warning_and_an_unknown_one_neither(model):
    assert role_check(head(), "T1", model, Told("T1")).warnings == ()
    check = role_check(head(), "T2", model, Told("CT"))
    assert (check.known, check.agrees, check.warnings) == (False, True, ())


def test_a_role_is_doubted_although_two_others_share_what_is_likely(model):
    class Undecided(Told):
        def __init__(self):
            super().__init__("T1")
            self.modalities = ("T1",) * 3 + ("CT",) * 3 + ("T1ce",) * 3
            self.kinds += tuple(T1CE.with_facts(plane=plane) for plane in PLANES)

        def similarities(self, images, side=0):
            row = torch.tensor([0.3 if name == "CT" else 0.8 for name in self.modalities])
            return row.expand(len(images), -1)

    model.card.normalisers["T1ce"] = {"kind": "percentile"}
    check = role_check(head(), "CT", model, Undecided())
    assert check.looks.modality.probability < SURE
    assert not check.agrees
    assert role_check(head(), "T1", model, Undecided()).agrees


def test_squares_are_those_of_the_training_or_hold_the_whole_volume(model):
    class Sides(Told):
        def similarities(self, images, side=0):
            self.side = side
            return super().similarities(images)

    gate = Sides("T1")
    role_check(head(), "T1", model, gate)
    assert gate.side == 24  # 48 mm at 2 mm
    model.card.training["slice_size"] = [60, 52]
    role_check(head(), "T1", model, gate)
    assert gate.side == 60


def test_every_kind_is_seen_under_its_own_normaliser(model):
    gate = Told("T1")
    role_check(head(low=-800.0), "T1", model, gate)
    (first, lowest), (second, windowed) = gate.ranges
    assert first == second == 15
    assert lowest == -1
    assert windowed == pytest.approx(-0.8)


def test_a_real_gate_gives_probabilities(model):
    check = role_check(head(), "T1", model)
    assert set(check.looks.modality.probabilities) == {"T1", "CT"}
    assert check.known


def test_a_translation_tells_of_a_role_that_does_not_fit(model, monkeypatch):
    monkeypatch.setitem(model.kept, "gate", Told("CT"))
    source = replace(head(), modality=Modality.T1)
    for asked in ({"target": "CT"}, {"target_text": "CT of the brain"}):
        translation = translate([source], model, device="cpu", **asked)
        next(event for event in translation if isinstance(event, Started))
        assert [warning.code for warning in translation.warnings] == ["MX-IMG-040"]


def test_the_sentences_are_read_once_a_model(model):
    doubts([replace(head(), modality=Modality.T1)], model)
    gate = model.kept["gate"]
    doubts([replace(head(), modality=Modality.CT)], model)
    assert model.kept["gate"] is gate
    assert replace(model, path=None).kept == {}  # another network may follow


def test_only_models_with_dclip_can_judge(model):
    assert can_judge(model)
    plain = SimpleNamespace(network=torch.nn.Identity())
    assert not can_judge(plain)
    assert doubts([head()], plain) == ()
