"""Model packages: saving, loading, replacing."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from MedXlateCore.errors import InputError, ResourceError, UsageError
from MedXlateCore.files import path_lock
from MedXlateCore.models.package import load_package, save_package
from MedXlateCore.models.tlp import TlpConfig, TlpNetwork


def test_a_package_is_a_card_and_weights(package):
    assert sorted(p.name for p in package.iterdir()) == ["model.json", "model.safetensors"]
    data = json.loads((package / "model.json").read_text())
    assert next(iter(data)) == "format"
    assert data["weights"]["file"] == "model.safetensors"
    assert len(data["spec_sha256"]) == 64


def test_the_saved_card_says_whether_the_method_draws_samples(tmp_path, drawing_package, make_card, make_network):
    assert load_package(drawing_package).card.draws_samples
    assert save_package(tmp_path / "none", make_card(draws_samples=True), make_network()).draws_samples is False


def test_saving_twice_gives_the_same_bytes(tmp_path, make_card, make_network):
    for name in ("a", "b"):
        save_package(tmp_path / name, make_card(), make_network())
    for file in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_loaded_network_is_on_the_cpu_in_evaluation_mode_and_can_be_trained_on(package, small_config):
    model = load_package(package)
    assert not model.network.training
    assert all(p.device.type == "cpu" and p.requires_grad for p in model.network.parameters())
    assert (model.card.name, model.method.name, model.config, model.path) == ("small", "tlp", small_config, package)
    output = model.network(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
    assert output.shape == (1, 1, 8, 8)


def test_a_package_can_be_named_by_its_card_file(package):
    assert load_package(str(package / "model.json")).card.name == "small"


def test_an_existing_package_is_not_replaced_unasked(package, make_card, make_network):
    before = (package / "model.json").read_bytes()
    with pytest.raises(UsageError, match="MX-MOD-021"):
        save_package(package, make_card(version="2.0.0"), make_network(1))
    assert (package / "model.json").read_bytes() == before


def test_a_replaced_package_leaves_nothing_of_the_old_one(package, make_card, make_network):
    (package / "notes.txt").write_text("mine")
    save_package(package, make_card(version="2.0.0"), make_network(1), overwrite=True)
    model = load_package(package)
    assert model.card.version == "2.0.0"
    assert torch.equal(model.network.output.weight, make_network(1).output.weight)
    assert len(list(package.glob("*.safetensors"))) == 1
    assert (package / "notes.txt").read_text() == "mine"


def test_replacing_a_package_by_itself_keeps_it_sound(package, make_card, make_network):
    for _ in range(3):
        save_package(package, make_card(), make_network(), overwrite=True)
        load_package(package)
    assert len(list(package.glob("*.safetensors"))) == 1


def test_a_failure_while_replacing_leaves_the_old_package_sound(package, monkeypatch, make_card, make_network):
    def fail(*_):
        raise ResourceError("MX-FIL-013", "there is no room left")

    monkeypatch.setattr("MedXlateCore.models.package.atomic_write_text", fail)
    with pytest.raises(ResourceError, match="MX-FIL-013"):
        save_package(package, make_card(version="2.0.0"), make_network(1), overwrite=True)
    monkeypatch.undo()
    assert load_package(package).card.version == "1.2.3"


def test_two_runs_do_not_write_one_package_at_once(package, monkeypatch, make_card, make_network):
    monkeypatch.setattr("MedXlateCore.models.package._LOCK_TIMEOUT_S", 0.1)
    with ThreadPoolExecutor(1) as other, path_lock(package / "model.json"):
        late = other.submit(save_package, package, make_card(version="2.0.0"), make_network(1), overwrite=True)
        with pytest.raises(ResourceError, match="MX-FIL-015"):
            late.result()
    assert load_package(package).card.version == "1.2.3"


def test_weights_that_are_not_finite_are_not_saved(tmp_path, make_card, make_network):
    network = make_network()
    network.output.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="MX-MOD-019") as caught:
        save_package(tmp_path / "p", make_card(), network)
    assert "output.weight" in caught.value.found
    assert not (tmp_path / "p").exists()


def test_a_network_that_the_card_does_not_describe_is_not_saved(tmp_path, make_card):
    with pytest.raises(InputError, match="MX-MOD-018"):
        save_package(tmp_path / "p", make_card(), TlpNetwork(TlpConfig(dim=16, inputs=1, levels=1)))
    assert not (tmp_path / "p").exists()


def test_half_precision_weights_load_as_floats(tmp_path, make_card, make_network):
    save_package(tmp_path / "p", make_card(), make_network().half())
    weight = load_package(tmp_path / "p").network.output.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, make_network().output.weight.half().float())


def test_a_card_for_more_sources_than_the_network_takes_is_refused(tmp_path, make_card, make_network):
    card = make_card(sources=("T1", "T2"), normalisers={m: {"kind": "minmax"} for m in ("T1", "T2")})
    with pytest.raises(InputError, match="MX-MOD-013"):
        save_package(tmp_path / "p", card, make_network())
