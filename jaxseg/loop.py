"""The only train loop: epochs of steps, evaluation, plateau, checkpoints.

The host counts few things (`Progress`), and all of them are saved with the state in one
checkpoint, so a run that was killed goes on as if nothing had happened.
"""

import collections
import dataclasses
import itertools
import math
import time
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from clu import parameter_overview

from jaxseg import hosts, metrics, misfits, optim, parallel, phases, train_state
from jaxseg.calls import Calls
from jaxseg.checkpoints import Checkpoints
from jaxseg.errors import InputError, shorten
from jaxseg.evaluate import collect_counts, tally_decisions
from jaxseg.experiment import Experiment
from jaxseg.phases import Phase
from jaxseg.profiler import Profiler
from jaxseg.progress import console, track
from jaxseg.report.previews import Previews
from jaxseg.stopping import Stopping
from jaxseg.tally import Progress, Spikes
from jaxseg.train_state import TrainState
from jaxseg.writer import Row, Writer, epoch_line

CALLS_AHEAD = 2
"""Calls of some steps each that the host may be ahead of the device."""


class Interrupted(Exception):
    """A signal asked the run to stop; everything is saved."""


def train(experiment: Experiment, workdir: Path) -> None:
    """Trains to the last epoch or the early stop, from where the run folder stands.

    Raises:
      InputError: loss or gradient stays not finite; the last good checkpoint is kept.
      Interrupted: a signal to stop came; saved, and the same command goes on.
    """
    try:
        training = _Training(experiment, workdir)
        try:
            training.run_epochs()
        finally:
            training.close()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise misfits.out_of_memory(experiment.run.train.batch_size) from error


def restore(
    experiment: Experiment, workdir: Path, epoch: Literal["best", "last"]
) -> tuple[Any, Progress]:
    """The inference variables of a checkpoint, and what the host counted then.

    Raises:
      InputError: the folder has no checkpoint, or the best one was damaged.
    """
    checkpoints = Checkpoints(workdir / "checkpoints")
    try:
        step = checkpoints.best if epoch == "best" else checkpoints.latest
        progress = {"history": []}
        if step is not None:
            state, progress = checkpoints.restore(step, experiment.abstract_state)
    finally:
        checkpoints.close()
    if not progress["history"]:
        raise InputError(
            "a run folder with a finished epoch",
            f"{workdir} without one",
            "the command that trains it, once more",
        )
    progress = Progress(**progress)
    if epoch == "best" and progress.best_epoch not in (0, len(progress.history)):
        raise InputError(
            f"the checkpoint of the best epoch, {progress.best_epoch}",
            f"{workdir} without it: it was damaged, and no other was ever the best",
            "--epoch last of scripts/evaluate.py, or --restart of the training",
        )
    return train_state.inference_variables(state), progress


class _Training:
    """The moving parts of one run of `train`."""

    def __init__(self, experiment: Experiment, workdir: Path):
        self.experiment, self.config = experiment, experiment.run.train
        self.checkpoints = Checkpoints(workdir / "checkpoints")
        self.state, self.progress = self._restore_or_init()
        self.writer = Writer(workdir, self.progress.history, self.config.log_to)
        self.spikes = Spikes()
        steps = self.config.profile_steps if hosts.is_first() else None
        self.profiler = Profiler(workdir / "profile", steps)
        self.stopping = Stopping()
        self.step = int(self.state.step)
        self.calls = Calls(experiment)
        self.val_loader = experiment.eval_loader("val")
        self.workdir = workdir
        self.previews = None  # until images are decoded

    def run_epochs(self) -> None:
        first_epoch = len(self.progress.history)  # its steps may be done
        epochs = range(first_epoch, self.config.epochs)
        if epochs and not self._is_stale:
            self.calls.make_ready(first_epoch, self.step)
            self.previews = Previews(self.experiment, self.workdir / "previews")
        with self.stopping.listen():
            for epoch in epochs:
                if self._is_stale:
                    self._say_stale()
                    break
                self._run_epoch(epoch)
                if self.stopping.is_agreed:
                    self._stop_for_signal()

    def close(self) -> None:
        try:
            self.writer.close()
        finally:
            self.checkpoints.wait()
            self.checkpoints.close()

    def _restore_or_init(self) -> tuple[TrainState, Progress]:
        latest = self.checkpoints.latest
        if latest is None:
            state = self.experiment.start()
            overview = parameter_overview.get_parameter_overview(
                state.params, include_stats=False
            )
            console.print(overview, markup=False)
            return state, Progress()
        console.print(f"- goes on from step {latest}")
        state, progress = self.checkpoints.restore(
            latest, self.experiment.abstract_state
        )
        return state, Progress(**progress)

    def _run_epoch(self, epoch: int) -> None:
        speed = self._train_epoch(epoch)
        started = time.monotonic()
        variables = train_state.inference_variables(self.state)
        summary, thresholds, tallies = self._judge(variables)
        row = self._row(epoch, summary, speed)  # before the plateau sets a new rate
        is_best = self._count_epoch(epoch, summary)
        picture = self.previews.draw(row, variables, thresholds)  # before it is saved
        self.progress.history = [*self.writer.history, row]
        self._save(self._score(summary) if is_best else -math.inf)
        epoch_seconds = speed["seconds"] + time.monotonic() - started
        line = epoch_line(
            row,
            ("loss", *self.experiment.task.headline, self.config.monitor),
            epochs=self.config.epochs,
            is_best=is_best,
            seconds_left=(self.config.epochs - row["epoch"]) * epoch_seconds,
        )
        self.writer.draw(self.step, tallies, picture)
        self.writer.write(self.step, row, line)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Steps to the end of the epoch; returns what they cost."""
        phase, calls = self.calls.plan(epoch, self.step)
        todo = sum(count for count, _ in calls)
        end = self.step + todo
        batches = phase.batches(self.step, end)
        unread, in_flight = collections.deque(), collections.deque()
        started, waited = time.monotonic(), 0.0
        with jax.transfer_guard("disallow"):
            words, say = f"Epoch {epoch + 1}", self.progress.loss_text
            for count, call in track(calls, len(calls), words, quiet=True, say=say):
                before = time.monotonic()
                host_batches = list(itertools.islice(batches, count))
                waited += time.monotonic() - before
                self.profiler.look(self.step, count, self.state)
                inputs = [self.stopping.ask(batch) for batch in host_batches]
                inputs = parallel.put_steps(inputs, self.experiment.mesh)
                self.state, logs = call(self.state, self.calls.data, inputs)
                in_flight.append((host_batches, logs.pop("stop")))
                unread.append((self.step, logs))
                self._give_back(in_flight, phase, keep=CALLS_AHEAD)
                self.step += count
                if self.step - unread[0][0] > self.config.log_every:
                    self._read_losses(unread, keep=CALLS_AHEAD)
                if self.stopping.is_agreed:
                    break
                if self._is_due(count) and self.step < end:
                    self._read_losses(unread, keep=0)
                    self._save_unfinished()
            self._give_back(in_flight, phase, keep=0)
            self._read_losses(unread, keep=0)
            self.profiler.end(self.step, self.state)
        seconds = time.monotonic() - started
        return {
            "seconds": seconds,
            "images_per_second": todo * phase.size.batch_size / seconds,
            "input_wait": waited / seconds,
        }

    def _is_due(self, count: int) -> bool:
        """Whether `train.save_every` was reached in the last `count` steps."""
        every = self.config.save_every
        return every is not None and self.step // every > (self.step - count) // every

    def _give_back(self, in_flight: collections.deque, phase: Phase, keep: int) -> None:
        """Waits for all but the last `keep` calls and frees the buffers they read."""
        while len(in_flight) > keep:
            host_batches, stop = in_flight.popleft()
            self.stopping.hear(stop)
            for batch in host_batches:
                phase.loader.give_back(batch)

    def _read_losses(self, unread: collections.deque, keep: int) -> None:
        """Reads the losses of all but the last `keep` calls, which still run."""
        while len(unread) > keep:
            first, logs = unread.popleft()
            values = jax.device_get(logs)  # [K] each
            too_many = self.progress.add(values, self.config.max_skipped)
            if too_many is not None:
                loss = float(values["loss"][too_many])
                self._refuse_non_finite(first + too_many, loss)
            if (spike := self.spikes.find(values["loss"])) is not None:
                k, words = spike
                ids = shorten(self._ids_of(first + k), 8)
                console.print(f"- step {first + k}: {words}, with {ids}", markup=False)

    def _judge(self, variables: Any):
        """Validates; a signal ends it at once, to be done again by the next process."""
        try:
            with self.stopping.at_once():
                return self._validate(variables)
        except KeyboardInterrupt:
            self._stop_for_signal()

    def _validate(self, variables: Any):
        experiment = self.experiment
        counts = collect_counts(
            experiment.eval_step, variables, self.val_loader, experiment.mesh
        )
        bad = np.flatnonzero(~np.isfinite(counts["loss"]))
        if len(bad):
            self._refuse_non_finite(self.step, math.nan, self.val_loader.positions[bad])
        thresholds = experiment.task.choose_thresholds(counts)
        summary = experiment.task.summarize(counts, thresholds)
        summary = {**metrics.loss_summary(counts), **summary}
        return summary, thresholds, tally_decisions(counts, thresholds)

    def _count_epoch(self, epoch: int, summary: dict[str, float]) -> bool:
        """Best value, early stopping and the plateau; whether this is a new best."""
        progress, value = self.progress, summary[self.config.monitor]
        mode = metrics.mode_of(self.config.monitor)
        sign = 1 if mode == "max" else -1
        is_best = math.isfinite(value) and (
            progress.best is None or sign * value > sign * progress.best
        )
        progress.stale_epochs += 1
        if is_best:
            progress.best, progress.best_epoch = value, epoch + 1
            progress.stale_epochs = 0
        plateau = self.experiment.run.optim.plateau
        if plateau is not None:
            new = optim.advance_plateau(
                plateau,
                jax.device_get(self.state.plateau),
                value,
                learning_rate=self.experiment.run.optim.learning_rate,
                mode=mode,
            )
            plateau = parallel.put_everywhere(new, self.experiment.mesh)
            self.state = self.state.replace(plateau=plateau)
        return is_best

    def _row(self, epoch: int, summary: dict[str, float], speed: dict) -> Row:
        return {
            "epoch": epoch + 1,
            **self.progress.end_epoch(),
            **{f"val/{name}": value for name, value in summary.items()},
            "learning_rate": self._learning_rate(),
            "images_per_second": round(speed["images_per_second"], 2),
            "input_wait": round(speed["input_wait"], 4),
        }

    def _learning_rate(self) -> float:
        base = float(self.experiment.schedule(self.step - 1))
        return base * float(jax.device_get(self.state.plateau.scale))

    def _score(self, summary: dict[str, float]) -> float:
        """Larger is better, as `Checkpoints.save` wants it."""
        value = summary[self.config.monitor]
        return value if metrics.mode_of(self.config.monitor) == "max" else -value

    def _save(self, score: float) -> None:
        progress = dataclasses.asdict(self.progress)
        self.checkpoints.save(self.step, self.state, progress, score)

    def _save_unfinished(self) -> None:
        """An epoch that is not over, or not validated: never the best."""
        self.progress.history = self.writer.history
        with jax.transfer_guard("allow"):  # orbax copies as the steps never do
            self._save(-math.inf)

    @property
    def _is_stale(self) -> bool:
        """Whether to stop early."""
        patience = self.config.early_stop
        return patience is not None and self.progress.stale_epochs >= patience

    def _say_stale(self) -> None:
        console.print(
            f"- stops early: {self.progress.stale_epochs} epochs without a better "
            f"val/{self.config.monitor} than {self.progress.best_text()}"
        )

    def _stop_for_signal(self) -> None:
        if self.checkpoints.latest != self.step:
            self._save_unfinished()
        self.checkpoints.wait()
        raise Interrupted(f"{self.stopping.reason} at step {self.step}")

    def _ids_of(self, step: int, positions=None) -> list[str]:
        """Of the samples of a step, or at these positions."""
        if positions is None:
            epoch = phases.epoch_of(self.experiment.phases, step)
            phase = phases.phase_of(self.experiment.phases, epoch)
            positions = phase.positions_of(step)
        return [self.experiment.dataset.ids[position] for position in positions]

    def _refuse_non_finite(self, step: int, value: float, positions=None) -> None:
        ids = self._ids_of(step, positions)
        raise misfits.not_finite(step, value, ids, self.checkpoints.latest)
