"""A numerical head phantom: heads, tumours and all modalities made in code; no patient behind them.

``build_subject`` makes a head from a seed, ``render_subject`` its images, ``write_cohort`` a data set with a table.
Anatomy is schematic; the images teach and test software, they are not for diagnosis or for judging clinical accuracy.
"""

from MedXlateCore.phantom.cohort import CohortPlan, write_cohort
from MedXlateCore.phantom.head import MODALITIES, Subject, build_subject, phantom_geometry, render_subject
from MedXlateCore.phantom.lesions import Lesion, LesionKind
from MedXlateCore.phantom.physics import MRAcquisition, Sequence, acquisition_for, vary_acquisition
from MedXlateCore.phantom.scans import ScanPlan
from MedXlateCore.phantom.tissues import Tissue

__all__ = [
    "MODALITIES",
    "CohortPlan",
    "Lesion",
    "LesionKind",
    "MRAcquisition",
    "ScanPlan",
    "Sequence",
    "Subject",
    "Tissue",
    "acquisition_for",
    "build_subject",
    "phantom_geometry",
    "render_subject",
    "vary_acquisition",
    "write_cohort",
]
