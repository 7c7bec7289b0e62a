"""Checkpoints: complete, verified, and never half there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.training.checkpoint import Progress, load_newest, restore, save


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))


def trained(optimiser_type: type[torch.optim.Optimizer] = torch.optim.Adam, **settings: object):
    net = network()
    optimiser = optimiser_type(net.parameters(), lr=1e-2, **settings)  # type: ignore[call-arg]
    for _ in range(3):
        optimiser.zero_grad()
        net(torch.randn(2, 1, 8, 8)).square().mean().backward()
        optimiser.step()
    return net, optimiser


def write(folder: Path, step: int, keep: int = 2, **changes: object):
    net, optimiser = trained()
    progress = Progress(step=step, best_score=0.1 + 0.2, sums={"l1": 1 / 3}, rows=7)
    arguments = {"config": {"a": 1}, "identity": "i", "data": "d", "keep": keep, **changes}
    save(folder, progress, {"generator": net}, {"generator": optimiser}, **arguments)  # type: ignore[arg-type]
    return net, optimiser


@pytest.mark.parametrize(
    ("optimiser_type", "settings"),
    [
        (torch.optim.Adam, {"betas": (0.5, 0.999)}),
        (torch.optim.AdamW, {"weight_decay": 0.05, "amsgrad": True}),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (torch.optim.RMSprop, {"centered": True}),
    ],
)
def test_weights_and_optimiser_come_back_bit_for_bit(tmp_path: Path, optimiser_type, settings):
    net, optimiser = trained(optimiser_type, **settings)
    save(
        tmp_path,
        Progress(step=3),
        {"generator": net},
        {"generator": optimiser},
        config={},
        identity="i",
        data="d",
        keep=1,
    )
    checkpoint, warnings = load_newest(tmp_path)
    other = network(seed=5)
    other_optimiser = optimiser_type(other.parameters(), lr=7.0, **settings)
    restore(checkpoint, {"generator": other}, {"generator": other_optimiser})
    assert warnings == []
    for key, value in net.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key
    before, after = optimiser.state_dict(), other_optimiser.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for index, entries in before["state"].items():
        for key, value in entries.items():
            same = (
                torch.equal(after["state"][index][key], value)
                if torch.is_tensor(value)
                else after["state"][index][key] == value
            )
            assert same, (index, key)


def test_progress_comes_back_exactly(tmp_path: Path):
    write(tmp_path, 12)
    checkpoint, _ = load_newest(tmp_path)
    assert checkpoint.progress == Progress(step=12, best_score=0.1 + 0.2, sums={"l1": 1 / 3}, rows=7)
    assert (checkpoint.identity, checkpoint.data, checkpoint.config) == ("i", "d", {"a": 1})


def test_nothing_to_resume_is_not_an_error(tmp_path: Path):
    assert load_newest(tmp_path) == (None, [])


def test_only_the_newest_are_kept(tmp_path: Path):
    for step in (1, 2, 3, 4):
        write(tmp_path, step, keep=2)
    assert sorted(p.name for p in tmp_path.glob("*.json")) == ["step-00000003.json", "step-00000004.json"]
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_what_a_run_that_went_back_left_ahead_is_deleted_and_never_preferred(tmp_path: Path):
    for step in (1, 2, 9):
        write(tmp_path, step, keep=3)
    newest = tmp_path / "step-00000009.json"
    newest.write_text(newest.read_text()[:-50])
    write(tmp_path, 3, keep=1)
    assert [p.name for p in tmp_path.glob("*.json")] == ["step-00000003.json"]
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


@pytest.mark.parametrize("damage", ["json", "tensors", "missing tensors", "other tensors"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path: Path, damage: str):
    write(tmp_path, 1)
    write(tmp_path, 2)
    tensors = next(tmp_path.glob("step-00000002-*.safetensors"))
    if damage == "json":
        (tmp_path / "step-00000002.json").write_text('{"format": 1}')
    elif damage == "tensors":
        tensors.write_bytes(tensors.read_bytes()[:-4])
    elif damage == "missing tensors":
        tensors.unlink()
    else:
        content = bytearray(tensors.read_bytes())
        content[-1] ^= 1
        tensors.write_bytes(content)
    checkpoint, warnings = load_newest(tmp_path)
    assert checkpoint.progress.step == 1
    assert [warning.code for warning in warnings] == ["MX-TRN-010"]


def test_if_no_checkpoint_is_whole_the_run_does_not_start_over_silently(tmp_path: Path):
    write(tmp_path, 1)
    (tmp_path / "step-00000001.json").write_text("{")
    with pytest.raises(InputError) as caught:
        load_newest(tmp_path)
    assert caught.value.code == "MX-TRN-005"


def test_tensors_without_their_json_do_not_count(tmp_path: Path):
    write(tmp_path, 1)
    (tmp_path / "step-00000001.json").unlink()
    assert load_newest(tmp_path) == (None, [])


@pytest.mark.parametrize(
    "other", [nn.Conv2d(1, 2, 3), nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))]
)
def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, other: nn.Module):
    write(tmp_path, 1)
    checkpoint, _ = load_newest(tmp_path)
    with pytest.raises(InputError) as caught:
        restore(checkpoint, {"generator": other}, {"generator": torch.optim.Adam(other.parameters())})
    assert caught.value.code == "MX-TRN-006"


def test_another_optimiser_is_refused(tmp_path: Path):
    net, _ = write(tmp_path, 1)
    checkpoint, _ = load_newest(tmp_path)
    with pytest.raises(InputError) as caught:
        restore(checkpoint, {"generator": net}, {"generator": torch.optim.SGD(net.parameters(), lr=1.0)})
    assert caught.value.code == "MX-TRN-006"


def test_an_optimiser_that_keeps_more_than_numbers_is_refused(tmp_path: Path):
    net, optimiser = trained()
    optimiser.param_groups[0]["secret"] = object()
    with pytest.raises(UsageError) as caught:
        save(tmp_path, Progress(step=1), {"g": net}, {"g": optimiser}, config={}, identity="", data="", keep=1)
    assert caught.value.code == "MX-TRN-008"
    assert not list(tmp_path.iterdir())
