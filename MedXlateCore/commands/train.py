"""``medxlate train``: a table of cases and a configuration in, a model package out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from MedXlateCore.errors import UsageError

if TYPE_CHECKING:
    from MedXlateCore.training.config import TrainingConfig

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG.toml", help="configuration; or use --preset")
    parser.add_argument("--preset", metavar="NAME", help="configuration shipped with MedXlate, such as tlp-tiny")
    parser.add_argument(
        "--data", type=Path, metavar="CSV", help="table of cases (case, patient, split, T1, T2, ..., seg)"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="RUN", help="folder of the run; the model is RUN/model"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in RUN, with the configuration it was started with"
    )
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="TABLE.KEY=VALUE",
        help="change one setting, such as training.batch_size=8; may be repeated",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, metavar="N", help="optimiser steps, instead of the configuration's length")
    parser.add_argument(
        "--device", metavar="NAME", help="auto, cpu, cuda:0 or mps (default: the configuration's, auto)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def run(options: argparse.Namespace) -> int:
    """Train; see :mod:`MedXlateCore.cli` for the exit codes."""
    config = _config(options)
    from MedXlateCore.directions import modalities_of
    from MedXlateCore.training.run import train

    package = train(config, options.out, resume=options.resume, quiet=options.quiet)
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    targets = ", ".join(modalities_of(config.directions)[1])
    if getattr(rank_zero_only, "rank", 0) == 0:  # of several processes, one talks
        print(f"{package}  (model for synthetic {targets}; research use only, not for diagnosis)")
    return 0


def _config(options: argparse.Namespace) -> TrainingConfig:
    from MedXlateCore.training.config import load_config
    from MedXlateCore.training.run import CONFIG_FILE, config_of_run

    overrides = list(options.overrides)
    if options.steps is not None:
        overrides.append(f"training.steps={options.steps}")
    if options.device is not None:
        overrides.append(f'training.accelerator="{options.device}"')
    if options.config is not None or options.preset is not None:
        return load_config(options.config, options.preset, overrides, options.data)
    if not options.resume:
        raise UsageError(
            "MX-USE-049",
            "neither a configuration nor a preset is given",
            expected="a TOML file or --preset NAME; or --resume for a run that was started before",
            where="medxlate train",
            fix="try --preset tlp-tiny --data cases.csv",
        )
    config_of_run(options.out)  # says so if there is no run
    return load_config(options.out / CONFIG_FILE, None, overrides, options.data)
