"""Gaussian diffusion: its noise in closed form, what networks predict of it, the samplers against oracles."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from MedXlateCore.models.blocks.denoising import GaussianSchedule, denoise

T = 1000


@pytest.fixture(scope="module")
def schedulers():
    """Return MONAI's schedulers, the oracle."""
    return pytest.importorskip(
        "monai.networks.schedulers", reason="MONAI (development extra) is not installed: its schedulers are the oracle"
    )


def images(seed=0, n=1):
    return torch.randn(n, 2, 4, 4, 4, generator=torch.Generator().manual_seed(seed))


def finished(run):
    while True:
        try:
            next(run)
        except StopIteration as end:
            return end.value


# --- noise ---------------------------------------------------------------------------------------------------------


def test_the_noise_is_linear_in_the_root_of_the_variances():
    schedule = GaussianSchedule()
    assert schedule.rates[0] == pytest.approx(0.0015)
    assert schedule.rates[-1] == pytest.approx(0.0195)
    middle = (math.sqrt(0.0015) + (math.sqrt(0.0195) - math.sqrt(0.0015)) * 500 / 999) ** 2
    assert schedule.rates[500] == pytest.approx(middle)
    assert schedule.kept[2] == pytest.approx(math.prod(1 - rate for rate in schedule.rates[:3]))
    assert schedule.kept[-1] < 2e-4  # next to nothing of the image is left
    assert (schedule.signal(-1), schedule.noise(-1)) == (1.0, 0.0)


def test_the_noise_is_monais(schedulers):
    theirs = schedulers.DDPMScheduler(T, schedule="scaled_linear_beta", beta_start=0.0015, beta_end=0.0195)
    ours = GaussianSchedule()
    assert torch.allclose(torch.tensor(ours.kept), theirs.alphas_cumprod, rtol=1e-4)
    clean, noise, levels = images(0, 3), images(1, 3), torch.tensor([0, 400, 999])
    assert torch.allclose(ours.noised(clean, levels, noise), theirs.add_noise(clean, noise, levels), atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
@pytest.mark.parametrize("level", [0, 500, 999])
def test_the_right_prediction_leads_to_the_clean_image(prediction, level):
    schedule = GaussianSchedule(prediction=prediction)
    clean, noise, levels = images(0).double(), images(1).double(), torch.tensor([level])
    noisy = schedule.noised(clean, levels, noise)
    assert torch.allclose(schedule.clean(schedule.wanted(clean, levels, noise), noisy, level), clean, atol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
@pytest.mark.parametrize("level", [0, 500, 999])
def test_an_error_of_the_prediction_is_an_error_of_the_clean_image(prediction, level):
    schedule = GaussianSchedule(prediction=prediction)
    noisy, predicted = images(0).double(), images(1).double()
    off = schedule.clean(predicted + 1, noisy, level) - schedule.clean(predicted, noisy, level)
    assert torch.allclose(off.abs(), torch.full_like(off, schedule.error(level)), rtol=1e-9)


@pytest.mark.parametrize(("level", "value"), [(100, 0.5), (300, -1.0), (600, 2.0)])
def test_what_is_expected_behind_the_noise_is_the_mean_of_what_may_be(level, value):
    schedule = GaussianSchedule()
    clean, noise = torch.randn(2, 1_000_000, generator=torch.Generator().manual_seed(0))
    near = (schedule.signal(level) * clean + schedule.noise(level) * noise - value).abs() < 0.1
    expected = schedule.expected(torch.tensor([[value]]), torch.tensor([level])).item()
    assert expected == pytest.approx(float(clean[near].mean()), abs=0.02)
    assert abs(expected) > 0.3


@pytest.mark.parametrize("steps", [1, 7, 50, 1000])
def test_a_path_begins_at_its_start_and_ends_clean(steps):
    path = GaussianSchedule().path(steps)
    assert (path[0], path[-1], len(path)) == (999, -1, steps + 1)
    assert all(a > b for a, b in itertools.pairwise(path))
    assert GaussianSchedule().path(3, start=499)[0] == 499
    assert len(GaussianSchedule().path(50, start=9)) == 11  # no more steps than levels


# --- samplers against oracles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [999, 500, 20])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_step_of_ddim_is_monais(schedulers, level, eta):
    theirs = schedulers.DDIMScheduler(
        T, schedule="scaled_linear_beta", beta_start=0.0015, beta_end=0.0195, clip_sample=False
    )
    theirs.set_timesteps(50)
    ours, noisy, predicted = GaussianSchedule(), images(0), images(1)
    expected, _ = theirs.step(predicted, level, noisy, eta=eta, generator=torch.Generator().manual_seed(3))
    noise = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(3))
    clean = ours.clean(predicted, noisy, level)
    assert torch.allclose(ours.ddim(clean, noisy, level, level - 20, eta, noise), expected, atol=2e-5)


@pytest.mark.parametrize("level", [999, 500, 1])
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_a_step_of_ddpm_is_monais(schedulers, level, prediction):
    name = {"epsilon": "epsilon", "v": "v_prediction"}[prediction]
    theirs = schedulers.DDPMScheduler(
        T, schedule="scaled_linear_beta", beta_start=0.0015, beta_end=0.0195, clip_sample=False, prediction_type=name
    )
    ours, noisy, predicted = GaussianSchedule(prediction=prediction), images(0), images(1)
    expected, _ = theirs.step(predicted, level, noisy, generator=torch.Generator().manual_seed(3))
    noise = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(3))
    clean = ours.clean(predicted, noisy, level)
    assert torch.allclose(ours.ddim(clean, noisy, level, level - 1, 1.0, noise), expected, atol=5e-4)


def gaussian(schedule, mean=0.6, spread=0.3):
    """Return the best prediction where clean values are normal: everything is then known in closed form."""

    def network(noisy, level):
        alpha, sigma = schedule.signal(level), schedule.noise(level)
        gain = alpha * spread**2 / (alpha**2 * spread**2 + sigma**2)
        clean = mean + gain * (noisy - alpha * mean)
        return (noisy - alpha * clean) / sigma

    return network


def run(sampler, steps, eta=0.0, noisy=None, seed=0, path=None):
    schedule = GaussianSchedule()
    noisy = torch.linspace(-2.5, 2.5, 64, dtype=torch.float32).view(1, 1, 4, 4, 4) if noisy is None else noisy
    generator = torch.Generator().manual_seed(seed)
    return finished(denoise(schedule, gaussian(schedule), noisy, path or schedule.path(steps), sampler, eta, generator))


def test_the_solver_and_ddim_go_the_same_way():
    exact = run("ddim", 1000)
    assert (run("dpm_solver", 200) - exact).abs().max() < 0.02
    assert exact.mean().item() == pytest.approx(0.6, abs=0.02)


def test_the_solver_needs_fewer_steps_than_ddim():
    exact = run("ddim", 1000)
    path = [round(999 * (1 - n / 15)) for n in range(16)] + [-1]  # down to the lowest noise: its step adds no error
    errors = {name: (run(name, 15, path=path) - exact).abs().max() for name in ("ddim", "dpm_solver")}
    assert errors["dpm_solver"] < 0.5 * errors["ddim"]


@pytest.mark.parametrize(("sampler", "eta"), [("ddpm", 0.0), ("ddim", 1.0), ("ddim", 0.5)])
def test_drawn_images_have_the_spread_of_the_data(sampler, eta):
    noisy = torch.randn(4, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    made = run(sampler, 1000, eta, noisy)
    assert made.mean().item() == pytest.approx(0.6, abs=0.03)
    assert made.std().item() == pytest.approx(0.3, abs=0.03)


def test_without_eta_nothing_is_drawn_and_with_it_the_seed_decides():
    assert torch.equal(run("ddim", 10, 0.0, seed=1), run("ddim", 10, 0.0, seed=2))
    assert torch.equal(run("dpm_solver", 10, seed=1), run("dpm_solver", 10, seed=2))
    assert torch.equal(run("ddim", 10, 1.0, seed=1), run("ddim", 10, 1.0, seed=1))
    assert not torch.equal(run("ddim", 10, 1.0, seed=1), run("ddim", 10, 1.0, seed=2))


def test_ddpm_is_ddim_with_full_noise():
    assert torch.equal(run("ddpm", 10, seed=4), run("ddim", 10, 1.0, seed=4))


def test_it_pauses_after_each_step():
    schedule = GaussianSchedule()
    steps = denoise(schedule, gaussian(schedule), images(), schedule.path(7), "ddim")
    assert sum(1 for _ in steps) == 7
