"""Options that several subcommands share: declared and read in one way."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from MedXlateCore.errors import UsageError

if TYPE_CHECKING:
    from MedXlateCore.models.sampling import Sampling

__all__ = [
    "add_device_options",
    "add_label_option",
    "add_model_options",
    "add_sampling_options",
    "parse_labels",
    "parse_sampling",
    "split_named",
]

_LABELS = re.compile(r"(?P<region>[^=]*[^=\s])\s*=(?P<values>\s*-?\d{1,9}\s*(,\s*-?\d{1,9}\s*)*)")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--model`` and ``--target``."""
    parser.add_argument("--model", required=True, metavar="DIR|NAME", help="model package: folder or installed name")
    parser.add_argument("--target", metavar="MODALITY", help="what to make (default: the model's only target)")


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--device`` and ``--precision``."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 or mps (default: auto)")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16 (default: auto)")


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Declare how a diffusion model draws samples; read by :func:`parse_sampling`."""
    parser.add_argument("--samples", type=int, metavar="N", help="average N samples of a diffusion model (default: 1)")
    parser.add_argument("--sampler", metavar="NAME", help="ddpm, ddim or dpm_solver (default: the model's)")
    parser.add_argument("--sampling-steps", type=int, metavar="N", help="denoising steps (default: the model's)")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of a diffusion model's noise (default: 0)")


def parse_sampling(options: argparse.Namespace, uncertainty: bool = False) -> Sampling | None:
    """Return what the options of :func:`add_sampling_options` say; None if they say nothing.

    Args:
        options: the options.
        uncertainty: True if the samples' standard deviation is wanted too.

    Raises:
        UsageError: ``MX-USE-205``, a value that cannot be.
    """
    given = {
        name: value
        for name, value in (
            ("samples", options.samples), ("sampler", options.sampler), ("steps", options.sampling_steps),
            ("seed", options.seed),
        )
        if value is not None
    }  # fmt: skip
    if not given and not uncertainty:
        return None
    from MedXlateCore.models.sampling import SAMPLES_FOR_UNCERTAINTY, Sampling

    sampling = Sampling(**{"samples": SAMPLES_FOR_UNCERTAINTY if uncertainty else 1, **given})
    if uncertainty and sampling.samples < 2:
        raise UsageError(
            "MX-USE-205",
            "an uncertainty map is asked for, of one sample",
            expected="at least 2 samples",
            where="--samples",
            fix="leave --samples out, or draw more",
        )
    return sampling


def add_label_option(parser: argparse.ArgumentParser, option: str, what: str) -> None:
    """Declare an option for label values, to be read by :func:`parse_labels`; ``what`` has such values."""
    parser.add_argument(
        option, action="append", default=[], metavar="REGION=N[,N...]",
        help=f"label values of {what}, such as oedema=2 or core=1,4 (default: BraTS labels)",
    )  # fmt: skip


def parse_labels(texts: list[str], option: str) -> dict[str, list[int]]:
    """Read ``oedema=2 core=1,4`` into ``{"oedema": [2], "core": [1, 4]}``.

    Raises:
        UsageError: ``MX-USE-031``, not of that form.
    """
    labels: dict[str, list[int]] = {}
    for text in texts:
        match = _LABELS.fullmatch(text)
        if match is None:
            raise UsageError(
                "MX-USE-031",
                f"'{text}' names no labels",
                expected="REGION=N or REGION=N,N such as core=1,4",
                where=option,
                fix="name a region and its label values",
            )
        labels.setdefault(match["region"].strip(), []).extend(int(value) for value in match["values"].split(","))
    return labels


def split_named(text: str, option: str) -> tuple[str, str]:
    """Split ``T1=t1.nii.gz`` into modality and file.

    Raises:
        UsageError: ``MX-USE-030``, not of that form.
    """
    role, equals, path = text.partition("=")
    if not (equals and role and path):
        raise UsageError(
            "MX-USE-030",
            f"'{text}' does not say which modality the file is",
            expected="MODALITY=FILE such as T1=t1.nii.gz",
            where=option,
            fix="put the modality and '=' before the file's name",
        )
    return role, path
