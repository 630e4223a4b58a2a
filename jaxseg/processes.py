"""Runs of a sweep at the same time, each in a process with a device of its own.

A small data set gains more from more runs than from a larger batch, and a small network
leaves most of a large machine idle.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxseg.backend import usable_cores
from jaxseg.errors import InputError, shorten
from jaxseg.progress import console
from jaxseg.signals import STOPPED, same_command

DEVICES = """
import jax
devices = jax.local_devices()
chips = {tuple(getattr(device, "coords", [device.id])) for device in devices}
print(devices[0].platform, len(chips))
"""
"""Asked in a process that ends: one that has opened a device keeps it."""

POLL_SECONDS = 0.2
LOG_LINES = 12


class Slot(NamedTuple):
    """A device for one run, or a share of the processor's cores."""

    name: str
    environment: Mapping[str, str]
    cores: frozenset[int]


class Job(NamedTuple):
    """A run that has not begun.

    Attributes:
      needs: a file without which it cannot begin.
      since: seconds since 1970; an older file of that name will not do.
    """

    command: Sequence[str]
    needs: Path | None = None
    since: float = 0.0


class Pool(NamedTuple):
    """How the runs of a sweep are started: a command for each, and where they run."""

    commands: Mapping[str, Sequence[str]]
    slots: Sequence[Slot]


def find_slots(number: int, environment: Mapping[str, str]) -> list[Slot]:
    """So many devices of this machine, or equal shares of its cores without any.

    Args:
      environment: for the runs; JAX_PLATFORMS and CUDA_VISIBLE_DEVICES are heeded.

    Raises:
      InputError: there are fewer devices, or cores.
    """
    platform, devices = _ask_for_devices(environment)
    cores = usable_cores()
    available = len(cores) if platform == "cpu" else devices
    if number > available:
        what = "core" if platform == "cpu" else f"{platform} device"
        raise InputError(
            f"--parallel with at most 1 run for each {what}",
            f"{number} runs, {available} {what}(s)",
            f"--parallel {available}",
        )
    if platform == "cpu":
        shares = [frozenset(cores[i::number]) for i in range(number)]
        return [
            Slot(f"core {shorten(sorted(share))}", dict(environment), share)
            for share in shares
        ]
    return [
        Slot(
            f"{platform} {index}",
            {**environment, **_only(platform, index, environment)},
            frozenset(cores),
        )
        for index in range(number)
    ]


def _ask_for_devices(environment: Mapping[str, str]) -> tuple[str, int]:
    asked = subprocess.run(
        [sys.executable, "-c", DEVICES],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        raise InputError(
            "devices that JAX can open",
            asked.stderr.strip().rpartition("\n")[2],
            "JAX_PLATFORMS=cpu before the command, or free the devices",
        )
    platform, count = asked.stdout.split()
    return platform, int(count)


def _only(platform: str, index: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that show one device of this machine to a process."""
    if platform == "tpu":
        return {
            "TPU_VISIBLE_DEVICES": str(index),
            "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
            "TPU_PROCESS_BOUNDS": "1,1,1",
        }
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    device = shown.split(",")[index] if shown else str(index)
    return {"CUDA_VISIBLE_DEVICES": device}


def run_jobs(jobs: Mapping[str, Job], slots: Sequence[Slot], folder: Path) -> None:
    """Runs the jobs, as many at a time as there are slots, the first ones first.

    What a run says goes to `folder`/NAME.log. One that fails leaves the others alone.
    Signals to stop are handed on, and each run saves and stops.

    Raises:
      InputError: some runs failed, or wait for a file that none of them wrote.
      KeyboardInterrupt: after all runs have stopped for a signal.
    """
    running = _Running(folder)
    waiting, free = dict(jobs), list(slots)
    try:
        while True:
            free += running.collect()
            startable = [name for name, job in waiting.items() if _can_start(job)]
            for name in startable[: len(free)]:
                running.start(name, waiting.pop(name).command, free.pop(0))
            if not running.processes:
                break  # all are done, or what the others wait for has failed
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        running.stop()
        raise
    running.refuse_failures(list(waiting))


def _can_start(job: Job) -> bool:
    if job.needs is None:
        return True
    return job.needs.is_file() and job.needs.stat().st_mtime >= job.since


class _Running:
    """Processes by the name of their run, and how the ended ones ended."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: dict[str, tuple[subprocess.Popen, Slot, float]] = {}
        self.failed: dict[str, int] = {}

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def start(self, name: str, command: Sequence[str], slot: Slot) -> None:
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                list(command),
                env=dict(slot.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches this process alone, which hands it on once.
                start_new_session=True,
            )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, slot.cores)
        self.processes[name] = process, slot, time.monotonic()
        console.print(f"- {name} runs on {slot.name}, see {self.log(name)}")

    def collect(self) -> list[Slot]:
        """The slots of runs that have ended since the last call."""
        ended = [n for n, (p, _, _) in self.processes.items() if p.poll() is not None]
        slots = []
        for name in ended:
            process, slot, begin = self.processes.pop(name)
            slots.append(slot)
            if process.returncode:
                self.failed[name] = process.returncode
                console.print(
                    f"- {name} {_ending(process.returncode)}; its last words:"
                )
                console.print(_tail(self.log(name)), markup=False)
            else:
                seconds = time.monotonic() - begin
                console.print(f"- {name} is finished after {seconds / 60:.1f} min")
        return slots

    def stop(self) -> None:
        for process, _, _ in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process, _, _ in self.processes.values():
            process.wait()

    def refuse_failures(self, never_begun: Sequence[str]) -> None:
        if not self.failed and not never_begun:
            return
        ends = [f"{name} {_ending(code)}" for name, code in self.failed.items()]
        if never_begun:
            what = "one of them" if self.failed else "a file that none of them wrote"
            ends.append(f"{shorten(never_begun)} waited for {what}")
        raise InputError(
            "runs that all finish",
            "; ".join(ends),
            "mend what their last words name (above, and in the logs in "
            f"{self.folder}); {same_command()} goes on",
        )


def _ending(code: int) -> str:
    return "was stopped" if code == STOPPED else f"failed with exit code {code}"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-LOG_LINES:])
