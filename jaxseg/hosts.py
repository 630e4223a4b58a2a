"""Several processes as one run: how they meet, agree, and wait for each other.

JAX's own distributed runtime does the work. Processes speak through its key-value
store, which needs no device and works while one of them is busy for hours. In one
process nothing here does anything.

When a process is lost, the runtime ends the others after `HEARTBEAT` seconds, if a
broken connection has not ended them before; the same command then goes on from the
last checkpoint.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
from jax._src import distributed  # JAX has no public door to its key-value store

from jaxseg import progress, signals
from jaxseg.errors import InputError

HEARTBEAT = 30
"""Seconds of silence after which a process counts as lost."""

SHUTDOWN = 30
"""Seconds that a process waits at its end for the others to end."""

CLUSTERS = {
    "SLURM": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
}
"""Variables that tell how many processes were started, and which one this is."""

# Of the same message every process has its own number: they all come by here equally.
_numbers = itertools.count()

WRONG_INPUT = 2
"""Exit code, as of an `InputError`."""

T = TypeVar("T")


class SharedError(InputError):
    """An error that all processes have; process 0 says it for all."""


class Place(NamedTuple):
    """What is known of a process before it meets the others; None is left to JAX."""

    coordinator: str | None
    num_processes: int | None
    process_id: int | None


def find_place(given: Place, variables: Mapping[str, str]) -> Place | None:
    """Where this process stands among the others; None if it is alone.

    Args:
      given: on the command line.
      variables: of the environment.

    Raises:
      InputError: the command line contradicts itself or the cluster.
    """
    for cluster, names in CLUSTERS.items():
        if all(variables.get(name, "").isdigit() for name in names):
            told = Place(None, *(int(variables[name]) for name in names))
            _refuse_contradiction(given, told, cluster, names)
            break
    else:
        hostnames = variables.get("TPU_WORKER_HOSTNAMES", "")
        told = Place(None, hostnames.count(",") + 1, None)
        if given.num_processes is None and given != (None, None, None):
            raise InputError(
                "the number of processes beside --coordinator and --process_id",
                "none on the command line, and no SLURM or Open MPI that tells",
                "--num_processes N, the same for all processes",
            )
    place = Place(
        given.coordinator,
        given.num_processes or told.num_processes,
        told.process_id if given.process_id is None else given.process_id,
    )
    number, count = place.process_id, place.num_processes
    if number is not None and not 0 <= number < count:
        raise InputError(
            f"a --process_id from 0 to {count - 1}, for {count} processes",
            f"--process_id {number}",
            "number the processes from 0, or correct --num_processes",
        )
    return place if count > 1 else None


def _refuse_contradiction(given: Place, told: Place, cluster: str, names) -> None:
    for name, option in zip(names, ("num_processes", "process_id"), strict=True):
        ours, theirs = getattr(given, option), getattr(told, option)
        if ours is not None and ours != theirs:
            raise InputError(
                f"the --{option} of {cluster}: {name}={theirs}",
                f"--{option} {ours}",
                f"leave --{option} out, or start as many processes as it says",
            )


def join(place: Place | None, *, patience: int) -> None:
    """Meets the other processes; call it before anything asks JAX for devices.

    Args:
      patience: seconds to wait for them.

    Where they do not all come, the process ends with 2 and says so.

    Raises:
      InputError: JAX does not find its place in the cluster.
    """
    if place is None:
        return
    # Left to itself the runtime ends the process without a word that helps.
    watch = threading.Timer(patience, _give_up, (place, patience))
    watch.daemon = True
    watch.start()
    try:
        jax.distributed.initialize(
            *place,
            initialization_timeout=patience + 60,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=SHUTDOWN,
        )
    except ValueError as error:  # what the cluster should tell is not told
        raise InputError(
            "a cluster that tells where process 0 is, and which one this is",
            str(error),
            "--coordinator HOST:PORT --num_processes N --process_id I",
        ) from None
    finally:
        watch.cancel()
    if not is_first():
        progress.silence()


def _give_up(place: Place, patience: int) -> None:
    error = InputError(
        f"{place.num_processes} processes that meet at "
        f"{place.coordinator or 'the coordinator of the cluster'}",
        f"process {place.process_id} waited {patience} s for the others",
        "start all of them, with the --coordinator HOST:PORT of process 0 and a port "
        "that its host lets through; --patience waits longer",
    )
    print(f"\n{error}", file=sys.stderr, flush=True)
    os._exit(WRONG_INPUT)  # the main thread is in the runtime, deaf to exceptions


def is_first() -> bool:
    """Whether this process speaks and writes for all; also where it is alone."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def is_alone() -> bool:
    """Whether there is no other process."""
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def in_turn(make: Callable[[], T]) -> T:
    """Makes it in every process: first in process 0, then in all the others at once.

    What process 0 leaves on a shared file system is there for the others.

    Raises:
      SharedError: in every process, when one of them was refused.
    """
    if is_alone():
        return make()
    name, made = f"jaxseg/{next(_numbers)}", None
    refusal = None if is_first() else _refusal_of(name, 0)
    if refusal is None:
        try:
            made = make()
        except InputError as error:
            refusal = error
    words = [refusal.expected, refusal.found, refusal.fix] if refusal else []
    _say(f"{name}/{jax.process_index()}", words)
    for number in range(jax.process_count()):
        refusal = _refusal_of(name, number)
        if refusal is not None:
            raise refusal
    return made


def agree_on(find: Callable[[], Mapping[str, object]]) -> None:
    """Compares the facts that must be the same in all processes.

    Raises:
      SharedError: in every process, when one of them has other facts than process 0.
    """
    if is_alone():
        return
    name = f"jaxseg/{next(_numbers)}"
    _say(f"{name}/{jax.process_index()}", find())
    first, *others = (_hear(f"{name}/{i}") for i in range(jax.process_count()))
    for number, other in enumerate(others, 1):
        different = [
            f"{key}: {first.get(key)!r} in process 0, {other.get(key)!r} in {number}"
            for key in sorted(first.keys() | other.keys())
            if first.get(key) != other.get(key)
        ]
        if different:
            raise SharedError(
                "the same config, code and versions in all processes",
                "\n  ".join([f"{len(different)} difference(s):", *different]),
                "the same command, checkout and environment on every host",
            )


@contextlib.contextmanager
def first_alone() -> Iterator[bool]:
    """Tells process 0 to work and lets the others wait until it is done."""
    if is_alone():
        yield True
        return
    name = f"jaxseg/{next(_numbers)}"
    if not is_first():
        yield False
        _hear(name)
        return
    try:
        yield True
    finally:
        _say(name, "done")


@functools.cache
def code_hash() -> str:
    """Of this package's source, so that two checkouts can be told apart."""
    root, found = Path(__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()[:12]


def end_if_lost(error: Exception, code: int) -> None:
    """Ends this process at once, when the error is the loss of another one.

    Python's own end would wait for the lost process once more.
    """
    text = str(error).lower()
    if is_alone() or not any(sign in text for sign in LOST):
        return
    (reason, *_) = str(error).splitlines()
    words = f"process {jax.process_index()}: another process is lost ({reason[:200]})"
    goes_on = f"{signals.same_command()} goes on"
    print(f"\n{words}\n{goes_on}", file=sys.stderr, flush=True)
    os._exit(code)


LOST = ("gloo", "nccl", "connection", "socket", "unavailable", "heartbeat", "barrier")
"""Words in the errors of collectives whose other end is gone."""


def _refusal_of(name: str, number: int) -> SharedError | None:
    words = _hear(f"{name}/{number}")
    return SharedError(*words) if words else None


def _say(name: str, value: object) -> None:
    distributed.global_state.client.key_value_set(name, json.dumps(value))


def _hear(name: str) -> object:
    """Waits as long as it takes: when the speaker is lost, the runtime ends us."""
    client = distributed.global_state.client
    while True:
        # In short naps, or signals would not be noticed.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            return json.loads(client.blocking_key_value_get(name, 2000))
        time.sleep(0.05)
