"""The training loop, for any method's recipe.

Everything random is a function of the seed and the step's number, and the log counts its rows, so a run that was
interrupted and resumed on a CPU ends with the same bits as one that was not. In each turn: validate if due (and export
if better), save a checkpoint if due, stop if done or asked to, do one optimiser step.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer

from MedXlateCore.models.method import Batch, TrainingState
from MedXlateCore.models.registry import get_method
from MedXlateCore.training import checkpoint
from MedXlateCore.training.assessment import Assessment
from MedXlateCore.training.average import WeightAverage
from MedXlateCore.training.config import TrainingConfig, steps_of
from MedXlateCore.training.data import SliceData, TrainingData
from MedXlateCore.training.interruption import Interrupted, Interruption
from MedXlateCore.training.log import MetricsLog, ProgressLine
from MedXlateCore.training.validation import diverged

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
        self.slices = SliceData(data.train, config.data.slices, context=context, unpaired=method.unpaired)
        self.total = steps_of(settings, len(self.slices), fabric.world_size)
        epoch = max(1, math.ceil(len(self.slices) / (settings.batch_size * fabric.world_size)))
        self.validate_every = settings.validate_every or epoch
        self.checkpoint_every = settings.checkpoint_every or self.validate_every
        self.assessment = Assessment(config, folder, data, self.slices, self.total)

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
        self.saved = self.progress.copy()
        self.line = ProgressLine("training", self.total, start=self.progress.step, quiet=quiet or not self.leads)
        self.log: MetricsLog | None = None

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
                    if self.data.val and progress.validated != progress.step and self._due(self.validate_every):
                        self._validate()
                    if self.saved != progress and self._due(self.checkpoint_every):
                        self._save()
                    if progress.step >= self.total:
                        break
                    self._stop_if_asked()
                    batch = upcoming.result()
                    upcoming = reader.submit(self._read, progress.step + 1)
                    self._step(batch)
            except Interrupted:
                if self.saved != progress:
                    self._save()
                raise
        if self.leads and not self.data.val:
            self.assessment.export(self._evaluated(), progress.step)

    def _due(self, every: int) -> bool:
        step = self.progress.step
        return step > 0 and (step % every == 0 or step == self.total)

    def _read(self, step: int) -> Batch:
        """Read a step's batch; runs in a thread of its own, one step ahead."""
        batch = self.slices.at_step(step, self.config, self.fabric.global_rank, self.fabric.world_size)
        if self.fabric.device.type == "cuda":
            batch = batch.mapped(lambda tensor: tensor.contiguous().pin_memory())
        return batch

    def _step(self, batch: Batch) -> None:
        """Do one optimiser step and log its losses."""
        progress, settings = self.progress, self.config.training
        seed = step_seed(settings.seed, progress.step, self.fabric.global_rank)
        torch.manual_seed(seed)  # for layers that draw by themselves, such as dropout
        self.state.generator.manual_seed(seed)
        self.state.step = progress.step
        factor = self.recipe.learning_rate_factor(progress.step / self.total)
        for name, optimiser in self.optimisers.items():
            for group, rate in zip(optimiser.param_groups, self.rates[name], strict=True):
                group["lr"] = rate * factor
        losses = self.recipe.step(batch.to(self.fabric.device), self.state)
        for name, value in losses.items():
            if not math.isfinite(value):
                raise diverged(f"the loss '{name}' is {value}", f"step {progress.step}")
            progress.sums[name] = progress.sums.get(name, 0.0) + value
        progress.step += 1
        progress.summed += 1
        if self.average:
            self.average.update(progress.step)
        self.line.update(progress.step, ", ".join(f"{name} {value:.4g}" for name, value in losses.items()))
        if progress.step % settings.log_every == 0 or progress.step == self.total:
            if self.log:
                means = {name: total / progress.summed for name, total in progress.sums.items()}
                self.log.write(progress.step, "train", {**means, "learning_rate_factor": factor})
            progress.sums, progress.summed = {}, 0

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
