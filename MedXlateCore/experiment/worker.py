"""One stage of one run in a process of its own: ``python -m MedXlateCore.experiment.worker TASK STAGE DEVICE``.

Training and test are two processes, so that the test's memory is its own. What went wrong is left in
``failure.json`` in the run's folder; the exit codes are those of ``medxlate``.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from MedXlateCore.errors import Cancelled, InternalError, MedXlateError, ResourceError
from MedXlateCore.experiment.task import FAILURE_FILE, Task
from MedXlateCore.experiment.testing import measure_run
from MedXlateCore.files import write_json
from MedXlateCore.training.run import CONFIG_FILE, train

__all__ = ["STAGES", "main"]

STAGES = ("train", "test")


def main(arguments: Sequence[str]) -> int:
    """Do one stage and return the exit code: ``TASK.json train|test DEVICE [--quiet]``."""
    path, stage, device = Path(arguments[0]), arguments[1], arguments[2]
    failure = path.parent / FAILURE_FILE
    failure.unlink(missing_ok=True)
    try:
        task = Task.read(path, device)
        if stage == "train":
            resume = (task.training / CONFIG_FILE).exists()
            train(task.config, task.training, resume=resume, quiet="--quiet" in arguments)
        else:
            measure_run(task)
    except (Cancelled, KeyboardInterrupt):
        return Cancelled.exit_code
    except MedXlateError as error:
        return _failed(error, failure)
    except MemoryError:
        return _failed(ResourceError("MX-RES-001", "memory ran out", where=stage, fix="use a smaller batch"), failure)
    except Exception as error:  # noqa: BLE001 - one run must not end the others; it is on record
        traceback.print_exception(error)
        return _failed(InternalError.from_exception(error), failure)
    return 0


def _failed(error: MedXlateError, path: Path) -> int:
    write_json(path, error.as_dict())
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
