"""Interrupts a small training again and again, and compares how it ends.

    python tests/crash_campaign.py --rounds 100 --out docs/reliability.md

The training is done once undisturbed. Then every round does it in a folder of its own,
is interrupted once or twice, at a random moment of a random phase, and started again
until it ends by itself: by kill -9, by SIGTERM, or by a disk that is full. Weights,
metrics.csv without its timing and the results on the test part must be the same, bit
for bit. Ends with 1 if one round differs.
"""

import argparse
import contextlib
import csv
import dataclasses
import functools
import importlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
START = "start"
# What a phase begins with: (module, function).
PHASES = {
    "preparation": ("jaxseg.data.prepare", "_write"),
    "cache build": ("jaxseg.data.cache", "_build"),
    "step": ("jaxseg.parallel", "put_steps"),
    "evaluation": ("jaxseg.loop", "collect_counts"),
    "checkpoint": ("jaxseg.checkpoints", "Checkpoints.save"),
    "report": ("jaxseg.report.judge", "judge"),
}
KINDS = ("kill -9", "SIGTERM", "disk full")
SIGNALS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM}
WRONG_INPUT, STOPPED = 2, 75
TIMEOUT = 600
TIMED = {"images_per_second", "input_wait"}
OVERRIDES = (
    "data.num_photos=12",
    "data.image_size=(32, 32)",
    "data.val_fraction=0.25",
    "data.test_fraction=0.25",
    "model.widths=(4, 8)",
    "model.dropout=(0.0, 0.0)",
    "train.batch_size=8",
    "train.epochs=3",
    "train.monitor=loss",
    "train.precision=float32",
    "train.preview=1",
)


class Mark(NamedTuple):
    """The beginning of a phase."""

    phase: str
    seconds: float  # since the process was started


class Moment(NamedTuple):
    """When to interrupt: some seconds after a phase began for the nth time."""

    phase: str
    number: int
    delay: float


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a process ended.

    Attributes:
      marks: of all phases that it came to.
      latency: seconds from the signal to the end; None without one.
    """

    code: int
    marks: tuple[Mark, ...]
    seconds: float
    latency: float | None
    output: str

    @property
    def phase(self) -> str:
        return self.marks[-1].phase if self.marks else START


@dataclasses.dataclass(frozen=True)
class Interruption:
    kind: str
    ending: Ending


@dataclasses.dataclass(frozen=True)
class Round:
    """What happened; `problem` is '' when the run ended as the undisturbed one."""

    interruptions: tuple[Interruption, ...]
    problem: str


def train_with_marks(pipe: int, largest_file: int, arguments: list[str]) -> None:
    """`scripts/train.py` that writes the name of a phase into a pipe as it begins."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    sys.path.insert(0, str(ROOT / "scripts"))
    sys.argv[1:] = arguments
    import command_line
    import train

    def run(arguments):
        for phase, (module, name) in PHASES.items():
            *parents, last = name.split(".")
            owner = functools.reduce(getattr, parents, importlib.import_module(module))
            setattr(owner, last, _marked(getattr(owner, last), pipe, phase))
        train.run(arguments)

    command_line.main(run)


def _marked(function: Callable, pipe: int, phase: str) -> Callable:
    @functools.wraps(function)
    def marked(*arguments, **options):
        os.write(pipe, f"{phase}\n".encode())
        return function(*arguments, **options)

    return marked


def launch(
    work: Path,
    shared: Path,
    moment: Moment | None = None,
    number: signal.Signals = signal.SIGTERM,
    largest_file: int = resource.RLIM_INFINITY,
) -> Ending:
    """The training in `work`, in a process of its own, to its end or to a signal.

    Args:
      shared: folder of photographs and compiled programs.
      largest_file: bytes; no file can be made larger.
    """
    reader, writer = os.pipe()
    command = [sys.executable, __file__, "--marks", str(writer), str(largest_file)]
    command += ["--config", str(ROOT / "configs" / "quickstart.py")]
    command += ["--workdir", str(work / "run")]
    overrides = [*OVERRIDES, f"data.dir={shared / 'data'}"]
    overrides += [f"data.cache_dir={work / 'cache'}"]
    command += [f"--config.{text}" for text in overrides]
    with (shared / "output").open("w+") as output, os.fdopen(reader) as marks_file:
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(shared),
            pass_fds=[writer],
        )
        os.close(writer)
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        marks, latency = [], None
        lines = (line.strip() for line in marks_file)
        if moment is None or moment.phase != START:
            for phase in lines:
                marks.append(Mark(phase, time.monotonic() - started))
                if moment and [m.phase for m in marks].count(moment.phase) == (
                    moment.number
                ):
                    break
            else:
                moment = None
        if moment is not None:
            time.sleep(moment.delay)
            sent = time.monotonic()
            process.send_signal(number)
            marks += [Mark(phase, sent - started) for phase in lines]
            process.wait()
            latency = time.monotonic() - sent
        code = process.wait()
        timer.cancel()
        seconds = time.monotonic() - started
        output.seek(0)
        return Ending(code, tuple(marks), seconds, latency, output.read())


def _environment(shared: Path) -> dict[str, str]:
    """One CPU device, and programs that are compiled once for all processes."""
    flags = "--xla_backend_optimization_level=0"
    if sys.version_info >= (3, 12):  # jax 0.12: programs with oneDNN cannot be kept
        flags += " --xla_cpu_experimental_onednn_custom_call=false"
    return os.environ | {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(shared / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(ROOT),
    }


def results_of(work: Path) -> dict[str, object]:
    """What must not depend on interruptions, by name."""
    run = work / "run"
    with (run / "metrics.csv").open(newline="") as file:
        rows = [
            {name: cell for name, cell in row.items() if name not in TIMED}
            for row in csv.DictReader(file)
        ]
    names = ("model/model.safetensors", "test/results.csv", "test/metrics.json")
    return {"metrics.csv": rows} | {name: (run / name).read_bytes() for name in names}


@contextlib.contextmanager
def small_disk(work: Path, size: int) -> Iterator[Callable[[], None]]:
    """Makes `work` a file system of `size` bytes; gives what makes it large.

    Raises:
      PermissionError: only root may.
    """
    work.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    made = subprocess.run([*mount, f"size={size}", "tmpfs", work], capture_output=True)
    if made.returncode:
        raise PermissionError
    try:
        yield lambda: subprocess.run([*mount, "remount,size=1g", work], check=True)
    finally:
        subprocess.run(["umount", "--lazy", work], check=True)


class Campaign:
    """Rounds after one undisturbed run, which tells how long phases take."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.shared = folder, folder / "shared"
        self.shared.mkdir()
        self.random = random.Random(seed)
        # Twice: the first compiles, and phases of the second are as long as any later.
        for name in ("first", "undisturbed"):
            self.ending = launch(folder / name, self.shared)
            if self.ending.code:
                raise RuntimeError(self.ending.output)
        self.results = results_of(folder / "undisturbed")
        files = [p for p in (folder / "undisturbed").rglob("*") if p.is_file()]
        sizes = [path.stat().st_size for path in files]
        self.bytes, self.largest = sum(sizes), max(sizes)
        self.first_mark = self.ending.marks[0].seconds
        self.numbers = Counter(mark.phase for mark in self.ending.marks)
        self.lengths = self._lengths()

    def play(self, kind: str, phase: str) -> Round:
        """One round; a full disk chooses its phase itself."""
        work = Path(tempfile.mkdtemp(dir=self.folder)) / "work"
        if kind != "disk full":
            return self._interrupt_by_signal(work, kind, phase)
        share = self.random.uniform(0.05, 0.9)
        try:
            with small_disk(work, int(share * self.bytes)) as enlarge:
                ending = launch(work, self.shared)
                enlarge()
                return self._go_on(work, (Interruption(kind, ending),))
        except PermissionError:
            ending = launch(work, self.shared, largest_file=int(share * self.largest))
            return self._go_on(work, (Interruption(kind, ending),))

    def _interrupt_by_signal(self, work: Path, kind: str, phase: str) -> Round:
        interruptions = []
        phases = [phase, *self.random.choices([*PHASES], k=self.random.random() < 0.3)]
        for wanted in phases:
            ending = launch(work, self.shared, self._moment(wanted), SIGNALS[kind])
            if ending.latency is None:
                break  # it did not come to that phase any more, and ended
            interruptions.append(Interruption(kind, ending))
        return self._go_on(work, tuple(interruptions))

    def _go_on(self, work: Path, interruptions: tuple[Interruption, ...]) -> Round:
        wrong = [i for i in interruptions if not _is_expected(i)]
        if wrong:
            ending = wrong[0].ending
            text = f"{wrong[0].kind} in {ending.phase}: code {ending.code}"
            return Round(interruptions, f"{text}\n{ending.output}")
        ending = launch(work, self.shared)
        if ending.code:
            problem = f"started again: code {ending.code}\n{ending.output}"
            return Round(interruptions, problem)
        results = results_of(work)
        other = [name for name in results if results[name] != self.results[name]]
        if not other:
            shutil.rmtree(work, ignore_errors=True)  # a mount point stays
        return Round(interruptions, f"other {', '.join(other)}" if other else "")

    def _moment(self, phase: str) -> Moment:
        if phase == START:
            return Moment(START, 0, self.random.uniform(0, self.first_mark))
        number = self.random.randint(1, self.numbers[phase])
        return Moment(phase, number, self.random.uniform(0, self.lengths[phase]))

    def _lengths(self) -> dict[str, float]:
        """Median seconds to the next mark, by phase."""
        marks = [*self.ending.marks, Mark("end", self.ending.seconds - 1)]
        lengths = defaultdict(list)
        for mark, following in itertools.pairwise(marks):
            lengths[mark.phase].append(max(following.seconds - mark.seconds, 0.02))
        return {phase: statistics.median(found) for phase, found in lengths.items()}


def _is_expected(interruption: Interruption) -> bool:
    kind, ending = interruption.kind, interruption.ending
    if kind == "kill -9":
        return ending.code in (-signal.SIGKILL, 0)  # 0: too late
    if kind == "disk full":
        return ending.code == WRONG_INPUT
    # Before the program has begun, the interpreter ends as any other process.
    early = ending.phase == START and ending.code == -signal.SIGTERM
    return ending.code in (STOPPED, 0) or early


def play_all(campaign: Campaign, rounds: int) -> Iterator[Round]:
    """All kinds in all phases, in random order, again and again."""
    order = [(kind, phase) for phase in (START, *PHASES) for kind in KINDS]
    campaign.random.shuffle(order)
    for number in range(rounds):
        played = campaign.play(*order[number % len(order)])
        phases = [f"{i.kind} in {i.ending.phase}" for i in played.interruptions]
        said = played.problem or "the same in the end"
        print(f"{number + 1}/{rounds}: {', '.join(phases)}: {said}", flush=True)
        yield played


def write_page(campaign: Campaign, rounds: list[Round], seed: int) -> str:
    """The campaign in Markdown."""
    interruptions = [i for r in rounds for i in r.interruptions if i.ending.code != 0]
    counts = Counter((i.ending.phase, i.kind) for i in interruptions)
    same = sum(not r.problem for r in rounds)
    late = [i.ending.latency for i in interruptions if i.ending.code == STOPPED]
    record = json.loads((campaign.folder / "undisturbed/run/config.json").read_text())
    environment = record["environment"]
    versions = environment["versions"].items()
    command = "python tests/crash_campaign.py"
    lines = [
        "# Reliability",
        "",
        f"Made by `{command} --rounds {len(rounds)} --seed {seed}`.",
        "",
        "A training of three epochs on 32x32 pixels, from photographs to report, takes "
        f"{campaign.ending.seconds:.0f} s; it is interrupted at random moments "
        "and started again with the same command, in processes of its own. "
        f"{environment['device']}, python {environment['python']}, "
        f"{', '.join(f'{name} {version}' for name, version in versions)}.",
        "",
        f"**{same} of {len(rounds)} rounds** ended by themselves with weights, "
        "metrics.csv (without timing) and results on the test part bit-equal to those "
        f"of the undisturbed run, after {len(interruptions)} interruptions:",
        "",
        f"| last phase begun | {' | '.join(KINDS)} |",
        f"| --- |{' --- |' * len(KINDS)}",
    ]
    for phase in (START, *PHASES):
        cells = [str(counts[phase, kind]) for kind in KINDS]
        lines.append(f"| {phase} | {' | '.join(cells)} |")
    if late:
        lines += [
            "",
            f"From SIGTERM to exit code 75: median {statistics.median(late):.1f} s, "
            f"longest {max(late):.1f} s, of {len(late)}.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    if sys.argv[1:2] == ["--marks"]:
        train_with_marks(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a Markdown file for the figures")
    options = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        campaign = Campaign(Path(name), options.seed)
        for played in play_all(campaign, options.rounds):
            rounds.append(played)
            if options.out:  # after every round: a long campaign may be stopped
                options.out.write_text(write_page(campaign, rounds, options.seed))
        print(write_page(campaign, rounds, options.seed))
    sys.exit(any(played.problem for played in rounds))


if __name__ == "__main__":
    main()
