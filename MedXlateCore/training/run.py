"""A training run from outside: its folder, starting, resuming and stopping.

The folder holds ``config.toml`` (every setting spelled out), ``run.json`` (cases, warnings, software), ``metrics.csv``,
``tensorboard/``, ``previews/``, ``checkpoints/``, ``cache/`` and ``model/``, the package of the best state. Translation
needs nothing but ``model/``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from MedXlateCore.config import read_toml, to_toml
from MedXlateCore.devices import choose_device, device_errors
from MedXlateCore.errors import Cancelled, InputError, ResourceError, UsageError, Warned
from MedXlateCore.files import atomic_write_text, check_writable, folder_lock, remove_stale_temporaries, write_json
from MedXlateCore.models.registry import get_method
from MedXlateCore.paths import existing_ancestor
from MedXlateCore.provenance import software_versions
from MedXlateCore.training import checkpoint
from MedXlateCore.training.config import TrainingConfig, config_from_mapping
from MedXlateCore.training.data import TrainingData, prepare_data
from MedXlateCore.training.interruption import Interrupted, Interruption
from MedXlateCore.training.log import ProgressLine
from MedXlateCore.training.scans import prepare_scans

__all__ = ["config_of_run", "train"]

CONFIG_FILE = "config.toml"


def config_of_run(folder: Path) -> TrainingConfig:
    """Return the configuration that a run was started with.

    Raises:
        UsageError: ``MX-TRN-002``, the folder holds no run.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        raise UsageError(
            "MX-TRN-002",
            "there is no run to resume",
            expected=f"a run's folder with its {CONFIG_FILE}",
            where=str(folder),
            fix="check the folder, or start a new run without --resume",
        )
    return config_from_mapping(read_toml(path), str(path))


def train(
    config: TrainingConfig,
    folder: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    interruption: Interruption | None = None,
) -> Path:
    """Train a model and return the folder of its package.

    Args:
        config: from :func:`MedXlateCore.training.config.load_config`.
        folder: the run's folder; new, or that of the run to resume.
        resume: go on from the newest whole checkpoint (from the start, if the run never got to one).
        quiet: no progress on stderr.
        interruption: to stop from elsewhere; Ctrl-C and SIGTERM always stop after the current step.

    Raises:
        UsageError: ``MX-TRN-001`` (the folder holds a run already), ``MX-TRN-002`` (nothing to resume), ``MX-TRN-003``
            (another configuration than the run was started with), ``MX-DAT-001``, ``MX-DAT-003``.
        InputError: ``MX-DAT-002`` to ``-011`` (the cases), ``MX-TRN-004`` (other data than the run was started with),
            ``MX-TRN-005``, ``MX-TRN-006`` (checkpoints that cannot be used), ``MX-TRN-007`` (the training diverged).
        ResourceError: ``MX-TRN-012`` (Lightning Fabric is missing), ``MX-RES-001``, ``MX-RES-020``, ``MX-RES-023``,
            ``MX-FIL-01x``.
        Cancelled: stopped; a checkpoint was saved.
    """
    fabric = _fabric(config)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(interruption or Interruption())
        resumed: checkpoint.Checkpoint | None = None
        warnings: list[Warned] = []
        if fabric.is_global_zero:
            stack.enter_context(_claimed(folder, resume))
        if resume:
            resumed, warnings = checkpoint.load_newest(folder / "checkpoints")
            _require_same_config(config, resumed, folder)
        fabric.barrier()
        data = _prepared(config, folder, fabric, stop, quiet)
        _require_same_data(data, resumed, folder)
        if fabric.is_global_zero:
            _write_facts(config, folder, data, [*_by_the_clock(config), *warnings, *data.warnings], str(fabric.device))
        return _run(config, folder, data, fabric, stop, resumed, quiet)


def _run(
    config: TrainingConfig,
    folder: Path,
    data: TrainingData,
    fabric: Any,
    stop: Interruption,
    resumed: checkpoint.Checkpoint | None,
    quiet: bool,
) -> Path:
    from MedXlateCore.training.loop import Trainer

    trainer = Trainer(config, folder, data, fabric, stop, resumed, quiet)
    try:
        with device_errors("training", "use a smaller training.batch_size or grid, or precision bf16-mixed"):
            trainer.run()
    except Interrupted:
        raise _cancelled(f"training, step {trainer.progress.step}, of {trainer.length}", folder) from None
    return folder / "model"


def _cancelled(where: str, folder: Path) -> Cancelled:
    error = Cancelled(where)
    error.fix = f"go on with: medxlate train --out {folder} --resume"
    return error


def _fabric(config: TrainingConfig) -> Any:
    """Return Lightning Fabric, launched on a device that has shown that it works."""
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise ResourceError(
            "MX-TRN-012",
            f"training needs a library that is not installed: {error.name}",
            expected="Lightning Fabric",
            fix="pip install 'medxlate[train]'",
        ) from error
    settings = config.training
    device = choose_device(settings.accelerator).torch_device
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    several = settings.devices > 1
    single: Any = 1 if device.type in ("cpu", "mps") else [device.index or 0]
    fabric = Fabric(
        accelerator=device.type,
        devices=settings.devices if several else single,
        # GAN recipes step one network at a time, so some parameters have no gradient in some passes
        strategy="ddp_find_unused_parameters_true" if several else "auto",
        precision=settings.precision,
    )
    fabric.launch()
    return fabric


@contextlib.contextmanager
def _claimed(folder: Path, resume: bool) -> Iterator[None]:
    """Hold the run's folder; refuse a folder that holds another run."""
    if not resume and (folder / CONFIG_FILE).exists():
        raise UsageError(
            "MX-TRN-001",
            "the folder holds a run already",
            expected="a new folder",
            where=str(folder),
            fix="choose another folder for --out, or go on with that run (--resume)",
        )
    check_writable(folder / CONFIG_FILE)
    was_there = existing_ancestor(folder)
    try:
        with folder_lock(folder):
            for part in (folder, *(folder / name for name in ("cache", "checkpoints", "model", "previews"))):
                remove_stale_temporaries(part)
            yield
    finally:
        _remove_if_empty(folder, was_there)


def _remove_if_empty(folder: Path, was_there: Path) -> None:
    """Take away what a run that never began would leave: empty folders below the one that was there before."""
    for path in (folder / "cache", folder, *folder.parents):
        if path == was_there:
            return
        with contextlib.suppress(OSError):  # not empty, or never made
            path.rmdir()


def _prepared(config: TrainingConfig, folder: Path, fabric: Any, stop: Interruption, quiet: bool) -> TrainingData:
    """Prepare the cases, in the leading process first, so that the others find them in the cache."""
    cache = Path(config.data.cache) if config.data.cache else folder / "cache"
    line: ProgressLine | None = None

    def progress(done: int, total: int) -> None:
        """Show how far the preparation is; raises :class:`Interrupted` after a request to stop."""
        nonlocal line
        line = line or ProgressLine("preparing cases", total, quiet=quiet or not fabric.is_global_zero)
        line.update(done)
        stop.check()

    try:
        with fabric.rank_zero_first():
            prepare = prepare_scans if get_method(config.model.method).many_scans else prepare_data
            return prepare(config, cache, progress)
    except Interrupted:
        error = Cancelled("preparing cases")
        error.fix = "start again with the same command; the cases that are prepared are kept"
        raise error from None
    finally:
        if line:
            line.close()


def _require_same_config(config: TrainingConfig, resumed: checkpoint.Checkpoint | None, folder: Path) -> None:
    if resumed is None or resumed.identity == config.identity():
        return
    now, then = _flat(config.to_mapping()), _flat(resumed.config)
    changed = [
        f"{key} was {then.get(key)!r}, is {now.get(key)!r}" for key in {**then, **now} if now.get(key) != then.get(key)
    ]
    raise UsageError(
        "MX-TRN-003",
        f"the run was started with another configuration: {'; '.join(changed[:5]) or 'its hash differs'}",
        expected="the same model, recipe, data settings, grid, intensities and training settings",
        where=str(folder),
        fix="resume with --out and --resume alone, or start a new run in another folder",
    )


def _require_same_data(data: TrainingData, resumed: checkpoint.Checkpoint | None, folder: Path) -> None:
    if resumed is None or resumed.data == data.fingerprint():
        return
    raise InputError(
        "MX-TRN-004",
        f"the training data are not those that the run was started with ({len(data.train)} training and "
        f"{len(data.val)} validation cases now)",
        expected="the same cases, splits and image files",
        where=str(folder),
        fix="restore the table and its files, or start a new run in another folder",
    )


def _by_the_clock(config: TrainingConfig) -> list[Warned]:
    """Return the remark that a run of given minutes has."""
    minutes = config.training.minutes
    if minutes is None:
        return []
    text = f"the run ends after {minutes:g} minutes, so how far it gets depends on the machine"
    return [Warned("MX-TRN-016", text, "[training] minutes", "it cannot be repeated bit by bit; steps can")]


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _write_facts(config: TrainingConfig, folder: Path, data: TrainingData, warnings: list[Warned], device: str) -> None:
    atomic_write_text(folder / CONFIG_FILE, to_toml(config.to_mapping()))
    facts = {
        "cases": {
            case.row.case: {"split": case.row.split, "patient": case.row.patient, "cache": case.key}
            for case in (*data.train, *data.val)
        },
        "data_fingerprint": data.fingerprint(),
        "configuration_sha256": config.identity(),
        "device": device,
        "software": software_versions(),
        "warnings": [warning.as_dict() for warning in dict.fromkeys(warnings)],
    }
    write_json(folder / "run.json", facts)
