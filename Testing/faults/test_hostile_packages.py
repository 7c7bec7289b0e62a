"""Hostile and damaged model packages: each is refused with its code, runs nothing and takes no memory to speak of.

Every case starts from a sound package and spoils one thing, keeping hashes right where an attacker would. A canary file
would come into being if anything in a package were executed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from MedXlateCore.config import to_mapping
from MedXlateCore.errors import MedXlateError
from MedXlateCore.models.card import ModelCard
from MedXlateCore.models.package import load_package, save_package
from MedXlateCore.models.tlp import TlpConfig, TlpNetwork

CONFIG = TlpConfig(dim=8, inputs=1, levels=1)
CARD = ModelCard(
    name="victim",
    version="1.0.0",
    method="tlp",
    config=to_mapping(CONFIG),
    sources=("T1",),
    targets=("T1ce",),
    prompts="region",
    grid={},
    normalisers={"T1": {"kind": "minmax"}},
    output={"T1ce": {"kind": "relative", "low": 0.0, "high": 1.0}},
)


class Package:
    """A sound package to be spoiled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "model"
        self.canary = folder / "canary"

    @property
    def card(self) -> dict:
        return json.loads((self.folder / "model.json").read_text())

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return safetensors.torch.load(self.weights.read_bytes())

    @property
    def command(self) -> str:
        return f"__import__('pathlib').Path({str(self.canary)!r}).touch()"

    def write_text(self, text: str | bytes) -> None:
        data = text if isinstance(text, bytes) else text.encode()
        (self.folder / "model.json").write_bytes(data)

    def store(self, card: dict) -> None:
        """Write the card with a fitting hash of its contents, as an attacker would."""
        contents = {key: value for key, value in card.items() if key != "card_sha256"}
        text = json.dumps(contents, sort_keys=True, separators=(",", ":"))
        self.write_text(json.dumps({**contents, "card_sha256": hashlib.sha256(text.encode()).hexdigest()}))

    def edit(self, **changes: object) -> None:
        self.store({**self.card, **changes})

    def edit_config(self, **changes: object) -> None:
        """Change the configuration and bring the card's own architecture hash up to date, as an attacker would."""
        card = self.card
        card["config"].update(changes)
        keys = ("method", "config", "sources", "optional_sources", "targets", "prompts")
        meaning = json.dumps({key: card[key] for key in keys}, sort_keys=True, separators=(",", ":"))
        card["spec_sha256"] = hashlib.sha256(meaning.encode()).hexdigest()
        self.store(card)

    def replace_weights(self, data: bytes, name: str = "model.safetensors") -> None:
        """Put other bytes in the weights' place, with a fitting hash in the card."""
        (self.folder / name).write_bytes(data)
        self.edit(weights={"file": name, "sha256": hashlib.sha256(data).hexdigest()})

    def replace_tensors(self, tensors: dict[str, torch.Tensor], spec: str | None = None) -> None:
        metadata = {"spec_sha256": spec or self.card["spec_sha256"]}
        self.replace_weights(safetensors.torch.save(tensors, metadata=metadata))

    def replace_header(self, change) -> None:
        """Rewrite the weights' header and leave the data as they are."""
        data = self.weights.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        self.replace_weights(len(text).to_bytes(8, "little") + text + data[8 + length :])

    def payload(self) -> bytes:
        """Return a pickle that makes the canary when it is loaded."""

        class Bomb:
            def __reduce__(self_):
                return eval, (self.command,)

        return pickle.dumps(Bomb())

    def torch_payload(self) -> bytes:
        class Bomb:
            def __reduce__(self_):
                return eval, (self.command,)

        stream = io.BytesIO()
        torch.save({"state_dict": Bomb()}, stream)
        return stream.getvalue()


def name_weights(name):
    return lambda p: p.edit(weights={**p.card["weights"], "file": name})


def link_out(p, name):
    outside = p.folder.parent / f"outside-{name}"
    (p.folder / name).rename(outside)
    (p.folder / name).symlink_to(outside)


def weights_as_folder(p):
    p.weights.unlink()
    p.weights.mkdir()


def weights_as_pipe(p):
    p.weights.unlink()
    os.mkfifo(p.weights)


def zip_slip(p):
    """A zip archive whose entries would land outside the package if anybody unpacked it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("../canary", str(p.canary), "..\\canary"):
            archive.writestr(name, p.command)
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "..")
    return stream.getvalue()


def huge_weights(p):
    with p.weights.open("r+b") as stream:
        stream.truncate(200 * 2**30)  # sparse: takes no room on the disk


def flip_a_bit(p):
    data = bytearray(p.weights.read_bytes())
    data[-100] ^= 1
    p.weights.write_bytes(bytes(data))


def set_value(p, value):
    tensors = p.tensors
    tensors["output.weight"][0, 0, 0, 0] = value
    p.replace_tensors(tensors)


def without(p, key):
    p.replace_tensors({k: v for k, v in p.tensors.items() if k != key})


def with_tensor(p, key, tensor):
    p.replace_tensors({**p.tensors, key: tensor})


def claim_shape(p, shape):
    p.replace_header(lambda header: header["output.weight"].update(shape=shape))


def overlap(p):
    def change(header):
        keys = [key for key in header if key != "__metadata__"]
        first = next(k for k in keys if k.endswith("norm1.weight"))
        second = next(k for k in keys if k.endswith("norm1.bias"))
        header[first]["data_offsets"] = header[second]["data_offsets"]

    p.replace_header(change)


def other_weights(p):
    """The weights of another architecture with the very same names and shapes."""
    card = dataclasses.replace(CARD, config={**CARD.config, "prompt_encoding": "binary"})
    p.replace_tensors(p.tensors, spec=card.architecture_sha256())


def deep(p):
    p.write_text('{"training":' + "[" * 100_000 + "]" * 100_000 + "}")


def duplicate(p):
    text = (p.folder / "model.json").read_text()
    p.write_text(text.replace('"name": "victim"', '"name": "victim", "name": "other"'))


def many(p):
    p.edit(training={str(n): n for n in range(60_000)})


def drop(p, key):
    card = p.card
    del card[key]
    p.store(card)


def raw(p, old, new):
    text = (p.folder / "model.json").read_text()
    assert old in text
    p.write_text(text.replace(old, new))


HOSTILE = {
    # a pickle where weights should be
    "pickle as weights": (lambda p: p.replace_weights(p.payload()), "MX-MOD-016"),
    "torch checkpoint as weights": (lambda p: p.replace_weights(p.torch_payload()), "MX-MOD-016"),
    "pickle under its own name": (lambda p: p.replace_weights(p.payload(), "model.pkl"), "MX-MOD-014"),
    "checkpoint under its own name": (lambda p: p.replace_weights(p.torch_payload(), "model.pth"), "MX-MOD-014"),
    "pickle as card": (lambda p: p.write_text(p.payload()), "MX-MOD-011"),
    "zip archive as weights": (lambda p: p.replace_weights(zip_slip(p)), "MX-MOD-016"),
    "zip archive under its own name": (lambda p: p.replace_weights(zip_slip(p), "model.zip"), "MX-MOD-014"),
    "zip archive as card": (lambda p: p.write_text(zip_slip(p)), "MX-MOD-011"),
    # paths that leave the package
    "weights above the package": (name_weights("../model.safetensors"), "MX-MOD-014"),
    "weights at an absolute path": (name_weights("/etc/model.safetensors"), "MX-MOD-014"),
    "weights in a subfolder": (name_weights("a/model.safetensors"), "MX-MOD-014"),
    "weights above, Windows": (name_weights("..\\model.safetensors"), "MX-MOD-014"),
    "weights on another drive": (name_weights("C:model.safetensors"), "MX-MOD-014"),
    "weights on the network": (name_weights("https://example.org/model.safetensors"), "MX-MOD-014"),
    "weights in the home folder": (name_weights("~/model.safetensors"), "MX-MOD-014"),
    "weights with a NUL": (name_weights("model\0.safetensors"), "MX-MOD-012"),
    "weights hidden": (name_weights(".model.safetensors"), "MX-MOD-014"),
    "weights without a name": (name_weights(""), "MX-MOD-014"),
    "weights link out": (lambda p: link_out(p, "model.safetensors"), "MX-MOD-014"),
    "card links out": (lambda p: link_out(p, "model.json"), "MX-MOD-014"),
    # files that are no files
    "weights missing": (lambda p: p.weights.unlink(), "MX-FIL-001"),
    "weights are a folder": (weights_as_folder, "MX-FIL-002"),
    "weights are a pipe": (weights_as_pipe, "MX-FIL-002"),
    "weights empty": (lambda p: p.weights.write_bytes(b""), "MX-FIL-003"),
    "weights of 200 GiB": (huge_weights, "MX-MOD-020"),
    # damaged or exchanged weights
    "one bit flipped": (flip_a_bit, "MX-MOD-015"),
    "wrong hash": (lambda p: p.edit(weights={**p.card["weights"], "sha256": "0" * 64}), "MX-MOD-015"),
    "no hash": (lambda p: p.edit(weights={"file": "model.safetensors", "sha256": ""}), "MX-MOD-012"),
    "truncated": (lambda p: p.replace_weights(p.weights.read_bytes()[:-50]), "MX-MOD-016"),
    "header only": (lambda p: p.replace_weights((2).to_bytes(8, "little") + b"{}"), "MX-MOD-017"),
    "header of 2^63 bytes": (lambda p: p.replace_weights(b"\xff" * 7 + b"\x7f" + b"{}"), "MX-MOD-016"),
    "header not JSON": (lambda p: p.replace_weights((4).to_bytes(8, "little") + b"{{{{" + b"0" * 64), "MX-MOD-016"),
    "header nested": (lambda p: p.replace_weights((9000).to_bytes(8, "little") + b"[" * 9000), "MX-MOD-016"),
    "weights of another architecture": (other_weights, "MX-MOD-017"),
    "architecture hash exchanged": (lambda p: p.edit(spec_sha256="1" * 64), "MX-MOD-017"),
    "a tensor missing": (lambda p: without(p, "output.weight"), "MX-MOD-018"),
    "a tensor too many": (lambda p: with_tensor(p, "extra", torch.zeros(1)), "MX-MOD-018"),
    "a tensor of another shape": (lambda p: with_tensor(p, "output.weight", torch.zeros(1, 16, 1, 1)), "MX-MOD-018"),
    "whole numbers as weights": (
        lambda p: with_tensor(p, "output.weight", torch.zeros(1, 16, 3, 3, dtype=torch.int64)),
        "MX-MOD-018",
    ),
    "a shape of 2^40 in the header": (lambda p: claim_shape(p, [2**40]), "MX-MOD-018"),
    "a shape of texts in the header": (lambda p: claim_shape(p, ["1", "16", "3", "3"]), "MX-MOD-018"),
    "overlapping tensors": (overlap, "MX-MOD-016"),
    "NaN in the weights": (lambda p: set_value(p, float("nan")), "MX-MOD-019"),
    "infinity in the weights": (lambda p: set_value(p, float("inf")), "MX-MOD-019"),
    # code and absurdities in the configuration
    "code as a choice": (lambda p: p.edit_config(ffn=p.command), "MX-MOD-013"),
    "code as a number": (lambda p: p.edit_config(dim=p.command), "MX-MOD-013"),
    "code as the method": (lambda p: p.edit(method=p.command), "MX-MOD-013"),
    "a module as the method": (lambda p: p.edit(method="importer"), "MX-MOD-013"),
    "a path as the method": (lambda p: p.edit(method="../../os"), "MX-MOD-013"),
    "a class to build": (lambda p: p.edit_config(_target_="os.system", args=[p.command]), "MX-MOD-013"),
    "a tagged object": (lambda p: p.edit(config={"py/object": "os.system"}), "MX-MOD-013"),
    "an expression": (lambda p: p.edit_config(dim="$" + p.command), "MX-MOD-013"),
    "another width": (lambda p: p.edit_config(dim=16), "MX-MOD-017"),
    "another number of sources": (lambda p: p.edit_config(inputs=2), "MX-MOD-013"),
    "a width of 2^40": (lambda p: p.edit_config(dim=2**40), "MX-MOD-013"),
    "a width below zero": (lambda p: p.edit_config(dim=-8), "MX-MOD-013"),
    "a width of 1e308": (lambda p: p.edit_config(dim=1e308), "MX-MOD-013"),
    "truth as a number": (lambda p: p.edit_config(levels=True), "MX-MOD-013"),
    "null as a number": (lambda p: p.edit_config(dim=None), "MX-MOD-013"),
    # a card that is not as it was saved
    "another scale of the output": (lambda p: raw(p, '"high": 1.0', '"high": 1.5'), "MX-MOD-022"),
    "another licence": (lambda p: raw(p, '"licence": "not stated"', '"licence": "CC0-1.0"'), "MX-MOD-022"),
    "another version": (lambda p: raw(p, '"version": "1.0.0"', '"version": "1.0.1"'), "MX-MOD-022"),
    "another file for the weights": (lambda p: raw(p, '"model.safetensors"', '"other.safetensors"'), "MX-MOD-022"),
    "no hash of the card": (lambda p: p.write_text(json.dumps({**p.card, "card_sha256": ""})), "MX-MOD-012"),
    # a card that is none
    "not JSON": (lambda p: p.write_text("{"), "MX-MOD-011"),
    "empty card": (lambda p: p.write_text(""), "MX-FIL-003"),
    "not UTF-8": (lambda p: p.write_text(b'{"name": "\xff"}'), "MX-MOD-011"),
    "UTF-16": (lambda p: p.write_text((p.folder / "model.json").read_text().encode("utf-16")), "MX-MOD-011"),
    "deep nesting": (deep, "MX-MOD-011"),
    "nesting beyond the limit": (lambda p: p.edit(training={"a": json.loads("[" * 40 + "]" * 40)}), "MX-MOD-012"),
    "duplicate keys": (duplicate, "MX-MOD-011"),
    "NaN in the card": (lambda p: raw(p, '"high": 1.0', '"high": NaN'), "MX-MOD-011"),
    "infinity by overflow": (lambda p: raw(p, '"high": 1.0', '"high": 1e999'), "MX-MOD-012"),
    "a number of 5000 digits": (lambda p: raw(p, '"format": 1', '"format": ' + "9" * 5000), "MX-MOD-011"),
    "a card of 2 MiB": (lambda p: p.edit(licence="x" * 2**21), "MX-FIL-008"),
    "a text of 100 kB": (lambda p: p.edit(licence="x" * 100_000), "MX-MOD-012"),
    "60,000 values": (many, "MX-MOD-012"),
    "a list as the card": (lambda p: p.write_text("[]"), "MX-MOD-012"),
    "null as the card": (lambda p: p.write_text("null"), "MX-MOD-012"),
    "a newer layout": (lambda p: p.edit(format=2), "MX-MOD-012"),
    "no layout": (lambda p: drop(p, "format"), "MX-MOD-012"),
    "an unknown field": (lambda p: p.edit(entry_point="run.py"), "MX-MOD-012"),
    "a missing field": (lambda p: drop(p, "sources"), "MX-MOD-012"),
    "no weights entry": (lambda p: drop(p, "weights"), "MX-MOD-012"),
    "a text for a list": (lambda p: p.edit(sources="T1"), "MX-MOD-012"),
    "a table for a text": (lambda p: p.edit(name={"a": 1}), "MX-MOD-012"),
    "a number for a table": (lambda p: p.edit(grid=1), "MX-MOD-012"),
    "terminal commands": (lambda p: p.edit(licence="\x1b]0;owned\x07"), "MX-MOD-012"),
    "reversed text": (lambda p: p.edit(intended_use="not \u202e for"), "MX-MOD-012"),
    "half a character": (lambda p: p.edit(citation="\ud800"), "MX-MOD-012"),
    "a grid of 10^12 voxels": (
        lambda p: p.edit(grid={"crop": {"kind": "fixed", "size": [10**4, 10**4, 10**4]}}),
        "MX-MOD-012",
    ),
    "a multiple of 10^9": (lambda p: p.edit(grid={"size_multiple": [10**9, 1, 1]}), "MX-MOD-012"),
    "a margin of 10^9 mm": (lambda p: p.edit(grid={"crop": {"margin_mm": 1e9}}), "MX-MOD-012"),
}


@pytest.fixture(scope="module")
def sound_package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound") / "model"
    torch.manual_seed(0)
    save_package(folder, CARD, TlpNetwork(CONFIG))
    return folder


@pytest.fixture
def package(tmp_path, sound_package):
    shutil.copytree(sound_package, tmp_path / "model")
    return Package(tmp_path)


def test_the_package_to_be_spoiled_is_sound(package):
    assert load_package(package.folder).card.name == "victim"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_package_is_refused_and_runs_nothing(package, case):
    spoil, code = HOSTILE[case]
    spoil(package)
    with pytest.raises(MedXlateError) as caught:
        load_package(package.folder)
    assert caught.value.code == code, caught.value.as_text()
    assert not package.canary.exists()
    text = caught.value.as_text()
    assert len(text) < 4000
    assert "\x1b" not in text
    assert caught.value.fix


@pytest.mark.parametrize("case", [name for name in HOSTILE if "2^" in name or "10^" in name or "GiB" in name])
def test_absurd_sizes_take_no_memory(package, case):
    resource = pytest.importorskip("resource")  # not on Windows
    spoil, _ = HOSTILE[case]
    load_package(package.folder)  # once before, so that imports do not count
    spoil(package)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MedXlateError):
        load_package(package.folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB on Linux


def test_the_payloads_would_have_worked(package):
    pickle.loads(package.payload())
    assert package.canary.exists()
    package.canary.unlink()
    torch.load(io.BytesIO(package.torch_payload()), weights_only=False)
    assert package.canary.exists()


def test_other_files_in_the_folder_are_ignored(package):
    for name in ("__init__.py", "model.py", "setup.py", "conftest.py"):
        (package.folder / name).write_text(package.command)
    (package.folder / "model.pkl").write_bytes(package.payload())
    (package.folder / "__MACOSX").mkdir()
    load_package(package.folder)
    assert not package.canary.exists()


@pytest.mark.parametrize("name", ["model.zip", "model.tar", "model.mxp"])
def test_an_archive_in_place_of_a_folder_is_refused_and_nothing_is_unpacked(package, name):
    path = package.folder.parent / name
    path.write_bytes(zip_slip(package))
    with pytest.raises(MedXlateError) as caught:
        load_package(path)
    assert caught.value.code.startswith("MX-")
    assert {p.name for p in package.folder.parent.iterdir()} == {"model", name}


def test_a_link_within_the_package_is_fine(package):
    package.weights.rename(package.folder / "v1.safetensors")
    package.weights.symlink_to("v1.safetensors")
    load_package(package.folder)
