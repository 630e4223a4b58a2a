"""The two sides of `benchmark.py step`: jaxseg's own train step, and PyTorch's.

Both are contestants: `run(steps)` gives the seconds of all those steps together.
"""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from jaxseg.errors import InputError

TWIN = Path(__file__).with_name("torch_twin.py")
# Of two losses. The first says that the forward passes are the same. Then Adam turns
# the rounding of tiny gradients into whole steps: float32 parts from float64 by 1e-3
# within five steps, and PyTorch with one thread from PyTorch with two as well.
FIRST_TOLERANCE, TOLERANCE = 1e-5, 5e-3
OF_FIRST_LOSS = 1e-4  # allowed on top: later losses may be next to nothing
UNET = dict(
    widths=(32, 64, 128, 256, 512),
    norm="batch",
    bn_group=None,
    activation="relu",
    dropout=(0.0,) * 5,
    decoder="transpose",
    head_kernel=1,
    image_head=False,
    adjust_gradient=False,
)
RESNET18 = dict(encoder="resnet18", bn_group=None, drop_path=0.0, dropout=0.0)
NETWORKS = {  # name -> (name in MODELS, its keys, name in TASKS)
    "unet": ("unet", UNET, "segmentation"),
    "resnet18": ("classifier", RESNET18, "classification"),
}

HFLIP = {"hflip": {"p": 0.5}}
AUGMENTS = {  # name -> what is done; the last is that of the speed lines (R4)
    "no augmentation": {},
    "flips and quarter turns": HFLIP | {"vflip": {"p": 0.5}, "rot90": {"p": 1.0}},
    "crops and distortions": HFLIP
    | {
        "crop": {"p": 0.5, "share": (50 / 256, 101 / 256)},
        "vflip": {"p": 0.5},
        "rot90": {"p": 0.5},
        "elastic": {"p": 0.2, "alpha": 120.0, "sigma": 6.0},
        "grid": {"p": 0.2, "steps": 5, "limit": 0.3},
        "optical": {"p": 0.4, "limit": 1.0, "shift": 0.5},
    },
}


def make_batch(batch_size: int, size: int) -> dict[str, np.ndarray]:
    """Noise [N, size, size, 3]; the mask marks where its red is bright."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (batch_size, size, size, 3), np.uint8)
    mask = (image[..., 0] > 200).astype(np.uint8)
    index = np.arange(batch_size, dtype=np.int32)
    return {"image": image, "mask": mask, "label": index % 2, "index": index}


def compare_losses(ours: list[float], theirs: list[float]) -> float:
    """The largest difference of two traces, as a share of the first loss.

    Raises:
      InputError: they part by more than rounding; there is nothing to time then.
    """
    difference = np.abs(np.subtract(theirs, ours))
    allowed = TOLERANCE * np.abs(ours) + OF_FIRST_LOSS * ours[0]
    allowed[0] = FIRST_TOLERANCE * ours[0]
    wrong = np.flatnonzero(~(difference <= allowed))  # NaN is wrong, too
    if len(wrong):
        k = wrong[0]
        raise InputError(
            f"losses of the same network: equal to {allowed[k]:.2g} at step {k}",
            f"{ours[k]} by jaxseg, {theirs[k]} by PyTorch",
            "make the network in scripts/torch_twin.py that of jaxseg/models again",
        )
    return float(difference.max() / ours[0])


class Ours:
    """jaxseg's own compiled train step on one batch that stays on the device."""

    def __init__(self, model: str, batch: dict, precision: str, named: dict):
        import jax
        import jax.numpy as jnp

        from jaxseg import augment, losses, optim, parallel, steps, train_state
        from jaxseg.config import Optim
        from jaxseg.models import MODELS
        from jaxseg.tasks import TASKS

        name, options, task_name = NETWORKS[model]
        network = MODELS[name](1, jnp.dtype(precision), **options)
        task = TASKS[task_name](
            ("background", "crack"),
            losses.make_loss({"bce": {"weight": 1.0, "pos_weight": 1.0}}),
            threshold="max_f1",
            min_recall=0.5,
        )
        adam = Optim("adam", 1e-3, "constant", None, 0.0, 0.0, 0.0, None)
        optimizer = optim.make_optimizer(adam, lambda step: 1e-3, step_at=round)
        step = steps.make_train_step(
            network,
            task,
            optimizer,
            augment.make_augment(named),
            augment.make_normalize((0.5,) * 3, (0.25,) * 3),
            seed=0,
            accumulate=1,
            ema_decay=None,
            parts={},
            reduction="mean",
            progress=lambda step: 0.0,
        )
        mesh = parallel.make_mesh(len(batch["image"]))
        init = partial(
            train_state.init_train_state,
            network,
            optimizer,
            image_shape=batch["image"].shape[1:],
            seed=0,
            use_ema=False,
        )
        self.state = jax.jit(init, out_shardings=parallel.replicated(mesh))()
        self.batch = parallel.put_batch(batch, mesh)
        started = time.perf_counter()
        jitted = parallel.compile_train_step(step, mesh)
        self._step = jitted.lower(self.state, self.batch).compile()
        self.compile_seconds = time.perf_counter() - started

    @property
    def num_parameters(self) -> int:
        return sum(weight.size for weight in self.weights().values())

    def weights(self) -> dict[str, np.ndarray]:
        """Parameters by path, 'encoder_0/Conv_0/kernel'."""
        import jax
        from flax.traverse_util import flatten_dict

        return flatten_dict(jax.device_get(self.state.params), sep="/")

    def trace(self, steps: int) -> list[float]:
        """Losses of the next steps."""
        return [float(self._advance()["loss"]) for _ in range(steps)]

    def run(self, steps: int) -> float:
        """Seconds of all steps together; waits for the device once."""
        started = time.perf_counter()
        for _ in range(steps):
            logs = self._advance()
        logs["loss"].block_until_ready()
        return time.perf_counter() - started

    def _advance(self) -> dict:
        self.state, logs = self._step(self.state, self.batch)
        return logs


class Twin:
    """The other side of torch_twin.py; that process idles while it is not asked."""

    def __init__(self, process: subprocess.Popen):
        self._process = process
        ready = self._answer()
        self.rungs, self.versions = ready["rungs"], ready["versions"]

    def trace(self, steps: int) -> list[float]:
        """Losses of the first steps."""
        return self._ask({"trace": steps})["losses"]

    def run(self, rung: str, steps: int) -> float:
        """Seconds of all steps together."""
        return self._ask({"run": steps, "rung": rung})["seconds"]

    def _ask(self, request: dict) -> dict:
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            python, code = self._process.args[0], self._process.wait()
            raise _no_torch(f"{python} ended with {code}; its words are above")
        return json.loads(line)


@contextlib.contextmanager
def open_twin(python: str, model: str, weights: dict, batch: dict) -> Iterator[Twin]:
    """The twin with those weights; its process ends with the block.

    Raises:
      InputError: jax does not run on a CPU, or that Python has no torch.
    """
    _require_cpu()
    threads = str(len(os.sched_getaffinity(0)))
    # Threads that spin while they wait would slow the other side down.
    quiet = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": threads}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "weights.npz", **weights)
        np.savez(Path(folder) / "batch.npz", **batch)
        try:
            process = subprocess.Popen(
                [python, str(TWIN), model, folder, "--threads", threads],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | quiet,
            )
        except OSError as error:
            raise _no_torch(f"{python}: {error.strerror}") from None
        with process:
            yield Twin(process)


def _no_torch(found: str) -> InputError:
    fix = "--torch-python PATH/bin/python of an environment with them"
    return InputError("a Python with torch and numpy", found, fix)


def _require_cpu() -> None:
    import jax

    if jax.default_backend() != "cpu":
        raise InputError(
            "a CPU, where the twin runs",
            f"jax runs on {jax.default_backend()}",
            "JAX_PLATFORMS=cpu before the command, or no --against",
        )
