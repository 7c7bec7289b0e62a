"""``medxlate batch``: a table or a BIDS folder of cases in, a folder of synthetic volumes and a manifest out."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedXlateCore.commands.options import (
    add_device_options,
    add_label_option,
    add_model_options,
    add_sampling_options,
    parse_labels,
    parse_sampling,
)
from MedXlateCore.commands.translate import FileRequest, drive, translate_files
from MedXlateCore.errors import InternalError, MedXlateError, ResourceError
from MedXlateCore.models.sampling import Sampling

if TYPE_CHECKING:
    from MedXlateCore.batch import BatchCase
    from MedXlateCore.inference.wanted import Wanted
    from MedXlateCore.models.package import LoadedModel

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options. None of them is one that 3D Slicer takes for itself."""
    parser.add_argument(
        "--input", required=True, type=Path, metavar="CSV|DIR",
        help="table of cases (columns case and one for each modality) or BIDS folder",
    )  # fmt: skip
    add_model_options(parser)
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder of results and manifest.jsonl"
    )
    parser.add_argument(
        "--roi-column", metavar="NAME",
        help="column of region label maps, such as seg; in a BIDS folder the suffix of such files, such as dseg",
    )  # fmt: skip
    add_label_option(parser, "--roi-label", "a region")
    parser.add_argument("--split", metavar="NAME", help="only cases of this split of the table, such as test")
    parser.add_argument("--limit", type=int, metavar="N", help="translate at most N cases in this run")
    parser.add_argument("--overwrite", action="store_true", help="translate finished cases again")
    add_device_options(parser)
    add_sampling_options(parser)


def run(options: argparse.Namespace) -> int:
    """Translate every case that is not finished; a bad case is noted and does not stop the others.

    Returns:
        0 if every case is finished; otherwise the worst of what happened: 3 input, 4 resources, 70 a defect.

    Raises:
        MedXlateError: what concerns the whole batch: table, model, target, device, output folder (``MX-FIL-015`` while
            another batch works there).
    """
    from MedXlateCore.batch import Aim, Manifest, find_cases
    from MedXlateCore.devices import choose_device
    from MedXlateCore.files import folder_lock, write_json
    from MedXlateCore.io.bids import dataset_description
    from MedXlateCore.models.package import load_package
    from MedXlateCore.pipeline import check_sampling, facts_like, wanted_image

    labels, sampling = parse_labels(options.roi_label, "--roi-label"), parse_sampling(options)
    choose_device(options.device, options.precision)
    model = load_package(options.model)
    check_sampling(sampling, model)
    like = None if options.target_like is None else facts_like(options.target_like, model)
    wanted = wanted_image(model, options.target, options.target_text, like)
    aim = Aim(wanted.modality, wanted.scale_of, wanted.key, model.method.speaks)
    cases = find_cases(options.input, model.card, aim, options.roi_column, options.split)
    batch = _Batch(options, model, wanted, labels, sampling)
    with folder_lock(options.output):
        if options.input.is_dir():
            write_json(options.output / "dataset_description.json", dataset_description())
        manifest = Manifest(options.output)
        try:
            for number, case in enumerate(cases, start=1):
                line = batch.work(case)
                if line is None:  # the limit is reached
                    break
                manifest.add(line)
                print(f"[{number}/{len(cases)}] {_said(line)}", flush=True)
        finally:
            manifest.finish([case.name for case in cases])
    return batch.close(len(cases))


class _Batch:
    """The work on one case after the other, with one model."""

    def __init__(
        self,
        options: argparse.Namespace,
        model: LoadedModel,
        wanted: Wanted,
        labels: dict[str, list[int]],
        sampling: Sampling | None,
    ) -> None:
        self.options, self.model, self.wanted, self.labels, self.sampling = options, model, wanted, labels, sampling
        self.counts = {"done": 0, "skipped": 0, "failed": 0}
        self.exit_code = 0

    def work(self, case: BatchCase) -> dict[str, Any] | None:
        """Return the manifest's line about a case; None if the limit was reached before it."""
        started = time.perf_counter()
        facts: dict[str, Any] = {"case": case.name, "target": self._target_name, "status": "failed"}
        try:
            record = self._finished(case)
            facts["status"] = "done" if record is None else "skipped"
            if record is None:
                if self.options.limit is not None and self.counts["done"] + self.counts["failed"] >= self.options.limit:
                    return None
                record = self._translated(case)
            facts |= self._result(case, record)
        except MedXlateError as error:
            facts |= self._failure(error)
        except MemoryError:
            facts |= self._failure(ResourceError("MX-RES-001", "memory ran out", where=case.name))
        except Exception as error:  # noqa: BLE001 - a night's batch must not end with one case
            lack = ResourceError.missing_library(error, case.name) if isinstance(error, ModuleNotFoundError) else None
            if lack is None:
                traceback.print_exception(error)
            facts |= self._failure(lack or InternalError.from_exception(error))
        self.counts[facts["status"]] += 1
        facts["seconds"] = round(time.perf_counter() - started, 2)
        return facts | {"finished_utc": datetime.now(UTC).isoformat(timespec="seconds")}

    def close(self, total: int) -> int:
        """Say how it went and return the exit code."""
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        left = total - sum(self.counts.values())
        print(f"{total} cases: {counts}{f', {left} left for the next run' if left else ''}", flush=True)
        print("synthetic images: research use only, not for diagnosis", flush=True)
        return self.exit_code

    @property
    def _target_name(self) -> str:
        """What the manifest calls the target."""
        return "-".join(filter(None, (self.wanted.modality.value, self.wanted.key)))

    def _finished(self, case: BatchCase) -> dict[str, Any] | None:
        from MedXlateCore.batch import finished_record

        if self.options.overwrite:
            return None
        return finished_record(
            case, self.options.output, self.model.card, self.wanted.modality, self.labels, self.sampling or Sampling(),
            self.wanted.facts,
        )  # fmt: skip

    def _translated(self, case: BatchCase) -> dict[str, Any]:
        from MedXlateCore.io import check_output

        if case.problem is not None:
            raise case.problem
        options, named = self.options, self.wanted.facts is None
        request = FileRequest(
            tuple(case.sources.items()), options.output / case.output,
            self.wanted.modality.value if named else None, None, case.roi, self.labels, options.device,
            options.precision, sampling=self.sampling, target_text=options.target_text,
            target_like=None if named or options.target_text is not None else self.wanted.facts,
            like=options.target_like,
        )  # fmt: skip
        check_output(request.output, request.inputs)
        return translate_files(request, self.model, lambda translation: drive(translation, quiet=True))

    def _result(self, case: BatchCase, record: dict[str, Any]) -> dict[str, Any]:
        from MedXlateCore.io import read_record

        written = read_record(self.options.output / case.output) or {}
        return {
            "output": case.output.as_posix(),
            "sha256": written.get("output_file", {}).get("sha256", ""),
            "warnings": [warning["code"] for warning in record["warnings"]],
            "error": None,
        }

    def _failure(self, error: MedXlateError) -> dict[str, Any]:
        self.exit_code = max(self.exit_code, error.exit_code, 3)
        print(error.as_text(), file=sys.stderr, flush=True)
        return {"status": "failed", "output": None, "sha256": "", "warnings": [], "error": error.as_dict()}


def _said(line: dict[str, Any]) -> str:
    from MedXlateCore.paths import shown

    name, status = shown(line["case"]), line["status"]
    if status == "failed":
        return f"{name}: failed, {line['error']['code']}: {shown(line['error']['found'])}"
    return f"{name}: finished earlier" if status == "skipped" else f"{name}: done in {line['seconds']:.1f} s"
