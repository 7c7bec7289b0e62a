"""``medxlate evaluate`` from the command line: exit codes, table, JSON, page."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from MedXlateCore.cli import main
from MedXlateCore.files import sha256_file, write_json

GOLDEN = Path(__file__).parents[2] / "golden"
FLAT_KEYS = {
    "volume3d": {"mae", "psnr", "ssim"},
    "synthrad2025": {"mae", "psnr", "ms_ssim"},
    "brasyn": {"ssim_tumor", "ssim_non_tumor"},
    "tlp": {f"{name}{end}" for name in ("psnr", "ssim", "nmse", "mse", "mae") for end in ("", "_std")},
    "medprompt": {f"{name}{end}" for name in ("psnr", "ssim", "mae") for end in ("", "_std")},
    "hinet": {"psnr", "ssim", "nmse"},
}
OTHER_KEYS = {
    "protocol", "regions", "per_slice", "warnings", "details", "protocol_definition", "research_use_only", "files",
}  # fmt: skip


def save(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return str(path)


@pytest.fixture
def case(tmp_path):
    """Paths of a reference, a synthetic image, a segmentation and a brain mask."""
    rng = np.random.default_rng(5)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (26, 28, 20)), indexing="ij"))
    ball = ((grid - np.array([13, 14, 10])[:, None, None, None]) ** 2).sum(axis=0) < 81
    reference = np.where(ball, 300 + 30 * rng.standard_normal(ball.shape), 0).astype(np.float32)
    synthetic = np.where(ball, reference + 15 * rng.standard_normal(ball.shape), 0).astype(np.float32)
    labels = np.zeros(ball.shape, np.uint8)
    labels[10:15, 11:16, 8:12] = 2
    labels[11:13, 12:14, 9:11] = 1
    return {
        "reference": save(tmp_path / "reference.nii.gz", reference),
        "synthetic": save(tmp_path / "synthetic.nii.gz", synthetic),
        "regions": save(tmp_path / "seg.nii.gz", labels),
        "mask": save(tmp_path / "brain.nii.gz", ball.astype(np.uint8)),
    }


def evaluate(case, *more, **changes):
    used = {"reference": case["reference"], "synthetic": case["synthetic"], **changes}
    return main(
        ["evaluate", *(word for name, path in used.items() for word in (f"--{name}", str(path))), *map(str, more)]
    )


def test_the_table_names_regions_and_says_research_use_only(case, capsys):
    assert evaluate(case, regions=case["regions"]) == 0
    printed = capsys.readouterr().out
    for word in ("volume3d", "brain", "lesion", "oedema", "core", "healthy", "psnr"):
        assert word in printed
    assert printed.rstrip().endswith("research use only, not for diagnosis")


@pytest.mark.parametrize("protocol", list(FLAT_KEYS))
def test_the_figures_are_flat_keys_of_the_json(case, tmp_path, protocol):
    target = tmp_path / "out" / "figures.json"
    target.parent.mkdir()
    assert evaluate(case, "--protocol", protocol, "--json", target, regions=case["regions"], mask=case["mask"]) == 0
    found = json.loads(target.read_text())
    assert set(found) == FLAT_KEYS[protocol] | OTHER_KEYS
    assert found["protocol"] == protocol
    assert found["research_use_only"] is True
    assert found["files"]["reference"]["name"] == "reference.nii.gz"
    assert len(found["files"]["synthetic"]["sha256"]) == 64


def test_a_volume_and_its_figures_survive_the_way_through_files(tmp_path):
    expected = json.loads((GOLDEN / "metrics_case3.json").read_text())
    with np.load(GOLDEN / "metrics_case3.npz") as arrays:
        paths = {name: save(tmp_path / f"{name}.nii.gz", arrays[name]) for name in arrays.files}
    target = tmp_path / "figures.json"
    runs = {
        "synthrad2025": ["ct", "ct_pred", "--modality", "CT", "--mask", paths["mask"]],
        "brasyn": ["mr", "mr_pred", "--regions", paths["seg"]],
        "tlp_slice": ["tlp_gt_u8", "tlp_pred_u8"],
    }
    for name, (reference, synthetic, *more) in runs.items():
        protocol = name.removesuffix("_slice")
        files = ["--reference", paths[reference], "--synthetic", paths[synthetic], "--json", str(target)]
        assert main(["evaluate", "--protocol", protocol, *files, *more]) == 0
        found = json.loads(target.read_text())
        for key, value in expected[name].items():
            if key != "slice":
                assert found[key] == pytest.approx(value, rel=1e-6), (name, key)


def test_named_labels_decide_the_regions(case, tmp_path):
    target = tmp_path / "figures.json"
    options = ["--region-label", "tumour=1,2", "--region-label", "core=1", "--json", target]
    assert evaluate(case, *options, regions=case["regions"]) == 0
    regions = json.loads(target.read_text())["regions"]
    assert list(regions) == ["brain", "lesion", "tumour", "core", "healthy"]
    assert regions["tumour"]["voxels"] == regions["lesion"]["voxels"] == 100
    assert regions["core"]["voxels"] == 8


def test_matched_intensities_are_another_protocol(case, tmp_path):
    target = tmp_path / "figures.json"
    assert evaluate(case, "--match-intensity", "--json", target) == 0
    assert json.loads(target.read_text())["protocol"] == "volume3d+matched"


def test_identical_images_are_evaluated_with_null_and_a_warning(case, tmp_path, capsys):
    target = tmp_path / "figures.json"
    assert evaluate(case, "--json", target, synthetic=case["reference"]) == 0
    found = json.loads(target.read_text())
    assert found["psnr"] is None
    assert found["ssim"] == 1.0
    assert {warning["code"] for warning in found["warnings"]} == {"MX-MET-101", "MX-MET-108"}
    assert "MX-MET-101" in capsys.readouterr().out


def test_the_page_shows_sources_and_the_run_record(case, tmp_path):
    target = tmp_path / "page.html"
    described = {"name": "synthetic.nii.gz", "sha256": sha256_file(case["synthetic"])}
    record = {"synthetic": True, "target": "T1ce", "model": {"name": "tlp-demo"}, "output_file": described}
    write_json(tmp_path / "synthetic.json", record)
    assert evaluate(case, "--html", target, "--source", f"T2={case['reference']}", regions=case["regions"]) == 0
    page = target.read_text("utf-8")
    assert "tlp-demo" in page
    assert "source: T2" in page
    assert "Synthetic T1ce compared with its reference" in page


def test_the_record_of_an_earlier_image_is_not_shown(case, tmp_path):
    described = {"name": "synthetic.nii.gz", "sha256": "0" * 64}
    record = {"synthetic": True, "target": "T1ce", "model": {"name": "tlp-demo"}, "output_file": described}
    write_json(tmp_path / "synthetic.json", record)
    target = tmp_path / "page.html"
    assert evaluate(case, "--html", target) == 0
    assert "tlp-demo" not in target.read_text("utf-8")


def test_another_programs_file_beside_the_image_is_left_alone(case, tmp_path):
    (tmp_path / "synthetic.json").write_text("not JSON")
    assert evaluate(case) == 0


def spoiled(case, tmp_path, what):
    array = np.asarray(nib.load(case["synthetic"]).dataobj).copy()
    affine = np.eye(4)
    if what == "nan":
        array[5, 5, 5] = np.nan
    elif what == "moved":
        affine[2, 3] = 0.5
    elif what == "shape":
        array = array[:-1]
    return save(tmp_path / f"{what}.nii.gz", array, affine)


@pytest.mark.parametrize("what, code", [("nan", "MX-MET-011"), ("moved", "MX-MET-010"), ("shape", "MX-MET-010")])
def test_an_unusable_image_ends_with_3_and_leaves_no_file(case, tmp_path, capsys, what, code):
    target = tmp_path / "figures.json"
    assert evaluate(case, "--json", target, synthetic=spoiled(case, tmp_path, what)) == 3
    assert code in capsys.readouterr().err
    assert not target.exists()


@pytest.mark.parametrize("what, code", [("empty", "MX-MET-012"), ("outside", "MX-MET-013"), ("grid", "MX-MET-010")])
def test_an_unusable_mask_ends_with_3(case, tmp_path, capsys, what, code):
    mask = np.zeros((26, 28, 20) if what != "grid" else (26, 28, 19), np.uint8)
    if what != "empty":
        mask[0, 0, :3] = 1
    assert evaluate(case, mask=save(tmp_path / "m.nii.gz", mask)) == 3
    assert code in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, code",
    [
        (["--protocol", "volume"], "MX-MET-001"),
        (["--protocol", "tlp", "--match-intensity"], "MX-MET-003"),
        (["--protocol", "brasyn"], "MX-MET-005"),
        (["--region-label", "core=1"], "MX-MET-007"),
        (["--region-label", "core"], "MX-USE-031"),
        (["--source", "t2.nii.gz"], "MX-USE-030"),
        (["--modality", "X-ray"], "MX-USE-010"),
        ([], "MX-USE-001"),
    ],
)
def test_a_wrong_command_line_ends_with_2(case, capsys, options, code):
    words = ["evaluate", "--reference", case["reference"]] + (["--synthetic", case["synthetic"]] if options else [])
    assert main([*words, *options]) == 2
    assert code in capsys.readouterr().err


def test_a_missing_file_ends_with_3(case, tmp_path, capsys):
    assert evaluate(case, synthetic=tmp_path / "none.nii.gz") == 3
    assert "MX-FIL-" in capsys.readouterr().err


def test_an_input_is_never_overwritten(case, capsys):
    before = Path(case["reference"]).read_bytes()
    assert evaluate(case, "--json", case["reference"]) == 2
    assert Path(case["reference"]).read_bytes() == before


def test_an_output_that_cannot_be_written_is_found_before_computing(case, tmp_path, capsys):
    assert evaluate(case, "--html", tmp_path) == 4
    captured = capsys.readouterr()
    assert "MX-FIL-010" in captured.err
    assert captured.out == ""


def test_a_missing_source_for_the_page_is_noticed_before_anything_is_printed_or_written(case, tmp_path, capsys):
    outputs = ("--json", tmp_path / "new.json", "--html", tmp_path / "new.html")
    assert evaluate(case, *outputs, "--source", f"T1={tmp_path / 'none.nii.gz'}") == 3
    captured = capsys.readouterr()
    assert captured.err.startswith("MX-FIL-001")
    assert captured.out == ""
    assert not list(tmp_path.glob("new.*"))
