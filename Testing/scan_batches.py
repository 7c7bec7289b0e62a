"""Batches for methods that learn from many scans a patient."""

from __future__ import annotations

import torch

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.models.dclip import tokens_of
from MedXlateCore.models.scan_batch import ScanBatch
from MedXlateCore.prompts.acquisition_text import describe
from MedXlateCore.prompts.compatibility import compatible_pairs

T1, T2, FLAIR = (Acquisition(modality="MR", sequence=name, plane="axial") for name in ("T1", "T2", "FLAIR"))


def scan_batch(source, target, intermediate=None, facts=(T1, T2, FLAIR), domains=(1, 0, 0, 1)):
    """Return a batch of triples whose slices are of three domains; the atlas is T1."""
    third = source.flip(3) if intermediate is None else intermediate
    n = len(source)
    texts = [describe(fact) for fact in (*facts, T1) for _ in range(n)]
    pairs = compatible_pairs(texts[: 3 * n], [fact for fact in facts for _ in range(n)])
    return ScanBatch(
        images=torch.stack((source, target, third)),
        foregrounds=torch.ones(3, *source.shape),
        tokens=tokens_of(texts, 256).view(4, n, -1),
        domains=torch.tensor(domains)[:, None].expand(-1, n).contiguous(),
        positive=torch.from_numpy(pairs),
    )
