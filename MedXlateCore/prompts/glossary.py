"""Words for facts about acquisitions: what each value is called in sentences, first name first.

Codes are DICOM's (PS3.3, C.8.3.1.1: Scanning Sequence, Sequence Variant, Scan Options). The names are our own; a value
without a name here is told in quotation marks, so that every fact can be told.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "CONTRAST",
    "MODALITIES",
    "ORDINALS",
    "ORGANS",
    "PLANES",
    "PREPROCESSING",
    "REGIONS_OF_ORGANS",
    "SCANNERS",
    "SCANNING_SEQUENCES",
    "SCAN_OPTIONS",
    "SEQUENCES",
    "SEQUENCE_VARIANTS",
    "Names",
]

Names = Mapping[object, tuple[str, ...]]

MODALITIES: Names = {
    "MR": ("MR", "MRI", "magnetic resonance"),
    "CT": ("CT", "computed tomography"),
    "CBCT": ("cone-beam CT", "CBCT"),
    "PET": ("PET", "positron emission tomography"),
}

SEQUENCES: Names = {
    "T1": ("T1-weighted", "T1w"),
    "T2": ("T2-weighted", "T2w"),
    "T2*": ("T2*-weighted", "T2*w"),
    "PD": ("proton-density-weighted", "PD-weighted", "PDw"),
    "FLAIR": ("FLAIR", "fluid-attenuated inversion recovery"),
    "STIR": ("STIR", "short-tau inversion recovery"),
    "DIR": ("double inversion recovery", "DIR"),
    "DWI": ("diffusion-weighted", "DWI"),
    "ADC": ("apparent diffusion coefficient", "ADC"),
    "SWI": ("susceptibility-weighted", "SWI"),
    "perfusion": ("perfusion-weighted", "PWI"),
    "TOF angiography": ("time-of-flight angiographic", "TOF"),
    "flow": ("flow-encoded",),
    "FA": ("fractional anisotropy",),
    "BOLD": ("BOLD",),
    "ASL": ("arterial spin labelling", "ASL"),
    "FDG": ("FDG", "fluorodeoxyglucose"),
}

ORGANS: Names = {
    name: (name,)
    for name in (
        "abdomen", "ankle", "bladder", "brain", "breast", "cervical spine", "chest", "elbow", "eye", "face", "foot",
        "hand", "head", "heart", "hip", "inner ear", "kidney", "knee", "liver", "lumbar spine", "lung", "mediastinum",
        "neck", "orbit", "pancreas", "pelvis", "pituitary", "prostate", "rectum", "shoulder", "spine", "spleen",
        "thoracic spine", "thyroid", "uterus", "whole body", "wrist",
    )
}  # fmt: skip

REGIONS_OF_ORGANS: Mapping[str, str] = {
    "brain": "head", "pituitary": "head", "inner ear": "head", "orbit": "head", "eye": "head", "face": "head",
    "pelvis": "abdomen", "liver": "abdomen", "kidney": "abdomen", "pancreas": "abdomen", "spleen": "abdomen",
    "prostate": "pelvis", "bladder": "pelvis", "rectum": "pelvis", "uterus": "pelvis",
    "breast": "chest", "heart": "chest", "lung": "chest", "mediastinum": "chest", "thyroid": "neck",
    "cervical spine": "spine", "thoracic spine": "spine", "lumbar spine": "spine",
}  # fmt: skip
"""The larger part of the body that may stand for an organ."""

PLANES: Names = {
    "axial": ("axial", "transverse"),
    "coronal": ("coronal", "frontal"),
    "sagittal": ("sagittal",),
}

CONTRAST: Names = {
    True: ("contrast-enhanced", "with contrast agent", "after contrast agent"),
    False: ("without contrast agent", "no contrast agent", "not contrast-enhanced"),
}

SCANNING_SEQUENCES: Names = {
    "SE": ("spin echo",),
    "IR": ("inversion recovery",),
    "GR": ("gradient recalled echo", "gradient echo"),
    "EP": ("echo planar",),
    "RM": ("research mode",),
}

SEQUENCE_VARIANTS: Names = {
    "SK": ("segmented k-space",),
    "MTC": ("magnetisation transfer contrast", "magnetisation transfer"),
    "SS": ("steady state",),
    "TRSS": ("time-reversed steady state",),
    "SP": ("spoiled",),
    "MP": ("magnetisation prepared",),
    "OSP": ("oversampled phase",),
    "NONE": ("no variant",),
}

SCAN_OPTIONS: Names = {
    "PER": ("phase encode reordering",),
    "RG": ("respiratory gating",),
    "CG": ("cardiac gating",),
    "PPG": ("peripheral pulse gating",),
    "FC": ("flow compensation",),
    "PFF": ("partial Fourier in frequency",),
    "PFP": ("partial Fourier in phase",),
    "SP": ("spatial presaturation",),
    "FS": ("fat saturation", "fat suppression"),
    "WE": ("water excitation",),
}

PREPROCESSING: Names = {
    name: names
    for names in (
        ("skull removed", "skull-stripped"),
        ("face removed", "defaced"),
        ("bias field corrected",),
        ("resampled",),
        ("registered",),
        ("denoised",),
        ("cropped",),
    )
    for name in names[:1]
}

SCANNERS: Names = {
    name: (name,)
    for name in (
        "Achieva", "Aera", "Allegra", "Artist", "Avanto", "Biograph", "Discovery", "Espree", "Gemini", "GyroScan",
        "Ingenia", "Intera", "Lumina", "Optima", "Prisma", "Revolution", "Sensation", "Signa", "Skyra", "Sola",
        "Somatom", "Symphony", "Trio", "TrioTim", "Verio", "Vida",
    )
}  # fmt: skip

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
