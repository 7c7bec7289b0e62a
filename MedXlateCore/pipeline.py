"""The one path: checked volumes in, one synthetic volume out.

``translate`` returns a :class:`Translation`, an iterator of events: it is a session of one update. What edits a region
and looks again keeps a :class:`TranslationSession`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.inference.events import Event, Finished, Progress, Started, Translation
from MedXlateCore.inference.inputs import check_sampling
from MedXlateCore.inference.result import output_scale
from MedXlateCore.inference.session import TranslationSession
from MedXlateCore.inference.wanted import Wanted, chosen_target, facts_like, wanted_image
from MedXlateCore.models.package import LoadedModel
from MedXlateCore.models.sampling import Sampling
from MedXlateCore.volume import Modality, Volume

__all__ = [
    "Event",
    "Finished",
    "Progress",
    "Started",
    "Translation",
    "TranslationSession",
    "Wanted",
    "check_sampling",
    "chosen_target",
    "facts_like",
    "output_scale",
    "translate",
    "wanted_image",
]


def translate(
    sources: Sequence[Volume],
    model: LoadedModel,
    *,
    target: Modality | str | None = None,
    reference: Modality | str | None = None,
    roi: Volume | None = None,
    roi_labels: Mapping[str, Sequence[int]] | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | str = "auto",
    sampling: Sampling | None = None,
    target_text: str | None = None,
    target_like: Acquisition | None = None,
) -> Translation:
    """Translate source volumes into a missing one.

    Args:
        roi: label map of suspected lesions, on any grid; used as drawn. None for no prompt.
        sources, model, target, reference, roi_labels, device, precision, batch_size, sampling, target_text,
            target_like: see :class:`TranslationSession`.

    Raises:
        UsageError, InputError: see :class:`TranslationSession`.
    """
    session = TranslationSession(
        sources, model, target=target, reference=reference, roi_labels=roi_labels, device=device, precision=precision,
        batch_size=batch_size, sampling=sampling, target_text=target_text, target_like=target_like,
    )  # fmt: skip
    return session.update(roi)
