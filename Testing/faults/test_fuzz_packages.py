"""Damaged and hostile model packages by the thousand, next to the named ones of ``test_hostile_packages``.

Damage: refused with a code, or exactly the card and weights that were saved. Where the hashes are brought up to date,
as an attacker would, other values may load; then it is a sound network of the shape that the card describes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mutators import mutate, mutate_json, mutate_safetensors

from MedXlateCore.config import to_mapping
from MedXlateCore.errors import MedXlateError
from MedXlateCore.models import package as packages
from MedXlateCore.models.card import CARD_FILE, WEIGHTS_FILE, ModelCard
from MedXlateCore.models.package import LoadedModel, load_package, save_package
from MedXlateCore.models.tlp import TlpConfig, TlpNetwork

COUNT, LONG_COUNT = 1_500, 12_500
PARTS = {"card bytes": 0.4, "card values": 0.2, "hostile card": 0.15, "weights bytes": 0.1, "hostile weights": 0.15}


class Sound:
    """A small sound package and its files' bytes."""

    def __init__(self, folder: Path) -> None:
        config = TlpConfig(dim=8, inputs=1, levels=1)
        card = ModelCard(
            name="small",
            version="1.0.0",
            method="tlp",
            config=to_mapping(config),
            sources=("T1",),
            targets=("T1ce",),
            prompts="region",
            grid={"orientation": "LPS", "spacing_mm": [1.0, 1.0, None], "size_multiple": [2, 2, 1]},
            normalisers={"T1": {"kind": "percentile", "lower": 0.5, "upper": 99.5}},
            output={"T1ce": {"kind": "relative", "low": 0.0, "high": 1.1}},
            training={"cases": 12, "notes": ["phantom", None, True]},
            metrics={"psnr": {"mean": 30.1, "low": 29.0, "high": 31.0}},
        )
        torch.manual_seed(0)
        self.folder = folder
        save_package(folder, card, TlpNetwork(config))
        self.model = load_package(folder)
        self.weights = self.model.network.state_dict()
        self.files = {name: (folder / name).read_bytes() for name in (CARD_FILE, WEIGHTS_FILE)}
        self.card = json.loads(self.files[CARD_FILE])

    def write(self, name: str, data: bytes) -> None:
        """Put one file's bytes and restore the other file."""
        for other, whole in self.files.items():
            (self.folder / other).write_bytes(data if other == name else whole)

    def is_same(self, model: LoadedModel) -> bool:
        found = model.network.state_dict()
        return model.card == self.model.card and all(torch.equal(found[key], t) for key, t in self.weights.items())

    def is_of_the_same_kind(self, model: LoadedModel) -> bool:
        """Say whether names are those of the sound network and all values finite."""
        found = model.network.state_dict()
        return set(found) == set(self.weights) and all(bool(torch.isfinite(t).all()) for t in found.values())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    return Sound(tmp_path_factory.mktemp("fuzz") / "small")


@pytest.fixture(autouse=True)
def _built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember what a description leads to, so that it is not built again for each of thousands of equal ones."""
    known: dict[str, object] = {}
    original = packages._architecture

    def architecture(card: ModelCard, where: str) -> object:
        meaning = f"{card.architecture_sha256()} {card.sources} {card.method}"
        if meaning not in known:
            known[meaning] = original(card, where)
        return known[meaning]

    monkeypatch.setattr(packages, "_architecture", architecture)


def sealed(text: bytes) -> bytes:
    """Bring a card's own hash up to date where the text is JSON at all."""
    try:
        card = json.loads(text)
        contents = {key: value for key, value in card.items() if key != "card_sha256"}
        meaning = json.dumps(contents, sort_keys=True, separators=(",", ":"))
        return json.dumps({**contents, "card_sha256": hashlib.sha256(meaning.encode()).hexdigest()}).encode()
    except (ValueError, AttributeError, RecursionError):
        return text


def spoil_card_bytes(sound: Sound, seed: int) -> None:
    sound.write(CARD_FILE, mutate(sound.files[CARD_FILE], seed, sound.files[CARD_FILE][::-1])[1])


def spoil_card_values(sound: Sound, seed: int) -> None:
    sound.write(CARD_FILE, mutate_json(sound.card, seed))


def spoil_card_and_its_hash(sound: Sound, seed: int) -> None:
    sound.write(CARD_FILE, sealed(mutate_json(sound.card, seed)))


def spoil_weights_bytes(sound: Sound, seed: int) -> None:
    sound.write(WEIGHTS_FILE, mutate(sound.files[WEIGHTS_FILE], seed, sound.files[CARD_FILE])[1])


def spoil_weights_and_their_hash(sound: Sound, seed: int) -> None:
    data = mutate_safetensors(sound.files[WEIGHTS_FILE], seed)
    sound.write(WEIGHTS_FILE, data)
    facts = {"file": WEIGHTS_FILE, "sha256": hashlib.sha256(data).hexdigest()}
    (sound.folder / CARD_FILE).write_bytes(sealed(json.dumps({**sound.card, "weights": facts}).encode()))


SPOIL: dict[str, Callable[[Sound, int], None]] = {
    "card bytes": spoil_card_bytes,
    "card values": spoil_card_values,
    "hostile card": spoil_card_and_its_hash,
    "weights bytes": spoil_weights_bytes,
    "hostile weights": spoil_weights_and_their_hash,
}


def survey(sound: Sound, part: str, count: int) -> Counter[str]:
    """Load ``count`` spoilt packages; count errors by code, unchanged models and others. Other exceptions escape."""
    totals: Counter[str] = Counter()
    for seed in range(count):
        SPOIL[part](sound, seed)
        try:
            model = load_package(sound.folder)
        except MedXlateError as error:
            assert error.code.startswith("MX-"), f"seed {seed}"
            assert error.found and error.fix and len(error.as_text()) < 4000, f"seed {seed}"
            totals["refused"] += 1
            totals[error.code] += 1
            continue
        same = sound.is_same(model)
        assert same or sound.is_of_the_same_kind(model), f"seed {seed}"
        totals["unchanged" if same else "other"] += 1
    print(part, dict(totals))
    return totals


def check(sound: Sound, part: str, count: int) -> None:
    totals = survey(sound, part, count)
    assert totals["refused"] + totals["unchanged"] + totals["other"] == count
    assert totals["refused"] > 0.6 * count
    if not part.startswith("hostile"):
        assert totals["other"] == 0  # no silently altered weight, no silently altered card


@pytest.mark.parametrize("part", PARTS)
def test_of_1500_spoilt_packages_none_breaks_in_or_passes_for_another(sound: Sound, part: str) -> None:
    check(sound, part, round(PARTS[part] * COUNT))


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", PARTS)
def test_of_12500_spoilt_packages_none_breaks_in_or_passes_for_another(sound: Sound, part: str) -> None:
    check(sound, part, round(PARTS[part] * LONG_COUNT))


def different(values: Iterator[bytes]) -> int:
    return len(set(values))


def test_every_mutation_follows_from_its_seed_and_there_are_many(sound: Sound) -> None:
    weights = sound.files[WEIGHTS_FILE]
    for seed in range(30):
        assert mutate_json(sound.card, seed) == mutate_json(sound.card, seed)
        assert mutate_safetensors(weights, seed) == mutate_safetensors(weights, seed)
    assert different(mutate_json(sound.card, seed) for seed in range(300)) > 240
    assert different(mutate_safetensors(weights, seed) for seed in range(300)) > 240


def test_the_survey_notices_a_package_that_passes_for_another(sound: Sound, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the card's own hash altered values would load: the check above can fail."""
    from MedXlateCore.models import card

    monkeypatch.setattr(card, "_contents_sha256", lambda data: data.get("card_sha256"))
    assert survey(sound, "card values", 150)["other"] > 0
