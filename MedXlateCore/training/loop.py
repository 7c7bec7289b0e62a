"""The training loop, for any method's recipe.

Everything random is a function of the seed and the step's number, and the log counts its rows, so a run that was
interrupted and resumed on a CPU ends with the same bits as one that was not; only a run of given minutes ends where the
clock says. In each turn: validate if due (and export if better), save a checkpoint if due, stop if done or asked to, do
one optimiser step.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer

from MedXlateCore.errors import Warned
from MedXlateCore.files import read_json, write_json
from MedXlateCore.models.method import Batch, TrainingState
from MedXlateCore.models.registry import get_method
from MedXlateCore.models.scan_batch import ScanBatch
from MedXlateCore.training import checkpoint
from MedXlateCore.training.assessment import Assessment
from MedXlateCore.training.average import WeightAverage
from MedXlateCore.training.config import TrainingConfig
from MedXlateCore.training.data import Examples, SliceData, TrainingData
from MedXlateCore.training.interruption import Interrupted, Interruption
from MedXlateCore.training.length import length_of
from MedXlateCore.training.log import MetricsLog, ProgressLine
from MedXlateCore.training.scans import ScanCase, ScanData
from MedXlateCore.training.validation import diverged
from MedXlateCore.training.volumes import VolumeData

__all__ = ["Trainer", "step_seed"]


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Return the seed of everything random in one optimiser step of one process."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Trainer:
    """One run: networks, optimisers, data and where it stands.

    Args:
        config: the run's configuration.
        folder: its folder.
        data: prepared cases.
        fabric: Lightning Fabric, launched.
        interruption: asked between steps whether to stop.
        resumed: state to go on from, None for a fresh run.
        quiet: no progress on stderr.
    """

    def __init__(
        self,
        config: TrainingConfig,
        folder: Path,
        data: TrainingData,
        fabric: Fabric,
        interruption: Interruption,
        resumed: checkpoint.Checkpoint | None = None,
        quiet: bool = False,
    ) -> None:
        self.config, self.folder, self.data, self.fabric = config, folder, data, fabric
        self.interruption = interruption
        settings = config.training
        method, architecture = get_method(config.model.method), config.architecture()
        context = method.context_slices(architecture)
        slices = SliceData(data.train, config.data.slices, context=context, unpaired=method.unpaired)
        self.examples: Examples | ScanData = slices
        if method.many_scans:
            self.examples = ScanData(cast(Sequence[ScanCase], data.scans), config, method.size_multiple(architecture))
        elif method.volumetric:
            self.examples = VolumeData(data.train, config.data.slices, unpaired=method.unpaired)
        self.length = length_of(settings, len(self.examples), fabric.world_size)
        epoch = max(1, math.ceil(len(self.examples) / (settings.batch_size * fabric.world_size)))
        # 0 for each quarter of the time
        self.validate_every = settings.validate_every or (epoch if self.length.steps is not None else 0)
        self.checkpoint_every = settings.checkpoint_every or self.validate_every
        self.assessment = Assessment(config, folder, data, slices, self.length.steps)

        torch.manual_seed(settings.seed)
        self.recipe = method.recipe(architecture, config.recipe_config())
        self.networks = self.recipe.networks()
        wrapped = {name: fabric.setup_module(network) for name, network in self.networks.items()}
        self.optimisers = self.recipe.optimisers(settings.learning_rate)
        self.state = TrainingState(
            networks=wrapped,
            optimisers={name: cast(Optimizer, fabric.setup_optimizers(o)) for name, o in self.optimisers.items()},
            backward=fabric.backward,
            generator=torch.Generator(fabric.device),
            step=0,
        )
        self.rates = {name: [group["lr"] for group in o.param_groups] for name, o in self.optimisers.items()}
        self.average = WeightAverage(self.networks["generator"], settings.ema_decay) if settings.ema_decay else None
        self.progress = checkpoint.Progress()
        if resumed is not None:
            checkpoint.restore(resumed, self._stored(), self.optimisers)
            self.progress = resumed.progress
        self.seconds = resumed.seconds if resumed is not None else 0.0
        self.quarter = self.length.quarter(self.progress.step, self.seconds)
        self.saved = self.progress.copy()
        self.line = self._progress_line(quiet or not self.leads)
        self.log: MetricsLog | None = None
        self.at_quarter = False
        self.losses: dict[str, float] = {}
        self.factor = 1.0

    @property
    def leads(self) -> bool:
        """True in the one process that writes files and talks."""
        return self.fabric.is_global_zero

    def run(self) -> None:
        """Train to the end.

        Raises:
            Interrupted: asked to stop; a checkpoint was saved.
            InputError: ``MX-TRN-007``, losses or predictions are not finite; the last checkpoint is untouched.
            ResourceError: ``MX-RES-001``, memory ran out; ``MX-FIL-010`` to ``-016``, a file cannot be written.
        """
        progress = self.progress
        with ThreadPoolExecutor(1) as reader, self._logging():
            upcoming = reader.submit(self._read, progress.step)
            try:
                while True:
                    if self._to_be_validated() and self._due(self.validate_every):
                        self._validate()
                    if self.saved != progress and self._due(self.checkpoint_every):
                        self._save()
                    if self._is_over():
                        break
                    self._stop_if_asked()
                    began = time.monotonic()
                    batch = upcoming.result()
                    upcoming = reader.submit(self._read, progress.step + 1)
                    self._step(batch)
                    self._count(time.monotonic() - began)
            except Interrupted:
                if self.saved != progress:
                    self._save()
                raise
        if self.leads and not self.data.val:
            self.assessment.export(self._evaluated(), progress.step)

    def _due(self, every: int) -> bool:
        """Say whether something is due that happens every so many steps (0: after each quarter), and at the end."""
        step = self.progress.step
        if step == 0:
            return False
        return self._is_over() or (step % every == 0 if every else self.at_quarter)

    def _to_be_validated(self) -> bool:
        """True where there are cases to validate, not validated after this step, and a generator to judge."""
        progress = self.progress
        if not self.data.val or progress.validated == progress.step:
            return False
        return self.recipe.judged(self.length.fraction(progress.step, self.seconds))

    def _is_over(self) -> bool:
        return self.length.is_over(self.progress.step, self.seconds)

    def _count(self, seconds: float) -> None:
        """Count the time of a step. Several processes agree on the longest, so that they all stop after the same."""
        if self.fabric.world_size > 1 and self.length.seconds is not None:
            own = torch.tensor(seconds, device=self.fabric.device, dtype=torch.float32)
            gathered = torch.as_tensor(self.fabric.all_gather(own))
            seconds = float(gathered.max())
        self.seconds += seconds
        earlier, self.quarter = self.quarter, self.length.quarter(self.progress.step, self.seconds)
        self.at_quarter = self.quarter > earlier
        self._log_losses()
        self._show()

    def _read(self, step: int) -> Batch | ScanBatch:
        """Read a step's batch; runs in a thread of its own, one step ahead."""
        batch = self.examples.at_step(step, self.config, self.fabric.global_rank, self.fabric.world_size)
        if self.fabric.device.type == "cuda":
            batch = batch.mapped(lambda tensor: tensor.contiguous().pin_memory())
        return batch

    def _step(self, batch: Batch | ScanBatch) -> None:
        """Do one optimiser step and log its losses."""
        progress, settings = self.progress, self.config.training
        seed = step_seed(settings.seed, progress.step, self.fabric.global_rank)
        torch.manual_seed(seed)  # for layers that draw by themselves, such as dropout
        self.state.generator.manual_seed(seed)
        fraction = self.length.fraction(progress.step, self.seconds)
        self.state.step, self.state.progress = progress.step, fraction
        factor = self.recipe.learning_rate_factor(fraction)
        for name, optimiser in self.optimisers.items():
            for group, rate in zip(optimiser.param_groups, self.rates[name], strict=True):
                group["lr"] = rate * factor
        losses = self.recipe.step(batch.to(self.fabric.device), self.state)  # type: ignore[arg-type]
        for name, value in losses.items():
            if not math.isfinite(value):
                raise diverged(f"the loss '{name}' is {value}", f"step {progress.step}")
            progress.sums[name] = progress.sums.get(name, 0.0) + value
        progress.step += 1
        progress.summed += 1
        if self.average:
            self._follow(fraction)
        self.losses, self.factor = losses, factor

    def _follow(self, fraction: float) -> None:
        """Take the step into the moving average, which starts where the generator begins to make the target."""
        if self.average and self.recipe.judged(fraction):
            self.progress.averaged += 1
            self.average.update(self.progress.averaged)
        elif self.average:
            self.average.restart()

    def _log_losses(self) -> None:
        """Log the mean losses if it is time."""
        progress = self.progress
        if progress.step % self.config.training.log_every == 0 or self._is_over():
            if self.log:
                means = {name: total / progress.summed for name, total in progress.sums.items()}
                self.log.write(progress.step, "train", {**means, "learning_rate_factor": self.factor})
                self._remark(self.recipe.remark(means, self.length.fraction(progress.step, self.seconds)))
            progress.sums, progress.summed = {}, 0

    def _remark(self, warning: Warned | None) -> None:
        """Tell a warning about the losses and add it to the run's record, the first time it comes."""
        path = self.folder / "run.json"
        facts = read_json(path) if warning and path.exists() else {}
        if warning and warning.code not in {known["code"] for known in facts.get("warnings", ())}:
            self.line.note(f"warning: {warning.as_text()}")
            write_json(path, {**facts, "warnings": [*facts.get("warnings", ()), warning.as_dict()]})

    def _progress_line(self, quiet: bool) -> ProgressLine:
        if self.length.seconds is None:
            return ProgressLine("training", int(self.length.steps or 0), start=self.progress.step, quiet=quiet)
        return ProgressLine("training, seconds", round(self.length.seconds), start=int(self.seconds), quiet=quiet)

    def _show(self) -> None:
        losses = ", ".join(f"{name} {value:.4g}" for name, value in self.losses.items())
        done = self.progress.step if self.length.seconds is None else int(self.seconds)
        self.line.update(done, losses)

    def _validate(self) -> None:
        """Measure the validation cases, log, and export if this is the best so far."""
        progress = self.progress
        if self.log:
            # processes that wait for this one would wait for ever, so with several it cannot be interrupted
            check = self.interruption.check if self.fabric.world_size == 1 else lambda: None
            result = self.assessment.validate(self._evaluated(), self.fabric.device, progress.step, check)
            score = result.score
            self.log.write(progress.step, "val", {**result.means(), "score": score})
            better = score is not None and (progress.best_score is None or score < progress.best_score)
            if better:
                progress.best_score, progress.best_step = score, progress.step
                self.assessment.export(self._evaluated(), progress.step, result)
            if score is not None:
                self.line.note(
                    f"step {progress.step}: validation error {score:.5f}" + (", best so far" if better else "")
                )
        progress.validated = progress.step
        self.fabric.barrier()

    def _evaluated(self) -> nn.Module:
        """Return what is validated and exported: the moving average where there is one."""
        return self.average.network if self.average else self.networks["generator"]

    def _stored(self) -> dict[str, nn.Module]:
        return {**self.networks, "average": self.average.network} if self.average else self.networks

    def _save(self) -> None:
        if self.log:
            self.log.sync()
            self.progress.rows = self.log.rows
        self.saved = self.progress.copy()
        if not self.leads:
            return
        checkpoint.save(
            self.folder / "checkpoints",
            self.progress,
            self._stored(),
            self.optimisers,
            config=self.config.to_mapping(),
            identity=self.config.identity(),
            data=self.data.fingerprint(),
            seconds=self.seconds,
            keep=self.config.training.keep_checkpoints,
        )

    def _stop_if_asked(self) -> None:
        """Stop all processes after the same step."""
        if self.fabric.world_size > 1:
            asked = torch.tensor(float(self.interruption.requested), device=self.fabric.device)
            total = self.fabric.all_reduce(asked, reduce_op="sum")
            self.interruption.requested = float(torch.as_tensor(total)) > 0
        self.interruption.check()

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        """Open the log, with the baselines in front of a fresh run; close it whatever happens."""
        progress = self.progress
        if not self.leads:
            yield
            return
        board = self.config.training.tensorboard
        self.log = MetricsLog(self.folder, rows=progress.rows, step=progress.step, tensorboard=board)
        try:
            if progress.step == 0:
                self.log.write(0, "val", self.assessment.baselines.means())
            yield
        finally:
            self.log.close()
            self.line.close()
