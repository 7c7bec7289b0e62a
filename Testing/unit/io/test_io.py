"""One door for all formats: what cannot be read is explained, what is written is whole and marked."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from MedXlateCore import io
from MedXlateCore.errors import InputError, MedXlateError, ResourceError, UsageError
from MedXlateCore.files import sha256_file
from MedXlateCore.io import (
    check_input_format,
    check_output,
    check_output_format,
    read_record,
    read_volume,
    sidecar_path,
    synthetic_remark,
    write_volume,
)
from MedXlateCore.volume import Geometry, Modality, Volume

ROOT = Path(__file__).resolve().parents[3]
SHAPE = (5, 6, 7)
AFFINE = np.array([[-0.5, 0, 0, 30], [0, 1.5, 0, -40.25], [0, 0, 3.0, 50.5], [0, 0, 0, 1]])
SUFFIXES = [".nii", ".nii.gz", ".mha", ".nrrd"]


def volume(array: np.ndarray | None = None, modality: Modality = Modality.T1CE, synthetic: bool = True) -> Volume:
    if array is None:
        array = np.arange(210, dtype=np.float32).reshape(SHAPE)
    return Volume(array, Geometry(array.shape, AFFINE), modality, synthetic=synthetic)


def code_of(call, *args: object, **options: object) -> str:
    with pytest.raises(MedXlateError) as caught:
        call(*args, **options)
    assert caught.value.fix and caught.value.where
    return caught.value.code


# --- reading ---


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.png", "picture"),
        ("a.npz", "NIfTI"),
        ("a.pth", "NIfTI"),
        ("a.mgz", "mri_convert"),
        ("a.mnc", "mnc2nii"),
        ("a.zip", "unpack"),
        ("a.tar.gz", "unpack"),
        ("a.xyz", "convert"),
        ("a", "convert"),
        ("nii", "convert"),
    ],
)
def test_foreign_formats_are_refused_with_advice(tmp_path: Path, name: str, advice: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    with pytest.raises(InputError, match=advice) as caught:
        read_volume(tmp_path / name)
    assert caught.value.code == "MX-FIL-040"


def test_a_dicom_file_without_suffix_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 100)
    assert check_input_format(tmp_path / "IM0001") == ".dcm"
    assert code_of(read_volume, tmp_path / "IM0001") == "MX-DCM-004"


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".hdr", ".img", ".mhd", ".nhdr", ".dcm", ""])
def test_missing_empty_and_folder_inputs_have_codes_in_every_format(tmp_path: Path, suffix: str) -> None:
    assert code_of(read_volume, tmp_path / f"missing{suffix}") == "MX-FIL-001"
    (tmp_path / f"empty{suffix}").touch()
    assert code_of(read_volume, tmp_path / f"empty{suffix}") == "MX-FIL-003"
    (tmp_path / f"folder{suffix}").mkdir()
    assert code_of(read_volume, tmp_path / f"folder{suffix}") == "MX-DCM-001"


def test_an_unknown_modality_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_volume(tmp_path / "a.nii", "T7")
    assert caught.value.code == "MX-USE-010"


def test_the_source_names_the_file_and_its_hash(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix}"
        write_volume(volume(), path)
        source = read_volume(str(path), "t1c").source
        assert source.name == path.name and source.path == path and source.sha256 == sha256_file(path)


def test_too_little_memory_is_a_coded_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_volume(volume(), tmp_path / "a.nii")

    def starve(*args: object) -> None:
        raise MemoryError

    monkeypatch.setitem(io._READERS, ".nii", starve)
    assert code_of(read_volume, tmp_path / "a.nii") == "MX-FIL-009"


def test_importing_io_loads_neither_nibabel_nor_simpleitk_nor_torch() -> None:
    script = "import sys, MedXlateCore.io; print([m for m in ('nibabel', 'SimpleITK', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


# --- writing ---


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_synthetic_volume_says_so_in_its_header_and_stays_synthetic(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    assert write_volume(volume(), path) == [path]
    data = gzip.decompress(path.read_bytes()) if suffix == ".nii.gz" else path.read_bytes()
    assert b"SYNTHETIC T1ce MedXlate; research use only" in data
    back = read_volume(path, "t1c")
    assert back.synthetic and back.notes == ()
    np.testing.assert_array_equal(back.array, volume().array)
    np.testing.assert_array_equal(back.geometry.affine_ras, AFFINE)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_acquired_volume_is_not_marked(tmp_path: Path, suffix: str) -> None:
    write_volume(volume(synthetic=False), tmp_path / f"a{suffix}")
    assert not read_volume(tmp_path / f"a{suffix}").synthetic


def test_the_mark_fits_the_header_for_every_modality() -> None:
    assert all(len(synthetic_remark(m)) <= 79 for m in Modality)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("given", "highest", "stored"),
    [
        ("bool", 1, "uint8"),
        ("uint8", 255, "uint8"),
        ("int64", 4, "uint8"),
        ("int32", -1, "int16"),
        ("float64", 300, "int16"),
        ("uint16", 40_000, "int32"),
    ],
)
def test_label_maps_are_written_as_small_integers(
    tmp_path: Path, suffix: str, given: str, highest: int, stored: str
) -> None:
    array = np.zeros(SHAPE, given)
    array[1, 2, 3] = highest
    path = tmp_path / f"seg{suffix}"
    write_volume(volume(array, Modality.LABEL, synthetic=False), path)
    back = read_volume(path, "seg")
    assert back.array.dtype == np.dtype(stored)
    np.testing.assert_array_equal(back.array, array)


@pytest.mark.parametrize("given", ["float64", "int16", "uint8", "bool", ">f4"])
def test_images_are_written_as_float32(tmp_path: Path, given: str) -> None:
    array = (np.arange(210).reshape(SHAPE) % 2).astype(given)
    write_volume(volume(array), tmp_path / "a.nii")
    assert nib.load(tmp_path / "a.nii").get_data_dtype() == np.float32
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").array, array)


def test_values_that_cannot_be_stored_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    assert code_of(write_volume, volume(np.full(SHAPE, 1e300)), tmp_path / "a.nii") == "MX-IMG-015"
    half = volume(np.full(SHAPE, 0.5), Modality.LABEL)
    assert code_of(write_volume, half, tmp_path / "a.nii", {"a": 1}) == "MX-ROI-001"
    assert list(tmp_path.iterdir()) == []


def test_a_sheared_grid_goes_to_nifti_only(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 1] = 0.1
    sheared = Volume(volume().array, Geometry(SHAPE, affine), synthetic=True)
    for suffix in (".mha", ".nrrd"):
        assert code_of(write_volume, sheared, tmp_path / f"a{suffix}", {}) == "MX-GEO-014"
    assert list(tmp_path.iterdir()) == []
    write_volume(sheared, tmp_path / "a.nii.gz")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii.gz").geometry.affine_ras, affine, rtol=1e-7)


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr", "a.hdr", "a.img", "a.dcm", "a.nii.bz2", "a", "nii.gz.txt"])
def test_formats_that_cannot_be_written_are_refused_first(tmp_path: Path, name: str) -> None:
    for call in (check_output_format, check_output):
        assert code_of(call, tmp_path / name) == "MX-FIL-019"
    assert code_of(write_volume, volume(), tmp_path / name) == "MX-FIL-019"


@pytest.mark.skipif(os.name == "nt", reason="names that Windows does not allow")
@pytest.mark.parametrize(
    "stem",
    [
        "a b",
        "it's",
        'a"b',
        "two\nlines",
        "emoji🧠",
        "שלום",
        "日本語",
        "-x",
        "a%20b",
        "n" * 240,
        "语" * 80,
        "a.b.c",
        "back\\s",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_odd_names_work_in_every_format(tmp_path: Path, stem: str, suffix: str) -> None:
    path = tmp_path / f"{stem}{suffix}"
    written = write_volume(volume(), path, {"a": 1})
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, f"{stem}.json"])
    assert written == [path, sidecar_path(path)]
    np.testing.assert_array_equal(read_volume(path).array, volume().array)


# --- the record beside it ---


@pytest.mark.parametrize(
    ("name", "sidecar"),
    [("a.nii.gz", "a.json"), ("a.NII.GZ", "a.json"), ("a.b.mha", "a.b.json"), ("a.nii.nrrd", "a.nii.json")],
)
def test_the_record_has_the_images_stem(name: str, sidecar: str) -> None:
    assert sidecar_path(f"x/{name}") == Path("x") / sidecar


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_record_names_the_image_and_its_hash(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    assert write_volume(volume(), path, {"model": "m", "score": float("nan")}) == [path, tmp_path / "out.json"]
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["model"] == "m" and record["score"] is None
    assert record["output_file"] == {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)}


def test_a_record_is_returned_only_with_the_image_it_describes(tmp_path: Path) -> None:
    path = tmp_path / "out.nii.gz"
    assert read_record(path) is None
    assert read_record(".") is None
    write_volume(volume(), path, {"run": 1})
    record = read_record(path)
    assert record is not None and record["run"] == 1
    path.write_bytes(path.read_bytes() + b"\0")
    assert read_record(path) is None
    path.unlink()
    assert read_record(path) is None
    for content in ("[]", '{"output_file": 3}', "no json"):
        write_volume(volume(), path)
        (tmp_path / "out.json").write_text(content)
        assert read_record(path) is None


def test_writing_again_replaces_both(tmp_path: Path) -> None:
    path = tmp_path / "out.nii.gz"
    write_volume(volume(), path, {"run": 1})
    write_volume(volume(np.ones(SHAPE, np.float32)), path, {"run": 2})
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["run"] == 2 and record["output_file"]["sha256"] == sha256_file(path)


def test_without_a_record_a_stale_one_of_ours_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "out.nii.gz"
    write_volume(volume(), path, {"run": 1})
    write_volume(volume(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["out.nii.gz"]


@pytest.mark.parametrize("content", ['{"EchoTime": 0.1}', "[]", "not json", '{"output_file": 3}'])
def test_somebody_elses_json_is_never_touched(tmp_path: Path, content: str) -> None:
    path = tmp_path / "sub-01_T1w.nii.gz"
    (tmp_path / "sub-01_T1w.json").write_text(content)
    assert code_of(check_output, path) == "MX-FIL-018"
    assert code_of(write_volume, volume(), path, {"run": 1}) == "MX-FIL-018"
    assert not path.exists()
    write_volume(volume(), path)  # without a record there is no clash
    assert (tmp_path / "sub-01_T1w.json").read_text() == content


def test_two_images_of_one_stem_cannot_share_a_record(tmp_path: Path) -> None:
    write_volume(volume(), tmp_path / "out.nii.gz", {"run": 1})
    assert code_of(write_volume, volume(), tmp_path / "out.mha", {"run": 2}) == "MX-FIL-018"
    (tmp_path / "out.nii.gz").unlink()
    write_volume(volume(), tmp_path / "out.mha", {"run": 2})


def test_neither_image_nor_record_may_be_an_input(tmp_path: Path) -> None:
    path = tmp_path / "in.nii.gz"
    write_volume(volume(), path)
    assert code_of(check_output, path, [path]) == "MX-FIL-014"
    assert code_of(check_output, tmp_path / "labels.nii.gz", [tmp_path / "labels.json"]) == "MX-FIL-014"
    assert check_output(tmp_path / "OUT.NII.GZ", [path]) == ".nii.gz"


def test_a_record_that_cannot_be_written_stops_the_run_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "out.json").mkdir()
    assert code_of(check_output, tmp_path / "out.nii.gz") == "MX-FIL-010"
    check_output(tmp_path / "out.nii.gz", with_record=False)
    assert code_of(check_output, tmp_path / "b.nii.gz", needed_bytes=2**60) == "MX-FIL-013"


def test_a_failed_writer_leaves_the_old_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.nii.gz"
    write_volume(volume(), path, {"run": 1})
    before = path.read_bytes(), (tmp_path / "out.json").read_bytes()

    def fill_up(array: object, geometry: object, target: Path, remark: str) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(io._WRITERS, ".nii.gz", fill_up)
    with pytest.raises(ResourceError) as caught:
        write_volume(volume(), path, {"run": 2})
    assert caught.value.code == "MX-FIL-013"
    assert (path.read_bytes(), (tmp_path / "out.json").read_bytes()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "out.nii.gz"]


def test_simpleitks_own_failure_is_coded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import SimpleITK as sitk

    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("Exception thrown\nITK ERROR: cannot write")

    monkeypatch.setattr(sitk, "WriteImage", fail)
    assert code_of(write_volume, volume(), tmp_path / "a.mha") == "MX-FIL-016"
    assert list(tmp_path.iterdir()) == []


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from MedXlateCore.io import write_volume
    from MedXlateCore.volume import Geometry, Volume
    path, step = Path(sys.argv[1]), int(sys.argv[2])
    image = Volume(np.full((8, 8, 8), 2, np.float32), Geometry((8, 8, 8), np.eye(4)), synthetic=True)
    count = 0
    def counted(real):
        def call(*args, **options):
            global count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)
        return call
    os.fsync, Path.replace, Path.open = counted(os.fsync), counted(Path.replace), counted(Path.open)
    write_volume(image, path, {"run": 2})
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("step", range(1, 19))
def test_killed_at_any_step_no_image_is_without_its_record(tmp_path: Path, step: int) -> None:
    path = tmp_path / "out.nii.gz"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(path), str(step)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    if path.exists():
        np.testing.assert_array_equal(read_volume(path).array, 2)
        record = json.loads((tmp_path / "out.json").read_text())
        assert record["output_file"]["sha256"] == sha256_file(path)
    assert done.returncode == 0 or step < 18
    write_volume(volume(), path, {"run": 3})  # nothing that was left stands in the way
    assert read_volume(path).synthetic
