"""All runs of an experiment, several at a time where there are devices; one that fails does not stop the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from MedXlateCore.devices import choose_device
from MedXlateCore.errors import Cancelled, MedXlateError, ResourceError, UsageError, Warned
from MedXlateCore.experiment.cases import Cohort
from MedXlateCore.experiment.config import Experiment
from MedXlateCore.experiment.plan import Plan, Run, run_folder
from MedXlateCore.experiment.task import FAILURE_FILE, finished, read_results, write_task
from MedXlateCore.experiment.worker import STAGES
from MedXlateCore.files import read_json
from MedXlateCore.training.interruption import Interruption

__all__ = ["Outcome", "Process", "choose_slots", "do_runs", "start_process"]

_POLL_S = 0.1


class Process(Protocol):
    """What is asked of a started stage."""

    def poll(self) -> int | None:
        """Return the exit code, or None while it works."""

    def terminate(self) -> None:
        """Ask it to stop."""


Start = Callable[[Sequence[str]], Process]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: the run.
        status: ``finished``, ``earlier`` (it was there already) or ``failed``.
        results: what its test wrote; None for a failed run.
        error: what went wrong; None otherwise.
    """

    run: Run
    status: str
    results: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


@dataclass
class _Active:
    """A run under way on one device."""

    run: Run
    device: str
    task: Path
    stages: list[str]
    process: Process
    quiet: bool = False


@dataclass
class _Slots:
    """Devices, and what works on them."""

    free: list[str]
    active: list[_Active] = field(default_factory=list)


def start_process(arguments: Sequence[str], at_once: int = 1) -> Process:
    """Start a stage in a process of its own, which shares the processors with ``at_once`` - 1 others."""
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    surroundings = {**({"OMP_NUM_THREADS": threads} if at_once > 1 else {}), **os.environ}
    line = [sys.executable, "-m", "MedXlateCore.experiment.worker", *arguments]
    # a session of its own: Ctrl-C reaches this process only, which then asks each run once to save and stop
    return subprocess.Popen(line, env=surroundings, start_new_session=True)


def choose_slots(device: str, jobs: int | None) -> tuple[list[str], list[Warned]]:
    """Return the device of each run that may work at the same time, and what should be known about that.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        jobs: how many at most; None for one a GPU, or one on a CPU.

    Raises:
        UsageError: ``MX-EXP-011`` (fewer than one), ``MX-USE-020`` (no such device).
        ResourceError: ``MX-RES-020``, the device does not work.
    """
    if jobs is not None and jobs < 1:
        raise UsageError("MX-EXP-011", f"{jobs} runs at a time are asked for", expected="1 or more", where="--jobs",
                         fix="leave out --jobs")  # fmt: skip
    kind = choose_device(device).torch_device
    if kind.type == "cpu":
        wanted = jobs or 1
        text = f"{wanted} runs shared the CPU at a time"
        fix = "seconds, and minutes of training, are longer than those of a run alone"
        return ["cpu"] * wanted, [Warned("MX-EXP-102", text, "--jobs", fix)] if wanted > 1 else []
    if kind.type != "cuda" or device not in ("auto", "cuda"):
        places = [str(kind)]
    else:
        places = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if jobs is not None and jobs > len(places):
        text = f"{jobs} runs at a time were asked for and there are {len(places)} GPUs"
        return places, [Warned("MX-EXP-103", text, "--jobs", "one run a GPU")]
    return places[: jobs or len(places)], []


def do_runs(
    experiment: Experiment,
    plan: Plan,
    cohort: Cohort,
    slots: Sequence[str],
    *,
    start: Start = start_process,
    interruption: Interruption | None = None,
) -> Iterator[Outcome]:
    """Do every run that is not finished, and yield how each ended.

    Args:
        experiment, plan, cohort: what to do.
        slots: a device for each run that may work at the same time.
        start: how a stage is started.
        interruption: to stop from elsewhere; Ctrl-C and SIGTERM always stop all runs, which save a checkpoint.

    Raises:
        UsageError: ``MX-EXP-006``, a run's folder holds another training; nothing was started.
        Cancelled: stopped; the same command goes on.
    """
    done = [run for run in plan.runs if finished(experiment, run, cohort)]
    waiting = [(run, write_task(experiment, run, cohort)) for run in plan.runs if run not in done]
    for run in done:
        yield Outcome(run, "earlier", read_results(run_folder(experiment, run)))
    places = _Slots(list(slots))
    with interruption or Interruption() as stop:
        try:
            while waiting or places.active:
                while waiting and places.free and not stop.requested:
                    _begin(*waiting.pop(0), places, start, quiet=len(slots) > 1)
                if stop.requested:
                    raise _cancelled(experiment)
                yield from _ended(places, start)
        finally:
            _stop_all(places.active)


def _begin(run: Run, task: Path, places: _Slots, start: Start, quiet: bool) -> None:
    device = places.free.pop(0)
    stages = [stage for stage in STAGES if not (run.baseline and stage == "train")]
    process = start(_arguments(task, stages[0], device, quiet))
    places.active.append(_Active(run, device, task, stages, process, quiet))


def _arguments(task: Path, stage: str, device: str, quiet: bool) -> list[str]:
    return [str(task), stage, device, *(["--quiet"] if quiet else [])]


def _ended(places: _Slots, start: Start) -> Iterator[Outcome]:
    """Look at all active runs once: start their next stage, or take them off."""
    waited = True
    for active in list(places.active):
        code = active.process.poll()
        if code is None:
            continue
        waited = False
        stage = active.stages.pop(0)
        if code == 0 and active.stages:
            active.process = start(_arguments(active.task, active.stages[0], active.device, active.quiet))
            continue
        places.active.remove(active)
        places.free.append(active.device)
        if code == Cancelled.exit_code:
            raise Cancelled(f"run '{active.run.key}'")
        yield _outcome(active, stage, code)
    if waited:
        time.sleep(_POLL_S)


def _outcome(active: _Active, stage: str, code: int) -> Outcome:
    folder = active.task.parent
    if code == 0 and (results := read_results(folder)) is not None:
        return Outcome(active.run, "finished", results)
    try:
        error = read_json(folder / FAILURE_FILE)
    except MedXlateError:  # it could not even say what happened
        error = ResourceError(
            "MX-EXP-007",
            f"the process of stage '{stage}' ended with code {code} and no result",
            expected="results, or an error with a code",
            where=active.run.key,
            fix="often memory ran out; start the experiment again to go on",
        ).as_dict()
    return Outcome(active.run, "failed", error=error)


def _stop_all(active: Sequence[_Active]) -> None:
    """Ask all processes to stop and wait until they have saved what they need."""
    for one in active:
        if one.process.poll() is None:
            one.process.terminate()
    while any(one.process.poll() is None for one in active):
        time.sleep(_POLL_S)


def _cancelled(experiment: Experiment) -> Cancelled:
    error = Cancelled(f"experiment '{experiment.experiment.name}'")
    error.fix = "start the same command again: finished runs are kept, the interrupted one goes on"
    return error
