"""Requests that arrive together are predicted together.

One thread feeds the device. While it computes, further images wait; it then takes all
of them, up to a batch. A single image waits for nobody.
"""

import functools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from jaxseg.predict.predictor import Predictor
from jaxseg.predict.result import Result

Finish = Callable[[], Result]
_Waiting = tuple[Future, np.ndarray, tuple[int, int]]


class Batches:
    """The queue before the device. `submit` may be called from any thread."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self._fills = _doubling(predictor.mesh.size, predictor.plan.batch_size)
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)
        self._thread.start()

    def compile(self) -> None:
        """Runs every size of a batch once, so that no request waits for it."""
        plan, kept = self._predictor.plan, self._predictor.trained.preprocessing
        empty = np.zeros((1, *plan.size, kept.channels), np.uint8)
        for fill in [plan.batch_size] if plan.tiled else self._fills:
            self._predictor.run(empty, fill)

    def submit(self, image: np.ndarray) -> "Future[Finish]":
        """Queues an image [h, w, C] uint8.

        What the future holds makes the result, outside of the device's thread. A future
        that is cancelled before its turn costs nothing.
        """
        future, predictor = Future(), self._predictor
        size = image.shape[:2]
        image = image if predictor.plan.tiled else predictor.fit(image)
        self._waiting.put((future, image, size))
        return future

    def close(self) -> None:
        """Ends the thread after what was submitted before."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        limit = 1 if self._predictor.plan.tiled else self._predictor.plan.batch_size
        while True:
            batch, is_last = self._take(limit)
            batch = [item for item in batch if item[0].set_running_or_notify_cancel()]
            try:
                for item, finish in zip(batch, self._predict(batch), strict=True):
                    item[0].set_result(finish)
            except Exception as error:  # each request reports it; the thread goes on
                for future, *_ in batch:
                    if not future.done():
                        future.set_exception(error)
            if is_last:
                return

    def _take(self, limit: int) -> tuple[list[_Waiting], bool]:
        """What waits, one at least, and whether it is the end."""
        batch = [self._waiting.get()]
        while batch[-1] is not None and len(batch) < limit:
            try:
                batch.append(self._waiting.get_nowait())
            except queue.Empty:
                return batch, False
        return [item for item in batch if item is not None], batch[-1] is None

    def _predict(self, batch: list[_Waiting]) -> list[Finish]:
        predictor = self._predictor
        if not batch:
            return []
        if predictor.plan.tiled:
            results = [predictor.tile(image, np.uint16) for _, image, _ in batch]
            return [functools.partial(_same, result) for result in results]
        fill = next(fill for fill in self._fills if fill >= len(batch))
        outputs = predictor.run(np.stack([image for _, image, _ in batch]), fill)
        return [
            functools.partial(
                predictor.finish,
                {name: values[i] for name, values in outputs.items()},
                size,
                np.uint16,
            )
            for i, (_, _, size) in enumerate(batch)
        ]


def _doubling(first: int, last: int) -> list[int]:
    """Sizes of batches: filling up one to the next costs at most as much again.

    >>> _doubling(1, 6)
    [1, 2, 4, 6]
    """
    sizes = [first]
    while sizes[-1] < last:
        sizes.append(min(2 * sizes[-1], last))
    return sizes


def _same(result: Result) -> Result:
    return result
