"""The battery that every registered method passes, on its ``tiny`` preset. A new method is found here by itself."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import pytest
import torch
from sample import sampled
from scan_batches import scan_batch

from MedXlateCore.config import read_dataclass, to_mapping
from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.models.card import ModelCard
from MedXlateCore.models.method import Batch, Method, TrainingState
from MedXlateCore.models.package import load_package, save_package
from MedXlateCore.models.registry import get_method, get_preset, get_recipe_preset, list_methods

SIZE = 32  # a multiple of every method's size_multiple that a discriminator can judge
DEPTH = 16  # slices of the volumes that volumetric methods see instead; all have to do with so few
BF16_MEAN, BF16_MAX = 0.015, 0.15  # what autocast may deviate, on [-1, 1], with outputs that fill that range

MODALITIES = ("T1", "T2", "FLAIR", "PD")


@pytest.fixture(params=list_methods())
def method(request) -> Method:
    return get_method(request.param)


@pytest.fixture
def config(method):
    return get_preset(method, "tiny")


def build(method, config, seed=0):
    torch.manual_seed(seed)
    return method.build(config).eval()


def trained_like(network, seed=1):
    """Give a network weights of a size that training ends with, so that its outputs are not all but zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            parameter.data = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
    if (
        getattr(getattr(network, "config", None), "output_activation", "") == "none"
    ):  # linear: nothing keeps random weights in range
        with torch.no_grad():
            raw = network.train()(torch.rand(2, network.config.inputs, SIZE, SIZE, generator=generator) * 2 - 1)
            network.eval().output.weight *= 0.5 * (raw + 1).mean().sign() / raw.std()
    return network


def size_of(method, height=SIZE, width=SIZE, depth=DEPTH):
    """Return the size of a method's images: of slices, or of volumes."""
    return (depth, height, width) if method.volumetric else (height, width)


def inputs(method, config, n=2, size=None, seed=0):
    size = size or size_of(method)
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, method.n_sources(config) * method.context_slices(config), *size, generator=generator) * 2 - 1
    roi = torch.zeros(n, 1, *size)
    roi[..., 8:20, 8:20] = 0.5
    roi[..., 12:16, 12:16] = 1.0
    return images, roi


def make_batch(method, config, n=2):
    images, roi = inputs(method, config, n)
    regions = torch.cat((roi == 0.5, roi == 1.0), dim=1).float()
    # a target that can be learned: the first source, darker, brighter in the core
    target = (images[:, :1] * 0.5 - 0.3 + 0.8 * (roi == 1.0)).clamp(-1, 1)
    if method.many_scans:
        return scan_batch(images, target)
    return Batch(images, target, regions, torch.ones_like(roi))


def in_direction(batch, direction):
    """Return a batch of another direction; batches of many scans a patient have none."""
    return replace(batch, direction=direction) if isinstance(batch, Batch) else batch


def n_directions(config):
    """Return how many directions of translation the tiny preset knows: most methods one."""
    return len(getattr(config, "directions", ("",)))


def make_state(recipe, seed=0, learning_rate=None):
    networks = recipe.networks()
    for network in networks.values():
        network.train()
    generator = torch.Generator().manual_seed(seed)
    return TrainingState(networks, recipe.optimisers(learning_rate), lambda loss: loss.backward(), generator, 0)


def stages_of(recipe):
    """Return each stage of a training, in order, with a progress in its middle."""
    found = {}
    for n in range(1000):
        found.setdefault(recipe.stage_of((n + 0.5) / 1000), []).append((n + 0.5) / 1000)
    return {stage: at[len(at) // 2] for stage, at in found.items()}


def make_card(method, config):
    sources = MODALITIES[: method.n_sources(config)]
    return ModelCard(
        name=f"{method.name}-test",
        version="0.1.0",
        method=method.name,
        config=to_mapping(config),
        sources=sources,
        targets=("T1ce",),
        prompts="region" if method.uses_regions else "none",
        grid={},
        normalisers={name: {"kind": "minmax"} for name in (*sources, "T1ce")},
        output={"T1ce": {"kind": "relative", "low": 0.0, "high": 1.0}},
    )


def test_it_is_described(method):
    assert method.citation
    assert "tiny" in method.presets
    assert all(isinstance(preset, method.config_type) for preset in method.presets.values())
    assert all(isinstance(recipe, method.recipe_type) for recipe in method.recipe_presets.values())
    assert set(method.recipe_presets) <= set(method.presets)


def test_the_tiny_preset_is_tiny(method, config):
    assert sum(p.numel() for p in build(method, config).parameters()) < 2_000_000


def test_it_gives_one_image_in_range(method, config):
    network = build(method, config)
    sizes = [size_of(method), size_of(method, SIZE, 2 * SIZE), size_of(method, 3 * SIZE // 2, SIZE)]
    for size in dict.fromkeys((*sizes, size_of(method, depth=2 * DEPTH))):
        output = network(*inputs(method, config, 3, size))
        assert output.shape == (3, 1, *size)
        assert output.dtype == torch.float32
        assert output.abs().max() <= 1


def test_every_preset_can_be_built(method):
    for name in method.presets:
        with torch.device("meta"):
            assert method.build(get_preset(method, name)).state_dict()


def test_a_size_that_it_does_not_declare_is_refused(method, config):
    network, multiple = build(method, config), method.size_multiple(config)
    if multiple == 1:
        size = size_of(method, SIZE + 1, SIZE)
        assert network(*inputs(method, config, 1, size)).shape[2:] == size
        return
    sizes = [size_of(method, SIZE + 1, SIZE), size_of(method, SIZE, SIZE + multiple // 2)]
    for size in (*sizes, *([size_of(method, depth=DEPTH + multiple // 2)] if method.volumetric else [])):
        with pytest.raises(InputError, match="MX-MOD-007"):
            network(*inputs(method, config, 1, size))


def test_a_wrong_number_of_channels_is_refused(method, config):
    network = build(method, config)
    images, roi = inputs(method, config)
    slices = images[:, :, 0] if method.volumetric else images.unsqueeze(2)
    for wrong in (torch.cat((images, images[:, :1]), dim=1), images[:, :0], slices):
        with pytest.raises(InputError, match="MX-MOD-008"):
            network(wrong, roi)


def test_a_prompt_of_another_size_is_refused(method, config):
    images, roi = inputs(method, config)
    if method.uses_regions:
        with pytest.raises(InputError, match="MX-MOD-009"):
            build(method, config)(images, roi[..., :-4])


def test_a_step_reaches_every_parameter(method, config):
    torch.manual_seed(0)
    recipe = method.recipe(config, get_recipe_preset(method, "tiny"))
    state = make_state(recipe, seed=2)  # a seed that does not drop all prompts
    before = {name: [p.detach().clone() for p in net.parameters()] for name, net in state.networks.items()}
    for state.progress in stages_of(recipe).values():
        for step in range(2 * n_directions(config)):
            recipe.step(in_direction(make_batch(method, config, 4), step // 2), state)
    for name, network in state.networks.items():
        pairs = zip(network.named_parameters(), before[name], strict=True)
        still = [key for (key, parameter), old in pairs if torch.equal(parameter, old)]
        assert not still, f"{name}: no training reaches {still}"


def test_a_training_goes_through_its_stages_in_their_order(method, config):
    recipe = method.recipe(config, get_recipe_preset(method, "tiny"))
    assert tuple(stages_of(recipe)) == tuple(recipe.stages)
    judged = [recipe.judged(n / 100) for n in range(100)]
    assert judged[-1]
    assert judged == sorted(judged)  # once the target can be made, it can be made


def test_the_prompt_reaches_the_output_and_every_source_does(method, config):
    network = trained_like(build(method, config))
    images, roi = inputs(method, config)
    if hasattr(network, "translate"):  # it computes in steps, which take no gradients
        without = [images * (torch.arange(images.shape[1]) != n).view(-1, 1, 1, 1) for n in range(images.shape[1])]
        assert all(not torch.equal(network(images, roi), network(other, roi)) for other in without)
    else:
        images.requires_grad_(True)
        network(images, roi).sum().backward()
        assert (images.grad.abs().flatten(2).amax(dim=(0, 2)) > 0).all()
    if method.uses_regions:
        assert not torch.equal(network(images, roi), network(images, torch.zeros_like(roi)))


def test_the_same_seed_gives_the_same_network_and_another_seed_another(method, config):
    first, again, other = (build(method, config, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_evaluation_has_no_randomness(method, config):
    network = build(method, config)
    images, roi = inputs(method, config)
    torch.manual_seed(1)
    first = network(images, roi)
    torch.manual_seed(2)
    assert torch.equal(first, network(images, roi))


def test_a_slice_does_not_depend_on_its_batch(method, config):
    network = trained_like(build(method, config))
    images, roi = inputs(method, config, 3)
    whole = network(images, roi)
    single = network(images[1:2], roi[1:2])
    assert (whole[1:2] - single).abs().max() < 1e-5


def test_a_saved_package_is_loaded_bit_for_bit(method, config, tmp_path):
    network = trained_like(build(method, config))
    save_package(tmp_path / "model", make_card(method, config), network)
    torch.manual_seed(5)
    random_before = torch.get_rng_state()
    loaded = load_package(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), random_before)  # loading draws no random numbers
    assert not loaded.network.training
    assert loaded.config == config
    saved = network.state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in loaded.network.state_dict().items())
    images, roi = inputs(method, config)
    assert torch.equal(loaded.network(images, roi), network(images, roi))


def test_half_precision_stays_near_full_precision(method, config, record_property):
    network = trained_like(build(method, config))
    images, roi = inputs(method, config)
    with torch.no_grad():
        full = network(images, roi)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(images, roi).float()
    deviation = (full - half).abs()
    record_property("bf16_deviation", f"mean {deviation.mean():.4f}, max {deviation.max():.4f}")
    assert full.std() > 0.3  # not all but constant, which would hide a deviation
    assert deviation.mean() < BF16_MEAN
    assert deviation.max() < BF16_MAX


@pytest.mark.parametrize("value", [-1.0, pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_a_constant_image_gives_finite_values_and_gradients(method, config, value):
    network = build(method, config)
    images, roi = inputs(method, config)
    images = torch.full_like(images, value).requires_grad_(True)
    output = network(images, roi * 0)
    assert torch.isfinite(output).all()
    if hasattr(network, "translate"):  # it computes in steps, which take no gradients
        return
    output.sum().backward()
    assert torch.isfinite(images.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("method", sampled(list_methods()), indirect=True)
def test_a_few_steps_on_one_batch_lower_the_error(method, config):
    if method.unpaired:
        pytest.skip("its losses do not know the pairs: see test_unpaired_training_works.py")
    torch.manual_seed(0)
    recipe = method.recipe(config, get_recipe_preset(method, "tiny"))
    if len(recipe.stages) > 1:
        pytest.skip("a few steps are not enough for several stages: see its own test")
    state = make_state(recipe, learning_rate=1e-3)
    batch = make_batch(method, config)
    network = state.networks["generator"]

    def error():
        with torch.no_grad():
            roi = batch.regions[:, 1:] + 0.5 * batch.regions[:, :1]
            return (network.eval()(batch.images, roi) - batch.target).abs().mean().item()

    before = error()
    for _ in range(15):
        network.train()
        losses = recipe.step(batch, state)
        assert all(isinstance(value, float) for value in losses.values())
    assert error() < 0.8 * before


def test_every_direction_gives_another_image(method, config):
    if n_directions(config) == 1:
        pytest.skip("it learns one direction")
    network = trained_like(build(method, config))
    images, roi = inputs(method, config)
    results = [method.towards(network, config, n)(images, roi) for n in range(n_directions(config))]
    assert torch.equal(results[0], network(images, roi))
    for n, result in enumerate(results):
        assert result.shape == results[0].shape
        assert all((result - other).abs().max() > 1e-3 for other in results[:n])


def test_the_learning_rate_factor_starts_at_one_and_stays_in_range(method, config):
    recipe = method.recipe(config, get_recipe_preset(method, "tiny"))
    factors = [recipe.learning_rate_factor(n / 20) for n in range(21)]
    assert factors[0] == 1
    assert all(0 <= f <= 1 for f in factors)


@pytest.mark.parametrize("which", ["config", "recipe"])
def test_configurations_survive_json_and_refuse_unknown_keys(method, which):
    kind = method.config_type if which == "config" else method.recipe_type
    presets = method.presets if which == "config" else {n: get_recipe_preset(method, n) for n in method.presets}
    for preset in presets.values():
        assert read_dataclass(kind, json.loads(json.dumps(to_mapping(preset)))) == preset
    known = dataclasses.fields(kind)[0].name
    with pytest.raises(UsageError, match="MX-USE-040") as caught:
        read_dataclass(kind, {known + "s": 1})
    assert known in caught.value.fix
