"""The default mask and the identity baseline on a real head."""

from pathlib import Path

import numpy as np
import pytest

from MedXlateCore.io import read_volume
from MedXlateCore.metrics.evaluation import evaluate

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "open-ms" / "xs_patient07"
NAMES = {
    "T1": "T1_N4_noneck_reduced_winsor_regtoFLAIR_brain_N4_regtoMNI.nii.gz",
    "T2": "T2_N4_noneck_reduced_winsor_regtoFLAIR_brain_N4_regtoMNI.nii.gz",
    "label": "GOLD_STANDARD_N4_noneck_reduced_winsor_regtoFLAIR_regtoMNI.nii.gz",
}


@pytest.mark.real_data
@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the real volumes are not here: {FOLDER.name} is missing")
def test_the_identity_baseline_of_a_real_head_is_measured_in_a_plausible_brain():
    t1, t2, lesions = (read_volume(FOLDER / name, modality) for modality, name in NAMES.items())
    result = evaluate(t2, t1, regions=lesions)
    brain, lesion, healthy = (result.regions[name] for name in ("brain", "lesion", "healthy"))
    assert 900 < brain["volume_ml"] < 1900
    assert lesion["voxels"] == np.count_nonzero(lesions.array) - _outside(result)
    total = lesion["voxels"] * lesion["mae"] + healthy["voxels"] * healthy["mae"]
    assert total / brain["voxels"] == pytest.approx(brain["mae"])
    assert brain["ssim"] < 0.6  # another contrast must not pass for the target


def _outside(result):
    return sum(int(w.found.split()[0]) for w in result.warnings if w.code == "MX-MET-103")
