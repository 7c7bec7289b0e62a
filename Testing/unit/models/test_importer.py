"""Published checkpoints become packages; everything else is refused and runs nothing."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from MedXlateCore.errors import InputError, MedXlateError, ResourceError, UsageError
from MedXlateCore.models import importer
from MedXlateCore.models.importer import import_weights, importable_methods
from MedXlateCore.models.package import load_package
from MedXlateCore.transforms.spatial import GridSpec, SpatialPlan
from MedXlateCore.volume import Geometry

GOLDEN = Path(__file__).parents[2] / "golden"


def golden(number):
    with np.load(GOLDEN / f"tlp_{number}_input_dim8.npz") as archive:
        return {key: torch.from_numpy(np.asarray(archive[key])) for key in archive.files}


def published(number="two"):
    """Return a state dictionary with published names, at base width 8."""
    return {k.removeprefix("weights/"): v for k, v in golden(number).items() if k.startswith("weights/")}


def save(obj, path, **options):
    torch.save(obj, path, **options)
    return path


WRAPPINGS = {
    "flat": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 80},
    "G": lambda s: {"G": s, "D": {"x": torch.zeros(1)}},
    "model": lambda s: {"model": s, "optimizer": {"lr": 1e-4}},
    "module prefix": lambda s: {f"module.{key}": value for key, value in s.items()},
    "wrapped twice, with prefix": lambda s: {"model": {"state_dict": {f"module.{k}": v for k, v in s.items()}}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_usual_wrapping_is_accepted(tmp_path, wrapping):
    file = save(WRAPPINGS[wrapping](published()), tmp_path / "G.pth")
    import_weights("tlp", file, tmp_path / "package")
    data = golden("two")
    images = torch.cat((data["x_a"], data["x_b"]), dim=1)
    with torch.no_grad():
        output = load_package(tmp_path / "package").network(images, data["prompt"])
    assert (output - data["y"]).abs().max() < 1e-5


def test_a_single_source_checkpoint_is_recognised(tmp_path):
    file = save(published("one"), tmp_path / "G.pth")
    card = import_weights("tlp", file, tmp_path / "package", sources=["T2"])
    assert (card.sources, card.targets, card.config["inputs"]) == (("T2",), ("T1ce",), 1)
    data = golden("one")
    with torch.no_grad():
        output = load_package(tmp_path / "package").network(data["x_a"], data["prompt"])
    assert (output - data["y"]).abs().max() < 1e-5


def test_the_card_says_what_is_known_and_what_is_assumed(tmp_path):
    file = save(published(), tmp_path / "G.pth")
    card = import_weights("tlp", file, tmp_path / "package")
    assert (card.sources, card.targets, card.prompts) == (("T1", "T2"), ("T1ce",), "region")
    assert card.name == "tlp-t1-t2-to-t1ce"
    assert card.config["dim"] == 8
    assert "assumed" in card.training["sources_and_target"]
    assert card.training["imported_from"] == "G.pth"
    assert len(card.training["imported_sha256"]) == 64
    assert "MIT" in card.licence
    assert card.metrics == {}
    named = import_weights(
        "tlp", file, tmp_path / "other", sources=("t1n", "t2w"), target="T1Gd", name="mine", licence="CC0-1.0"
    )
    assert (named.name, named.licence, named.sources) == ("mine", "CC0-1.0", ("T1", "T2"))
    assert "given" in named.training["sources_and_target"]


def test_the_authors_crop_comes_out_of_a_brats_grid(tmp_path):
    card = import_weights("tlp", save(published(), tmp_path / "G.pth"), tmp_path / "package")
    brats = Geometry(
        (240, 240, 155), np.diag([-1.0, -1.0, 1.0, 1.0]) + np.array([[0, 0, 0, 0], [0, 0, 0, 239], [0] * 4, [0] * 4])
    )
    plan = SpatialPlan.make(brats, GridSpec.from_dict(card.grid), [])
    assert plan.is_exact
    assert plan.grid.shape == (160, 192, 155)
    first = np.linalg.solve(brats.affine_ras, plan.grid.affine_ras @ [0, 0, 0, 1])
    assert np.allclose(first[:3], [40, 34, 0])


def pickled_code(path):
    class Bomb:
        def __reduce__(self):
            return eval, (f"__import__('pathlib').Path({str(path)!r}).touch()",)

    return Bomb()


def compressed(path):
    """Write the checkpoint with compressed parts, as a bomb would be."""
    stream = io.BytesIO()
    torch.save(published(), stream)
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))


def changed(**changes):
    state = published()
    for key, value in changes.items():
        state[key.replace("__", ".")] = value
    return state


def without(*keys):
    return {key: value for key, value in published().items() if key not in keys}


class TestRefusals:
    """What is no published checkpoint."""

    CASES = {
        "a text file": (lambda p: p.write_text("not a checkpoint"), "MX-MOD-030"),
        "an empty file": (lambda p: p.touch(), "MX-FIL-003"),
        "a zip of something else": (lambda p: zipfile.ZipFile(p, "w").close(), "MX-MOD-030"),
        "a truncated checkpoint": (
            lambda p: (save(published(), p), p.write_bytes(p.read_bytes()[:-5000])),
            "MX-MOD-030",
        ),
        "an old-style checkpoint": (lambda p: save(published(), p, _use_new_zipfile_serialization=False), "MX-MOD-030"),
        "compressed parts": (compressed, "MX-MOD-030"),
        "a whole module": (lambda p: save(torch.nn.Linear(2, 2), p), "MX-MOD-030"),
        "a tensor": (lambda p: save(torch.zeros(3), p), "MX-MOD-031"),
        "a list": (lambda p: save([torch.zeros(3)], p), "MX-MOD-031"),
        "an empty dictionary": (lambda p: save({}, p), "MX-MOD-031"),
        "numbers": (lambda p: save({"state_dict": {"a": 1.0}}, p), "MX-MOD-031"),
        "only an optimiser": (lambda p: save({"optimizer": {"a": torch.zeros(1)}}, p), "MX-MOD-031"),
        "another network": (lambda p: save(torch.nn.Linear(2, 2).state_dict(), p), "MX-MOD-033"),
        "a missing name": (lambda p: save(without("output.weight"), p), "MX-MOD-032"),
        "a name too many": (lambda p: save(changed(extra=torch.zeros(1)), p), "MX-MOD-032"),
        "another shape": (lambda p: save(changed(output__weight=torch.zeros(1, 16, 1, 1)), p), "MX-MOD-033"),
        "whole numbers": (lambda p: save(changed(output__weight=torch.zeros(1, 16, 3, 3, dtype=int)), p), "MX-MOD-033"),
        "an impossible width": (
            lambda p: save(changed(encoder_A__patch_embed__proj__weight=torch.zeros(7, 2, 3, 3)), p),
            "MX-MOD-033",
        ),
        "a width of 10,000": (
            lambda p: save(
                changed(encoder_A__patch_embed__proj__weight=torch.zeros(1, 2, 3, 3).expand(10_000, 2, 3, 3)), p
            ),
            "MX-MOD-033",
        ),
        "NaN": (lambda p: save(changed(output__weight=torch.full((1, 16, 3, 3), float("nan"))), p), "MX-MOD-019"),
    }

    @pytest.mark.parametrize("case", CASES)
    def test_a_file_that_is_no_published_checkpoint_is_refused(self, tmp_path, case):
        write, code = self.CASES[case]
        file = tmp_path / "G.pth"
        write(file)
        with pytest.raises(InputError) as caught:
            import_weights("tlp", file, tmp_path / "package")
        assert caught.value.code == code, caught.value.as_text()
        assert caught.value.fix
        assert not (tmp_path / "package").exists()

    @pytest.mark.parametrize("where", ["top", "value", "key", "beside the weights"])
    def test_code_in_a_checkpoint_is_refused_and_does_not_run(self, tmp_path, where):
        canary = tmp_path / "canary"
        bomb = pickled_code(canary)
        content = {
            "top": bomb,
            "value": {"state_dict": bomb},
            "key": {"state_dict": {"x": bomb}},
            "beside the weights": {"state_dict": published(), "note": bomb},
        }[where]
        with pytest.raises(InputError, match="MX-MOD-030"):
            import_weights("tlp", save(content, tmp_path / "G.pth"), tmp_path / "package")
        assert not canary.exists()
        assert not (tmp_path / "package").exists()

    def test_missing_and_extra_names_are_listed(self, tmp_path):
        state = without("output.weight", "up2_1.body.0.weight")
        state["surprise"] = torch.zeros(1)
        with pytest.raises(InputError, match="MX-MOD-032") as caught:
            import_weights("tlp", save(state, tmp_path / "G.pth"), tmp_path / "package")
        text = caught.value.as_text()
        assert "2 names are missing, 1 are left over" in text
        assert "output.weight" in text
        assert "surprise" in text

    def test_a_missing_file_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="MX-FIL-001"):
            import_weights("tlp", tmp_path / "none.pth", tmp_path / "package")

    def test_unknown_methods_and_methods_without_importer_are_refused(self, tmp_path, monkeypatch):
        with pytest.raises(UsageError, match="MX-MOD-001"):
            import_weights("nope", tmp_path / "G.pth", tmp_path / "package")
        monkeypatch.setattr(importer, "_FORMATS", {})
        with pytest.raises(UsageError, match="MX-MOD-035"):
            import_weights("tlp", tmp_path / "G.pth", tmp_path / "package")

    def test_a_wrong_number_of_sources_is_refused(self, tmp_path):
        file = save(published(), tmp_path / "G.pth")
        with pytest.raises(UsageError, match="MX-MOD-036"):
            import_weights("tlp", file, tmp_path / "package", sources=["T1"])

    def test_an_existing_package_is_not_replaced_unasked(self, tmp_path):
        file = save(published(), tmp_path / "G.pth")
        import_weights("tlp", file, tmp_path / "package")
        with pytest.raises(UsageError, match="MX-MOD-021"):
            import_weights("tlp", file, tmp_path / "package")
        import_weights("tlp", file, tmp_path / "package", overwrite=True)

    @pytest.mark.parametrize("version", ["2.5.1+cpu", "2.9.0", "1.13.1"])
    def test_a_pytorch_with_known_holes_opens_no_checkpoint(self, tmp_path, monkeypatch, version):
        file = save(published(), tmp_path / "G.pth")
        monkeypatch.setattr(importer.torch, "__version__", version)
        with pytest.raises(ResourceError, match="MX-MOD-034"):
            import_weights("tlp", file, tmp_path / "package")

    def test_random_damage_never_ends_in_a_traceback(self, tmp_path):
        file = save(published("one"), tmp_path / "G.pth")
        sound, dice = file.read_bytes(), np.random.default_rng(0)
        start = sound.index(b"data.pkl")
        for n in range(60):
            damaged = bytearray(sound)
            for position in dice.integers(start, start + 20_000, size=3):
                damaged[position] = dice.integers(256)
            file.write_bytes(bytes(damaged))
            try:
                import_weights("tlp", file, tmp_path / f"package{n}")
            except MedXlateError as error:
                assert error.code.startswith(("MX-MOD-0", "MX-FIL-0"))


def test_tlp_can_be_imported():
    assert "tlp" in importable_methods()


def test_checkpoints_are_opened_nowhere_else():
    core = Path(importer.__file__).parents[1]
    opens = re.compile(r"(?<![.\w])torch\.load\b|^ *(import|from) (pickle|dill|joblib|marshal|shelve)\b", re.MULTILINE)
    openers = [p.name for p in core.rglob("*.py") if opens.search(p.read_text(encoding="utf-8"))]
    assert openers == ["importer.py"]
