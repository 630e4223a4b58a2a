"""The latest and the best states of a run, by orbax; what is damaged is not used.

A checkpoint is a step with two items: `state`, the arrays, and `progress`, a JSON
record of what the host counts. Saving is asynchronous and atomic: a step folder appears
when it is complete, and only then older ones are deleted. Two of each kind are kept,
the two newest and the two best, so that one is left when the other is damaged.

In each step folder `checksums.json` has the CRC-32 of its files. The thread that saves
reads them back just before the folder gets its name, so the training does not wait, and
no kill leaves a named folder without its checksums. Two files are left out, because
orbax writes them last and needs neither to restore.
"""

import errno
import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN
from orbax.checkpoint.path import atomicity

from jaxseg.errors import InputError, shorten
from jaxseg.progress import console
from jaxseg.train_state import TrainState

CHECKSUMS = "checksums.json"
DAMAGED = "damaged"
"""Folder, inside that of the checkpoints, of those that are not whole."""
WRITTEN_LAST = {"_CHECKPOINT_METADATA", "commit_success.txt"}

Progress = dict[str, Any]


class _Summed(atomicity.AtomicRenameTemporaryPath):
    """A step folder that gets its checksums before it gets its name."""

    async def finalize(self) -> None:
        folder = Path(self.get())
        (folder / CHECKSUMS).write_text(json.dumps(_checksums(folder)))
        await super().finalize()


class Checkpoints:
    """Saves and restores the states of one run folder.

    Raises:
      InputError: there are checkpoints, and none of them is whole.
    """

    def __init__(self, folder: Path):
        if jax.process_index() == 0:
            _set_damaged_aside(folder)
        multihost_utils.sync_global_devices("checkpoints are verified")
        options = ocp.CheckpointManagerOptions(
            best_fn=_score,
            best_mode="max",
            # best_fn alone would delete the latest whenever it is not the best.
            preservation_policy=AnyPreservationPolicy(
                [LatestN(2), BestN(get_metric_fn=_score, n=2)]
            ),
            step_prefix="step",
            cleanup_tmp_directories=True,
            temporary_path_class=_Summed,
        )
        self._folder = folder
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=options,
            item_handlers={
                # To compress weights, which are noise, takes a tenth of the CPU time.
                "state": ocp.PyTreeCheckpointHandler(use_compression=False),
                "progress": ocp.JsonCheckpointHandler(),
            },
        )

    def save(
        self, step: int, state: TrainState, progress: Progress, score: float
    ) -> None:
        """Saves in the background, in place of an earlier state of the same step.

        There is one when a signal stopped the run between a step and its validation.

        Args:
          score: larger is better; -inf for a state that must never be the best.

        Raises:
          OSError, ValueError: this one, or the one before, could not be written.
        """
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state), progress=ocp.args.JsonSave(progress)
        )
        self._refuse_full_disk(state)
        if step == self.latest:  # orbax would keep the old one and say nothing
            self._manager.delete(step)
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

        Raises:
          InputError: the checkpoint has other arrays.
        """
        self._refuse_other_arrays(step, abstract)
        items = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(
                abstract, ocp.checkpoint_utils.construct_restore_args(abstract)
            ),
            progress=ocp.args.JsonRestore(),
        )
        restored = self._manager.restore(step, args=items)
        return restored["state"], restored["progress"]

    def wait(self) -> None:
        """Returns when everything saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()

    def _refuse_full_disk(self, state: TrainState) -> None:
        """Before orbax, whose threads end with a traceback each on a full disk."""
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if jax.process_index() == 0 and shutil.disk_usage(self._folder).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))

    def _refuse_other_arrays(self, step: int, abstract: TrainState) -> None:
        stored = _describe(self._manager.item_metadata(step)["state"].tree)
        wanted = _describe(abstract)
        different = [
            f"{name}: {stored.get(name, 'none')} there, {wanted.get(name, 'none')} now"
            for name in sorted(stored.keys() | wanted.keys())
            if stored.get(name) != wanted.get(name)
        ]
        if different:
            raise InputError(
                f"a checkpoint of this network and optimizer in {self._folder}",
                f"step {step} with {len(different)} other array(s): "
                + shorten(different),
                "--workdir runs/another-name, or --restart to archive the old run",
            )


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


def _describe(tree: Any) -> dict[str, str]:
    """'float32 (3, 3)' by 'params/conv/kernel'; the same for a state and on disk."""
    leaves = jax.tree.leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{leaf.dtype} {tuple(leaf.shape)}"
        )
        for path, leaf in leaves
    }


def _set_damaged_aside(folder: Path) -> None:
    """Moves step folders that are not whole to `damaged`, and says so."""
    problems = {step: _problem(step) for step in sorted(folder.glob("step_*[0-9]"))}
    damaged = {step: text for step, text in problems.items() if text}
    if damaged and len(damaged) == len(problems):
        raise InputError(
            f"a whole checkpoint in {folder}",
            "\n  ".join(f"{step.name}: {text}" for step, text in damaged.items()),
            "copy the folder once more, or begin anew with --restart",
        )
    for step, text in damaged.items():
        aside = folder / DAMAGED / step.name
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        step.rename(aside)
        console.print(
            f"- {step} is not whole ({text}): set aside in {aside.parent}, another "
            "checkpoint is used",
            markup=False,
        )


def _problem(step: Path) -> str:
    """What is wrong with the files of a step folder; '' where nothing is."""
    try:
        expected = json.loads((step / CHECKSUMS).read_text("utf-8"))
    except FileNotFoundError:
        return f"{CHECKSUMS} is missing"
    except ValueError:
        return f"{CHECKSUMS} was altered"
    found = _checksums(step)
    missing = [name for name in expected if name not in found]
    altered = [name for name in found if found[name] != expected.get(name)]
    if missing:
        return f"{shorten(missing, 2)} missing"
    return f"{shorten(altered, 2)} altered" if altered else ""


def _checksums(folder: Path) -> dict[str, int]:
    """CRC-32 of the files inside a folder, by their path in it.

    It tells accidents, in less than half of the CPU time of SHA-256.
    """
    left_out = {CHECKSUMS, *WRITTEN_LAST}
    sums = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in left_out:
            sums[name] = _crc32(path)
    return sums


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while part := file.read(2**20):
            value = zlib.crc32(part, value)
    return value
