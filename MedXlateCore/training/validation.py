"""Validation of a model: without a prompt, with the annotated regions as prompt, and with a sham prompt.

Predictions come from the function that translation uses, as do the prepared images. Figures are taken on the model grid
with intensities in [0, 1] (the normalised target), inside the foreground and inside the lesion, over the slices that
show anything, per case, then averaged per patient. They steer a training run and stand in the model's card; published
comparisons use ``metrics`` and its protocols.

A sham prompt is a region moved into healthy tissue. ``sham.change`` is the mean absolute change that it causes inside
itself, against no prompt: a model that is honest about prompts stays near 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from MedXlateCore.errors import InputError
from MedXlateCore.inference.slices import autocast, predict_slices
from MedXlateCore.inference.volumes import predict_volume
from MedXlateCore.metrics.image import mean_absolute_error, mean_squared_error, peak_signal_to_noise
from MedXlateCore.metrics.statistics import Summary, patient_means, summarise
from MedXlateCore.prompts.roi import encode_regions, sham_regions
from MedXlateCore.training.cache import PreparedCase
from MedXlateCore.training.data import fit_to_size, used_slices

__all__ = ["CaseResult", "Figures", "Predictor", "ValidationResult", "baselines", "diverged", "validate_case"]

Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Figures = dict[str, float | None]
_SHAM_SLICES = 8  # in a case without any annotation


@dataclass(frozen=True)
class Predictor:
    """A network and how it is run.

    Attributes:
        network: its weights already on ``device``.
        device: where to compute.
        precision: ``fp32`` or ``bf16``.
        batch_size: slices a pass; 1 on a CPU, as in translation, so that both give the same bits.
        encoding: prompt encoding of the network, or None if it takes no prompt.
        check: called between passes; may raise to stop.
        context: neighbouring slices of each source that the network sees.
        volumetric: True if the network sees whole volumes.
    """

    network: nn.Module
    device: torch.device
    precision: str = "fp32"
    batch_size: int = 1
    encoding: str | None = "two_region"
    check: Callable[[], None] = lambda: None
    context: int = 1
    volumetric: bool = False

    def predict(self, images: Float32Array, prompt: Float32Array | None, slices: Sequence[int]) -> Float32Array:
        """Predict some slices of images [S, K, H, W]; the others stay background (-1). Returns [K, H, W].

        Raises:
            InputError: ``MX-TRN-007``, the network gave values that are not finite.
        """
        stack = np.full((images.shape[1], *images.shape[2:]), -1.0, dtype=np.float32)
        if self.volumetric:
            stack[list(slices)] = self._volume(images, prompt)[list(slices)]
        else:
            self._fill(stack, images, prompt, slices)
        if not np.isfinite(stack).all():
            raise diverged("the network's output holds NaN or infinite values", "validation")
        return stack

    def ceiling(self, target: Float32Array) -> Float32Array | None:
        """Return the round trip of a target [K, H, W] through the network's autoencoder; None where it has none."""
        reconstruct: Callable[[torch.Tensor], torch.Tensor] | None = getattr(self.network, "reconstruct", None)
        if reconstruct is None:
            return None
        was_training = self.network.training
        self.network.eval()
        try:
            with torch.no_grad(), autocast(self.device, self.precision):
                return reconstruct(torch.from_numpy(target[None, None]).to(self.device))[0, 0].float().cpu().numpy()
        finally:
            self.network.train(was_training)

    def _volume(self, images: Float32Array, prompt: Float32Array | None) -> Float32Array:
        steps = predict_volume(self.network, images, prompt, device=self.device, precision=self.precision)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value.values
            self.check()

    def _fill(
        self, stack: Float32Array, images: Float32Array, prompt: Float32Array | None, slices: Sequence[int]
    ) -> None:
        """Predict slices into a stack [K, H, W]."""
        batches = predict_slices(
            self.network,
            images,
            prompt,
            slices=slices,
            device=self.device,
            precision=self.precision,
            batch_size=self.batch_size,
            context=self.context,
        )
        for batch in batches:
            self.check()
            stack[list(batch.indices)] = batch.values


@dataclass(frozen=True)
class CaseResult:
    """One case: its figures by name, and the predictions [K, H, W] by condition."""

    case: PreparedCase
    figures: Figures
    predictions: dict[str, Float32Array]
    prompts: dict[str, Float32Array]

    @property
    def score(self) -> float | None:
        """Mean of the errors without and with the given prompt; lower is better."""
        errors = [self.figures[name] for name in ("none.mae", "given.mae") if name in self.figures]
        return float(np.mean([np.nan if error is None else error for error in errors]))


@dataclass
class ValidationResult:
    """Figures of all cases; add cases with :meth:`add`."""

    patients: list[str] = field(default_factory=list)
    figures: list[Figures] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)

    def add(self, patient: str, figures: Figures, score: float | None = None) -> None:
        """Add a case."""
        self.patients.append(patient)
        self.figures.append(figures)
        self.scores.append(score)

    @property
    def score(self) -> float | None:
        """Mean score over patients; lower is better."""
        return self._summary(self.scores).mean

    def summaries(self) -> dict[str, Summary]:
        """Return each figure over patients, with its bootstrap interval."""
        names = dict.fromkeys(name for figures in self.figures for name in figures)
        return {name: self._summary([figures.get(name) for figures in self.figures]) for name in names}

    def means(self) -> Figures:
        """Return each figure's mean over patients."""
        return {name: summary.mean for name, summary in self.summaries().items()}

    def _summary(self, values: Sequence[float | None]) -> Summary:
        return summarise(patient_means(values, self.patients))


def validate_case(predictor: Predictor, case: PreparedCase, window: tuple[int, int] | None = None) -> CaseResult:
    """Predict a case under all conditions and measure.

    Args:
        predictor: the network.
        case: the prepared case.
        window: first and past-the-last slice to look at; None for all.

    Returns:
        Figures ``<condition>.mae``, ``.psnr`` (foreground), ``.lesion_mae``, ``.lesion_psnr``, for the conditions
        ``none``, ``given`` (annotated cases only) and ``sham``; and ``sham.change``. Of a latent model also
        ``ceiling``: the true target through its autoencoder and back, which is the best it can reach.
    """
    slices = used_slices(case, window)
    images = np.asarray(case.images[:, :-1], dtype=np.float32).swapaxes(0, 1)
    predictions = {"none": predictor.predict(images, None, slices)}
    prompts: dict[str, Float32Array] = {}
    figures: Figures = {}
    if predictor.encoding is not None:
        for condition, regions in _conditions(case, slices):
            prompt = _encode(regions, predictor.encoding)
            prompted = [k for k in slices if prompt[k].any()]  # elsewhere the prompt changes nothing
            stack = predictions["none"].copy()
            stack[prompted] = predictor.predict(images, prompt, prompted)[prompted]
            predictions[condition], prompts[condition] = stack, prompt
    for condition, stack in predictions.items():
        figures |= _measure(case, slices, stack, condition)
    ceiling = predictor.ceiling(np.array(case.images[:, -1], dtype=np.float32))
    if ceiling is not None:
        figures |= _measure(case, slices, ceiling, "ceiling")
    if "sham" in prompts:
        inside = prompts["sham"] > 0
        change = np.abs(predictions["sham"][inside].astype(np.float64) - predictions["none"][inside]) / 2
        figures["sham.change"] = float(change.mean()) if change.size else None
    return CaseResult(case, figures, predictions, prompts)


def baselines(
    cases: Sequence[PreparedCase], mean_target: Float32Array, window: tuple[int, int] | None = None
) -> Iterator[tuple[PreparedCase, Figures]]:
    """Measure without a network: the first source as it is (``identity``), and the mean training target (``mean``)."""
    for case in cases:
        slices = used_slices(case, window)
        identity = np.asarray(case.images[:, 0], dtype=np.float32)
        mean = np.broadcast_to(fit_to_size(mean_target, case.size), identity.shape)
        yield case, _measure(case, slices, identity, "identity") | _measure(case, slices, mean, "mean")


def _conditions(case: PreparedCase, slices: Sequence[int]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield the prompts' names and regions [K, 2, H, W]."""
    given = np.zeros((case.masks.shape[0], 2, *case.size), dtype=np.uint8)
    given[list(slices)] = case.masks[list(slices), :2]
    annotated = [k for k in slices if given[k].any()]
    if annotated:
        yield "given", given
    step = max(1, len(slices) // _SHAM_SLICES)
    chosen = annotated or list(slices)[step // 2 :: step][:_SHAM_SLICES]
    if not chosen:
        return
    generator = torch.Generator().manual_seed(int(case.key[:12], 16))
    sham = sham_regions(
        torch.from_numpy(given[chosen]),
        torch.from_numpy(case.masks[chosen, 2:].copy()),
        generator,
        shared=bool(annotated),
        fill_empty=not annotated,
    )
    moved = np.zeros_like(given)
    moved[chosen] = sham.numpy().astype(np.uint8)
    yield "sham", moved


def diverged(found: str, where: str) -> InputError:
    """Return the error for a training that broke down."""
    return InputError(
        "MX-TRN-007",
        found,
        expected="finite numbers",
        where=where,
        fix="train again with a lower training.learning_rate or with training.precision 32-true",
    )


def _encode(regions: NDArray[np.uint8], encoding: str) -> Float32Array:
    oedema, core = torch.from_numpy(regions).float().split(1, dim=1)
    return encode_regions(oedema, core, encoding)[:, 0].numpy()


def _measure(case: PreparedCase, slices: Sequence[int], prediction: NDArray, name: str) -> Figures:
    """Return error and PSNR in [0, 1] inside the foreground and inside the lesion."""
    chosen = list(slices)
    truth = (np.asarray(case.images[chosen, -1], dtype=np.float64) + 1) / 2
    guess = (prediction[chosen].astype(np.float64) + 1) / 2
    foreground = case.masks[chosen, 2] > 0
    figures = _inside(truth, guess, foreground, f"{name}.")
    lesion = case.masks[chosen, :2].max(axis=1) > 0
    return figures | (_inside(truth, guess, lesion, f"{name}.lesion_") if lesion.any() else {})


def _inside(truth: NDArray, guess: NDArray, mask: BoolArray, prefix: str) -> Figures:
    if not mask.any():
        return {f"{prefix}mae": None, f"{prefix}psnr": None}
    psnr = peak_signal_to_noise(mean_squared_error(truth[mask], guess[mask]), 1.0)
    return {
        f"{prefix}mae": mean_absolute_error(truth[mask], guess[mask]),
        f"{prefix}psnr": psnr if np.isfinite(psnr) else None,
    }
