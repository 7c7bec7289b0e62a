"""Whole volumes through networks that see all slices: steps, samples, their spread, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from MedXlateCore.errors import UsageError
from MedXlateCore.inference.volumes import predict_volume
from MedXlateCore.models.sampling import Sampling, VolumePrediction
from MedXlateCore.models.tlp import Tlp
from MedXlateCore.pipeline import TranslationSession, translate


class Mean(nn.Module):
    """The mean of the sources, which looks one slice up so that it needs the volume."""

    def forward(self, images, roi=None):
        return images.mean(1, keepdim=True).roll(1, dims=2)


class Drawing(Mean):
    """Adds a constant that each sample draws anew; steps are seen from outside."""

    can_tile = True

    def translate(self, images, sampling, tiled=False):
        samples = []
        for n in range(sampling.samples):
            generator = torch.Generator().manual_seed(sampling.seed + n)
            assert not torch.is_grad_enabled()
            samples.append(self(images)[0, 0] * 0.9 + 0.1 * torch.rand((), generator=generator))
            yield n + 1, sampling.samples
        stack = torch.stack(samples)
        deviation = stack.std(0, correction=0) if sampling.samples > 1 else None
        return VolumePrediction(stack.mean(0), deviation, {"samples": sampling.samples, "tiled": tiled})


class VolumeMethod(Tlp):
    name, volumetric, uses_regions = "of-volumes", True, False

    def build(self, config):
        return Mean()


class SamplingMethod(VolumeMethod):
    draws_samples = True


@pytest.fixture
def of_volumes(tiny_model):
    def make(network, method):
        card = dataclasses.replace(tiny_model.card, prompts="none")
        return dataclasses.replace(tiny_model, network=network.eval(), method=method, card=card)

    return make


def finish(steps):
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


def test_a_plain_network_gives_its_volume_in_one_step():
    images = np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)
    steps, volume = finish(predict_volume(Mean(), images))
    assert steps == [(1, 1)]
    assert np.allclose(volume.values, np.roll(images.mean(0), 1, axis=0))
    assert volume.deviation is None
    assert volume.facts == {}


def test_gradients_are_off_in_a_step_and_as_they_were_between():
    steps = predict_volume(Drawing(), np.zeros((1, 2, 4, 4), dtype=np.float32), sampling=Sampling(samples=3))
    assert [next(steps) for _ in range(2)] == [(1, 3), (2, 3)]
    assert torch.is_grad_enabled()
    steps.close()


def test_a_translation_of_volumes_has_the_sources_grid_and_counts_steps(of_volumes, patient):
    sources = [patient["T1"], patient["T2"]]
    translation = translate(sources, of_volumes(Drawing(), SamplingMethod()), sampling=Sampling(samples=4, seed=7))
    counted = [event.done for event in translation if type(event).__name__ == "Progress"]
    assert counted == [1, 2, 3, 4]
    assert translation.result.geometry.allclose(patient["T1"].geometry, 1e-6)
    spread = translation.uncertainty
    assert spread.synthetic
    assert spread.geometry.allclose(patient["T1"].geometry, 1e-6)
    head = patient["T1"].array > 300
    assert (spread.array[head] > 0).mean() > 0.9
    assert spread.array[head].max() < 0.06 * np.ptp(translation.result.array)  # the draws lie within 5 % of the range
    asked = translation.record.as_dict()["compute"]["sampling"]["asked"]
    assert asked == {"sampler": "default", "samples": 4, "seed": 7}


def test_one_sample_has_no_spread_and_the_same_seed_gives_the_same_voxels(of_volumes, patient):
    sources, model = [patient["T1"], patient["T2"]], of_volumes(Drawing(), SamplingMethod())
    runs = [translate(sources, model, sampling=Sampling(seed=seed)) for seed in (3, 3, 4)]
    first, again, other = (run.run().array for run in runs)
    assert runs[0].uncertainty is None
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_sampling_is_refused_where_nothing_is_drawn(of_volumes, patient):
    sources = [patient["T1"], patient["T2"]]
    with pytest.raises(UsageError, match="MX-USE-206"):
        translate(sources, of_volumes(Mean(), VolumeMethod()), sampling=Sampling(samples=2))
    assert translate(sources, of_volumes(Mean(), VolumeMethod()), sampling=Sampling()).run().array.any()


def test_a_second_update_without_a_change_computes_nothing(of_volumes, patient):
    session = TranslationSession([patient["T1"], patient["T2"]], of_volumes(Mean(), VolumeMethod()))
    first = session.update().run()
    assert session.changed_slices > 0
    second = session.update().run()
    assert session.changed_slices == 0
    assert np.array_equal(first.array, second.array)


def test_where_memory_runs_out_the_volume_is_computed_part_by_part(of_volumes, patient):
    class Large(Drawing):
        def translate(self, images, sampling, tiled=False):
            if not tiled:
                raise MemoryError("DefaultCPUAllocator: can't allocate memory")
            return super().translate(images, sampling, tiled)

    sources = [patient["T1"], patient["T2"]]
    translation = translate(sources, of_volumes(Large(), SamplingMethod()))
    result = translation.run()
    assert [warning.code for warning in translation.warnings if warning.code == "MX-RES-025"]
    assert "part by part" in next(w.fix for w in translation.warnings if w.code == "MX-RES-025")
    assert translation.record.as_dict()["compute"]["tiled"] is True
    whole = translate(sources, of_volumes(Drawing(), SamplingMethod())).run()
    assert np.array_equal(result.array, whole.array)


@pytest.mark.parametrize(
    ("name", "value"),
    [("sampler", "euler"), ("steps", 0), ("steps", 2.5), ("samples", 0), ("samples", True), ("seed", -1), ("eta", 1.5)],
)
def test_a_sampling_that_cannot_be_is_refused(name, value):
    with pytest.raises(UsageError, match="MX-USE-205") as caught:
        Sampling(**{name: value})
    assert caught.value.where == name
