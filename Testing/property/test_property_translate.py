"""Promises of a whole translation that hold for every grid: the order of voxel axes never matters, grids return.

Ten grids: axial, one slightly sheared, eight oblique (up to 39 degrees), anisotropic, odd-sized, left- or right-handed.
All 48 axis orders on all ten grids go through a small convolutional network. The tiny TLP package, which is slower,
goes through all 48 on two grids and through six drawn orders on each of the others; in the slow tests, through all.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from test_property_spatial import ORDERS, make_grid, reordered
from torch import nn

from MedXlateCore.pipeline import translate
from MedXlateCore.volume import Geometry

SHAPES = [(13, 17, 6), (12, 9, 7), (11, 10, 9), (9, 7, 13), (15, 11, 5)]
GRIDS = [
    Geometry(SHAPES[0], np.diag([-1.0, -1.0, 1.0, 1.0])),
    Geometry(SHAPES[1], make_grid(40, shear=0.03).affine_ras),
    *(Geometry(SHAPES[n % len(SHAPES)], make_grid(n).affine_ras) for n in range(1, 9)),
]


def lopsided_network() -> nn.Module:
    """Return a small network that tells left from right, front from back, and the two sources apart."""
    generator = torch.Generator().manual_seed(3)
    layers = nn.Sequential(nn.Conv2d(3, 6, 5, padding=2), nn.Tanh(), nn.Conv2d(6, 1, 3, padding=1), nn.Tanh())
    for parameter in layers.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 3
    network = nn.Module()
    network.layers = layers
    network.forward = lambda images, roi: layers(torch.cat((images, roi), 1))
    return network


def check(model, patient, orders):
    """Translate with sources and region in one axis order each, and compare with the patient's own order."""
    expected = translate([patient["T1"], patient["T2"]], model, roi=patient["region"], device="cpu").run()
    scale = expected.array.max()
    assert expected.array.std() > 0.05 * scale
    for order, second, third in orders:
        first = reordered(patient["T1"], order)
        sources = [first, reordered(patient["T2"], second)]
        result = translate(sources, model, roi=reordered(patient["region"], third), device="cpu").run()
        assert np.abs(result.geometry.affine_ras - first.geometry.affine_ras).max() <= 1e-6
        assert result.array.shape == first.array.shape
        difference = np.abs(result.array - order.apply_to_array(expected.array)).max()
        assert difference <= 1e-5 * scale, (order, second, third)


def all_orders(number):
    """Return all 48 axis orders of the first source, each with drawn orders of the second and of the region."""
    draw = random.Random(number)
    return [(order, draw.choice(ORDERS), draw.choice(ORDERS)) for order in ORDERS]


@pytest.mark.parametrize("number", range(10))
def test_translating_reordered_volumes_is_reordering_the_translation(number, altered, make_patient):
    check(altered(lopsided_network()), make_patient(GRIDS[number], seed=number), all_orders(number))


@pytest.mark.parametrize("number", range(10))
def test_a_real_network_sees_every_axis_order_alike(number, tiny_model, make_patient):
    orders = all_orders(number)
    if number not in (0, 3):
        orders = random.Random(100 + number).sample(orders, 6)
    check(tiny_model, make_patient(GRIDS[number], seed=number), orders)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, *range(4, 10)])
def test_a_real_network_sees_all_axis_orders_alike_on_the_other_grids(number, tiny_model, make_patient):
    check(tiny_model, make_patient(GRIDS[number], seed=number), all_orders(number))


def identity_model(altered, high, **grid):
    """Return a model whose network gives the first source back, with fixed windows from 0 to ``high``."""
    network = nn.Module()
    network.forward = lambda images, roi: images[:, :1]
    return altered(
        network,
        normalisers={name: {"kind": "window", "low": 0.0, "high": high} for name in ("T1", "T2")},
        output={"T1ce": {"kind": "absolute", "low": 0.0, "high": high}},
        grid={"orientation": "LPS", "size_multiple": [4, 4, 1], **grid},
    )


@pytest.mark.parametrize("number", range(10))
def test_whole_numbers_come_back_bit_for_bit_through_an_identity_network(number, altered, make_patient):
    patient = make_patient(GRIDS[number], seed=number)
    counts = {name: patient[name].with_array(np.rint(patient[name].array)) for name in ("T1", "T2")}
    result = translate(list(counts.values()), identity_model(altered, 2048.0), device="cpu").run()
    np.testing.assert_array_equal(result.array, counts["T1"].array)


@pytest.mark.parametrize("number", range(10))
def test_any_numbers_come_back_to_the_rounding_of_float32_through_an_identity_network(number, altered, make_patient):
    patient = make_patient(GRIDS[number], seed=number)
    result = translate([patient["T1"], patient["T2"]], identity_model(altered, 1733.3), device="cpu").run()
    assert np.abs(result.array - patient["T1"].array).max() <= 1733.3 * 2.0**-24


@pytest.mark.parametrize("number", range(10))
def test_another_spacing_returns_on_the_references_grid_within_its_values(number, altered, make_patient):
    patient = make_patient(GRIDS[number], seed=number)
    model = identity_model(altered, 2048.0, spacing_mm=[0.9, 1.1, None])
    result = translate([patient["T1"], patient["T2"]], model, device="cpu").run()
    assert np.array_equal(result.geometry.affine_ras, patient["T1"].geometry.affine_ras)
    assert result.array.shape == patient["T1"].array.shape
    assert result.array.min() >= -1e-3
    assert result.array.max() <= patient["T1"].array.max() * (1 + 1e-6)
    assert np.corrcoef(result.array.ravel(), patient["T1"].array.ravel())[0, 1] > 0.8
