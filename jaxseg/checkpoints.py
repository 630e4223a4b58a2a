"""The latest and the best state of a run, by orbax.

A checkpoint is a step with two items: `state`, the arrays, and `progress`, a JSON
record of what the host counts. Saving is asynchronous and atomic: a step folder appears
when it is complete. The newest is always kept, beside the best.
"""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jaxseg.train_state import TrainState

Progress = dict[str, Any]


class Checkpoints:
    """Saves and restores the states of one run folder."""

    def __init__(self, folder: Path):
        options = ocp.CheckpointManagerOptions(
            best_fn=_score,
            best_mode="max",
            # best_fn alone would delete the latest whenever it is not the best.
            preservation_policy=AnyPreservationPolicy(
                [LatestN(1), BestN(get_metric_fn=_score, n=1)]
            ),
            step_prefix="step",
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=options,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "progress": ocp.JsonCheckpointHandler(),
            },
        )

    def save(
        self, step: int, state: TrainState, progress: Progress, score: float
    ) -> None:
        """Saves in the background.

        Args:
          score: larger is better; -inf for a state that must never be the best.
        """
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress)
        )
        self._manager.save(step, args=items, metrics={"score": score})

    @property
    def latest(self) -> int | None:
        """The newest step, None before any."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """The step with the highest score, None before any."""
        self.wait()
        return self._manager.best_step()

    def restore(self, step: int, abstract: TrainState) -> tuple[TrainState, Progress]:
        """The state and the host's record of a step.

        Args:
          abstract: shapes, dtypes and shardings of the state.
        """
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract),
            progress=ocp.args.JsonRestore(),
        )
        restored = self._manager.restore(step, args=items)
        return restored["state"], restored["progress"]

    def wait(self) -> None:
        """Returns when everything saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]
