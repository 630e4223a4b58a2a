"""Measures jaxseg: a training step (also against PyTorch), the input, a run's start.

    python scripts/benchmark.py step --model unet --against torch
    python scripts/benchmark.py augment
    python scripts/benchmark.py conv
    python scripts/benchmark.py input
    python scripts/benchmark.py start --config configs/quickstart.py

Contestants take turns in blocks, A B, B A, A B ..., so that a machine which slows down
slows all of them; a ratio is the median over the pairs of blocks of one turn. With
--json FILE the measurement is appended as one line; `report` makes docs/benchmarks.md
from docs/benchmarks/*.json. Exit codes: 0 done; 2 wrong input.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import benchmark_step
import command_line
import numpy as np
from benchmark_machine import describe_machine, seconds_of_others
from make_synthetic import at_least
from rich.console import Console
from rich.table import Table

from jaxseg.errors import InputError

DOCS = Path(__file__).parents[1] / "docs"
BLOCK_SECONDS, MIN_STEPS = 1.0, 3
COLUMNS = ("measured", "seconds", "images/s", "speed of the first to this")
METHODS = {
    "step": "One training step, the uint8 batch already on the device: random "
    "left-right flips, normalisation, forward, binary cross-entropy, backward, Adam "
    "(learning rate 0.001). PyTorch trains the same network in a process of its own "
    "with as many threads, never at the same time. Before the timing both train in "
    "float32 from the same weights, and their losses have to agree.",
    "augment": "The step of jaxseg alone, as above, with other augmentations. The "
    "ratio is how many times as long a step takes with them.",
    "conv": "SegDecNet's convolution of 15x15 taps, 64 to 1024 channels, at an eighth "
    "of 640x232 pixels: value and gradients for the image and for the kernel.",
    "input": "Random batches on one pinned core: out of the memory-mapped cache of "
    "decoded images, or decoded from JPEG in ArrayRecord every time. New batches are "
    "allocated by NumPy, three in flight, whose memory the C library hands out again; "
    "new pages come from the system every time. The images are rendered concrete.",
    "start": "Wall time from the start of a process. 'First step' is the time until "
    "the program says that its step is compiled, plus the mean step of the first "
    "epoch. Cold: no data rendered, no cache. Warm: the same command once more.",
}

Contestants = dict[str, Callable[[int], float]]  # name -> (steps -> seconds)


def turn(names: Sequence[str], number: int) -> list[str]:
    """The contestants of a turn in their order: A B, B A, A B, ..."""
    return list(names) if number % 2 == 0 else list(names)[::-1]


def measure(contestants: Contestants, turns: int) -> dict[str, list[float]]:
    """Seconds per step of every block, after a warm-up of every contestant."""
    steps = {}
    for name, run in contestants.items():
        run(2)
        steps[name] = max(MIN_STEPS, math.ceil(BLOCK_SECONDS / (run(2) / 2)))
    seconds = {name: [] for name in contestants}
    for number in range(turns):
        for name in turn(list(contestants), number):
            seconds[name].append(contestants[name](steps[name]) / steps[name])
    return seconds


def bootstrap_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """(median, lower, upper) of paired ratios, by their logarithms.

    The interval holds 95 % of the medians of 10,000 resamples.
    """
    logs = np.log(ratios)
    resampled = np.random.default_rng(0).choice(logs, (10_000, len(logs)))
    low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5])
    return float(np.exp(np.median(logs))), float(np.exp(low)), float(np.exp(high))


def summarize(blocks: dict[str, list[float]]) -> dict[str, dict]:
    """Medians, and how many times as fast the first contestant is as each other.

    Returns:
      `seconds` per step by name, `ratios` (median, lower, upper), and all `blocks`.
    """
    first, *others = blocks
    ratios = {
        name: bootstrap_interval(np.divide(blocks[name], blocks[first]))
        for name in others
    }
    seconds = {name: statistics.median(values) for name, values in blocks.items()}
    return {"seconds": seconds, "ratios": ratios, "blocks": blocks}


def step(options: argparse.Namespace) -> dict:
    """The train step, alone or against the twin."""
    model, size = options.model, options.size
    batch = benchmark_step.make_batch(options.batch, size)
    with contextlib.ExitStack() as stack:
        rungs, extra = {}, {"versions": {}}
        if options.against:
            plain = benchmark_step.Ours(model, batch, "float32", {})
            python, weights = options.torch_python, plain.weights()
            twin = stack.enter_context(
                benchmark_step.open_twin(python, model, weights, batch)
            )
            extra = _compare(plain, twin, options.trace) | {"versions": twin.versions}
            rungs = {f"PyTorch {rung}": partial(twin.run, rung) for rung in twin.rungs}
            del plain
        ours = benchmark_step.Ours(
            model, batch, options.precision, benchmark_step.HFLIP
        )
        ours_first = {f"jaxseg {options.precision}": ours.run}
        blocks = measure(ours_first | rungs, options.pairs)
    what = f"{model}, {ours.num_parameters:,} parameters, {options.batch}x{size}x{size}"
    extra["compile_seconds"] = ours.compile_seconds
    return {"what": what, "images": options.batch} | summarize(blocks) | extra


def _compare(ours, theirs, steps: int) -> dict:
    """Prints both traces, and refuses networks that are not the same."""
    traces = {"jaxseg": ours.trace(steps), "PyTorch": theirs.trace(steps)}
    for name, losses in traces.items():
        print(f"- losses of {name:7} {' '.join(f'{loss:.6f}' for loss in losses)}")
    difference = benchmark_step.compare_losses(*traces.values())
    print(f"- the same network: losses differ by {difference:.1e} of the first")
    return {"traces": traces}


def augment(options: argparse.Namespace) -> dict:
    """The train step with and without augmentation."""
    batch = benchmark_step.make_batch(options.batch, options.size)
    contestants = {
        name: benchmark_step.Ours(options.model, batch, options.precision, named)
        for name, named in benchmark_step.AUGMENTS.items()
    }
    for name, ours in contestants.items():
        print(f"- {name}: compiled in {ours.compile_seconds:.1f} s")
    blocks = measure({k: ours.run for k, ours in contestants.items()}, options.pairs)
    what = f"{options.model}, {options.batch}x{options.size}x{options.size}"
    return {"what": what, "images": options.batch} | summarize(blocks)


def conv(options: argparse.Namespace) -> dict:
    """The ways to compute one convolution with a large kernel."""
    from benchmark_conv import make_contestants

    ways = make_contestants(options.batch, (80, 29), options.precision)
    blocks = measure(ways, options.pairs)
    what = f"15x15 convolution, {options.batch}x80x29, {options.precision}"
    return {"what": what, "images": options.batch} | summarize(blocks)


def read_input(options: argparse.Namespace) -> dict:
    """Batches from the decoded cache and from JPEG, on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from benchmark_input import make_readers

    with tempfile.TemporaryDirectory() as folder:
        readers = make_readers(Path(folder), options.size, options.batch)
        blocks = measure(readers, options.pairs)
    what = f"batches of {options.batch}x{options.size}x{options.size}x3 uint8"
    return {"what": what, "images": options.batch} | summarize(blocks)


def start(options: argparse.Namespace) -> dict:
    """Imports, and the first step of a training run."""
    import benchmark_start

    seconds = benchmark_start.measure_start(options.config, options.overrides)
    return {"what": str(options.config), "images": 0, "seconds": seconds, "ratios": {}}


def make_rows(record: dict) -> list[tuple[str, ...]]:
    """A row of text per contestant, in the order of `COLUMNS`."""
    rows = []
    for name, seconds in record["seconds"].items():
        images = f"{record['images'] / seconds:,.0f}" if record["images"] else ""
        ratio = ""
        if name in record["ratios"]:
            median, low, high = record["ratios"][name]
            digits = 3 if record["kind"] == "augment" else 2
            median, low, high = (f"{x:.{digits}f}" for x in (median, low, high))
            ratio = f"{median}x ({low} to {high})"
        rows.append((name, f"{seconds:.4f}", images, ratio))
    return rows


def make_report(records: Sequence[dict]) -> str:
    """The Markdown page; of the same measurement with the same versions the last."""
    latest = {_identity(record): record for record in records}
    lines = ["# Benchmarks", "", "Made by `python scripts/benchmark.py report`."]
    for kind, method in METHODS.items():
        chosen = [record for record in latest.values() if record["kind"] == kind]
        lines += ["", f"## {kind}", "", method] if chosen else []
        for record in chosen:
            lines += _report_lines(record)
    return "\n".join(lines) + "\n"


def _identity(record: dict) -> str:
    machine = record["machine"]
    return json.dumps([record["command"], machine["cpu"], machine["versions"]])


def _report_lines(record: dict) -> list[str]:
    machine = record["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    facts = [
        f"`benchmark.py {record['command']}`",
        f"{machine['cpu']}, {machine['cores']} cores",
        f"{machine['others']:.0%} of them used by other programs",
        versions,
        f"XLA_FLAGS `{machine['flags']}`" if machine["flags"] else "no XLA_FLAGS",
    ]
    if "blocks" in record:
        facts.append(f"{len(next(iter(record['blocks'].values())))} blocks of each")
    if "compile_seconds" in record:
        facts.append(f"compiled in {record['compile_seconds']:.1f} s")
    table = [COLUMNS, ("---",) * len(COLUMNS), *make_rows(record)]
    cells = [f"| {' | '.join(row)} |" for row in table]
    return ["", f"### {record['what']}", "", "; ".join(facts) + ".", "", *cells]


def write_report(folder: Path) -> None:
    """benchmarks.md in a folder, from the lines of benchmarks/*.json in it.

    Raises:
      InputError: there are none.
    """
    files = sorted((folder / "benchmarks").glob("*.json"))
    if not files:
        found, fix = f"none in {folder / 'benchmarks'}", "benchmark.py step --json FILE"
        raise InputError("measurements, *.json", found, fix)
    lines = [line for file in files for line in file.read_text().splitlines()]
    records = [json.loads(line) for line in lines]
    (folder / "benchmarks.md").write_text(make_report(records), encoding="utf-8")
    print(f"- {folder / 'benchmarks.md'} with {len(records)} measurements")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="kind", required=True, metavar="COMMAND")

    def add_command(name: str, what: str, run: Callable) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=what, description=METHODS.get(name))
        command.set_defaults(run=run)
        return command

    train = add_command("step", "a training step, alone or against PyTorch", step)
    changes = add_command("augment", "what augmentation costs in a step", augment)
    taps = add_command("conv", "ways to compute a 15x15 convolution", conv)
    for command, size in ((train, 128), (changes, 256)):
        command.add_argument("--model", choices=benchmark_step.NETWORKS, default="unet")
        command.add_argument(
            "--size", type=at_least(1), default=size, help=f"pixels (default: {size})"
        )
    for command in (train, changes, taps):
        command.add_argument(
            "--batch", type=at_least(1), default=8, help="images (default: 8)"
        )
        command.add_argument(
            "--precision",
            choices=("float32", "bfloat16"),
            default="float32",
            help="of jaxseg; PyTorch runs in each that the CPU has (default: float32)",
        )
    train.add_argument("--against", choices=("torch",), help="the other side, if any")
    train.add_argument(
        "--torch-python",
        default=sys.executable,
        metavar="PATH",
        help="a Python that has torch (default: this one)",
    )
    train.add_argument(
        "--trace",
        type=at_least(1),
        default=5,
        help="losses to compare first (default: 5)",
    )
    images = add_command("input", "images per second on one core", read_input)
    images.add_argument(
        "--size", type=at_least(1), default=256, help="pixels (default: 256)"
    )
    images.add_argument(
        "--batch", type=at_least(1), default=64, help="images (default: 64)"
    )
    run = add_command("start", "imports and the time to the first step", start)
    command_line.add_config_argument(run)
    add_command("report", "docs/benchmarks.md from docs/benchmarks/*.json", None)
    for command in (train, changes, taps, images):
        command.add_argument(
            "--pairs", type=at_least(1), default=9, help="blocks of each (default: 9)"
        )
    for command in (train, changes, taps, images, run):
        command.add_argument(
            "--json", type=Path, metavar="FILE", help="append the measurement to it"
        )
    return parser


def main(arguments: list[str]) -> None:
    plain, overrides = command_line.split_overrides(arguments)
    parser = make_parser()
    options = parser.parse_args(plain)
    if overrides and options.kind != "start":
        parser.error("--config.… belongs to 'start' only")
    if options.kind == "report":
        write_report(DOCS)
        return
    options.overrides = overrides
    started, others = time.perf_counter(), seconds_of_others()
    result = options.run(options)
    others = (seconds_of_others() - others) / (time.perf_counter() - started)
    machine = describe_machine(result.pop("versions", {}), others / os.cpu_count())
    command = " ".join([options.kind, *settings(options), *overrides])
    record = {"kind": options.kind, "command": command, "machine": machine} | result
    table = Table(*COLUMNS, title=record["what"])
    for row in make_rows(record):
        table.add_row(*row)
    Console().print(table)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        with options.json.open("a", encoding="utf-8") as file:
            print(json.dumps(record), file=file)


def settings(options: argparse.Namespace) -> list[str]:
    """The arguments that matter to the result, without paths of this machine."""
    names = ("model", "batch", "size", "precision", "against", "config")
    given = {name: value for name, value in vars(options).items() if name in names}
    return [f"--{name} {value}" for name, value in given.items() if value is not None]


if __name__ == "__main__":
    command_line.main(main)
