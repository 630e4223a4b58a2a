"""What a checkpoint costs, as a section of docs/reliability.md.

    python scripts/benchmark_checkpoints.py >> docs/reliability.md

The state is that of a U-Net with Adam, of random numbers. 'The loop waits' is how long
`save` keeps the training; the rest is done beside it, by threads that take CPU time
from the step where the step runs on the CPU. CPU time is that of this process while it
does nothing else, so other programs do not count; they do in the waiting.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import command_line
from benchmark_machine import describe_machine, seconds_of_others

CONFIG = Path(__file__).parents[1] / "configs" / "folder_segmentation.py"
EPOCH = 30.0
"""Seconds of the epoch that the cost is compared with."""
SAVES = 5


class Cost(NamedTuple):
    """Medians, in seconds."""

    waits: float
    cpu_beside: float
    until_on_disk: float

    def share(self, cores: int) -> float:
        """Of an epoch, at worst: with steps that would keep all cores busy."""
        return (self.waits + self.cpu_beside / cores) / EPOCH


def measure(state, folder: Path, saves: int) -> Cost:
    """Saves a state some times, with the checksums and the deletions of a run."""
    from jaxseg.checkpoints import Checkpoints

    checkpoints, costs = Checkpoints(folder), []
    for step in range(saves):
        started = time.perf_counter()
        checkpoints.save(step, state, {"history": []}, float(step))
        waits, cpu = time.perf_counter() - started, time.process_time()
        checkpoints.wait()
        seconds = time.perf_counter() - started
        costs.append(Cost(waits, time.process_time() - cpu, seconds))
    checkpoints.close()
    return Cost(*map(statistics.median, zip(*costs, strict=True)))


def make_state(config: Path):
    """The state of a config's network with Adam, of random numbers."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from jaxseg import train_state
    from jaxseg.experiment import SCHEMAS
    from jaxseg.models import MODELS

    network = command_line.load_config(config, [], SCHEMAS).model.network
    model = MODELS[network.name](1, jnp.float32, **network.kwargs)
    shapes = jax.eval_shape(
        lambda: train_state.init_train_state(
            model, optax.adam(1e-3), image_shape=(64, 64, 3), seed=0, use_ema=False
        )
    )
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape).astype(x.dtype)), shapes
    )


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    state = make_state(CONFIG)

    import jax

    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    started, others = time.perf_counter(), seconds_of_others()
    with tempfile.TemporaryDirectory() as name:
        cost = measure(state, Path(name), SAVES)
    others = (seconds_of_others() - others) / (time.perf_counter() - started)
    machine = describe_machine({}, others / os.cpu_count())
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    print(
        f"\n## Cost of a checkpoint\n\n"
        "Made by `python scripts/benchmark_checkpoints.py`.\n\n"
        f"{size / 1e6:.0f} MB, the network of `configs/{CONFIG.name}` with Adam; "
        f"{machine['cpu']}, {machine['cores']} cores, "
        f"{machine['others']:.0%} of them used by other programs; {versions}. The loop "
        "waits "
        f"{cost.waits:.3f} s; beside it {cost.cpu_beside:.2f} s of CPU time, "
        f"{cost.until_on_disk:.2f} s until it is on disk with its checksums. In an "
        f"epoch of {EPOCH:.0f} s that is {cost.waits / EPOCH:.2%} of waiting, and "
        f"{cost.share(machine['cores']):.2%} where the step itself needs all cores."
    )


if __name__ == "__main__":
    command_line.main(run)
