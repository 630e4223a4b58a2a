"""What the host counts of a run, and when its numbers stop making sense."""

import collections
import dataclasses
import math
import statistics
from collections.abc import Mapping

import numpy as np

from jaxseg.writer import Row

SKIPPED = "skipped"
"""The log of a train step that says whether its update was left out."""


@dataclasses.dataclass
class Progress:
    """Saved with the state in one checkpoint, so that a resume is exact.

    Attributes:
      best: best value of the monitored metric so far, None before any.
      stale_epochs: epochs since then.
      loss_sums, num_losses: of the steps already done in the current epoch.
      skipped: of these steps, how many changed nothing; their losses are not summed.
      skipped_in_a_row: up to the newest step.
      history: rows of metrics.csv.
    """

    best: float | None = None
    best_epoch: int = 0
    stale_epochs: int = 0
    loss_sums: dict[str, float] = dataclasses.field(default_factory=dict)
    num_losses: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    history: list[Row] = dataclasses.field(default_factory=list)

    def best_text(self) -> str:
        """E.g. '0.7123 of epoch 9'."""
        if self.best is None:
            return "none: it never was a number"
        return f"{self.best:.4f} of epoch {self.best_epoch}"

    def add(self, logs: Mapping[str, np.ndarray], max_skipped: int) -> int | None:
        """Counts consecutive steps.

        Args:
          logs: of K steps, [K] each.

        Returns:
          which of them was skipped after `max_skipped` others in a row; None if none.
        """
        skipped = logs[SKIPPED]
        for k, is_skipped in enumerate(skipped):
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if is_skipped else 0
            if self.skipped_in_a_row > max_skipped:
                return k
        for name, losses in logs.items():
            if name != SKIPPED:
                added = float(losses[~skipped].sum(dtype=np.float64))
                self.loss_sums[name] = self.loss_sums.get(name, 0.0) + added
        self.skipped += int(skipped.sum())
        self.num_losses += int((~skipped).sum())
        return None

    def loss_text(self) -> str:
        """The epoch's mean loss as far as it is known, e.g. 'loss 0.1234', or ''."""
        if not self.num_losses:
            return ""
        return f"loss {self.loss_sums['loss'] / self.num_losses:.4f}"

    def end_epoch(self) -> Row:
        """Mean losses and skipped steps of the epoch; the next one counts from 0."""
        count = self.num_losses or math.nan  # every step was skipped
        means = {f"train/{name}": s / count for name, s in self.loss_sums.items()}
        row = {**means, "skipped_steps": self.skipped}
        self.loss_sums, self.num_losses, self.skipped = {}, 0, 0
        return row


class Spikes:
    """Finds losses far above the usual; only to warn, so no process tells the next."""

    TIMES = 10.0
    """Times the median of the recent losses, to be one."""
    RECENT, ENOUGH = 100, 20
    """Steps that the median is taken of, at most and at least."""

    def __init__(self):
        self._recent = collections.deque(maxlen=self.RECENT)
        self._quiet = 0  # steps

    def find(self, losses: np.ndarray) -> tuple[int, str] | None:
        """The last of the [K] losses that is one, and a sentence on it.

        After one has been found, none of the next `RECENT` steps is.
        """
        found = None
        for k, loss in enumerate(losses.tolist()):
            self._quiet = max(self._quiet - 1, 0)
            if not math.isfinite(loss):
                continue
            if len(self._recent) >= self.ENOUGH and not self._quiet:
                usual = statistics.median(self._recent)
                if loss > self.TIMES * usual > 0:
                    found = k, f"loss {loss:.4g}, {loss / usual:.0f} times the usual"
                    self._quiet = self.RECENT
            self._recent.append(loss)
        return found
