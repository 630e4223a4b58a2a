"""TensorBoard's event file.

tensorboardX's own SummaryWriter writes in a thread of its own: on a full disk that
thread dies, its queue fills up, and the training waits for it for ever. Here a write
that fails is an error of the one who writes.
"""

import time
from pathlib import Path

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from jaxseg.metrics import Tally

PR_THRESHOLDS = 127
"""Of a curve, even steps from 0 to 1: the most that TensorBoard takes."""


class Events:
    """A new event file in a folder.

    Raises:
      OSError: in every method, where the file cannot be written.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(folder / "events"))

    def add_scalar(self, step: int, name: str, value: float) -> None:
        self._add(step, summary.scalar(name, value))

    def add_curve(self, step: int, name: str, tally: Tally) -> None:
        """Precision and recall."""
        values = _counts_at(tally, np.linspace(0, 1, PR_THRESHOLDS))
        self._add(step, summary.pr_curve_raw(name, *values, PR_THRESHOLDS))

    def add_image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Pixels: uint8 [H, W, 3]."""
        self._add(step, summary.image(name, pixels, dataformats="HWC"))

    def flush(self) -> None:
        """Returns when all that was added is on disk."""
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _add(self, step: int, said: Summary) -> None:
        event = Event(wall_time=time.time(), step=step, summary=said)
        self._file.write_event(event)


def _counts_at(tally: Tally, thresholds: np.ndarray) -> tuple[np.ndarray, ...]:
    """tp, fp, tn, fn, precision, recall of score >= threshold, each [T].

    Precision is 1 where nothing is decided positive.
    """
    first = np.searchsorted(tally.values, thresholds)
    fp, tp = (np.append(counts, 0)[first] for counts in tally.at_least())
    tn, fn = tally.negatives.sum() - fp, tally.positives.sum() - tp
    found = tp + fp
    precision = np.where(found, tp / np.maximum(found, 1), 1.0)
    return tp, fp, tn, fn, precision, tp / (tp + fn)
