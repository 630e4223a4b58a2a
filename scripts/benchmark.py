"""Measures jaxseg: a training step (also against PyTorch), the input, a run's start.

    python scripts/benchmark.py step --config configs/speedlines.py --against torch
    python scripts/benchmark.py suite --torch-python PATH --json FILE
    python scripts/benchmark.py augment --config configs/folder_segmentation.py
    python scripts/benchmark.py plan --config configs/speedlines.py --memory 24
    python scripts/benchmark.py scale --config configs/speedlines.py
    python scripts/benchmark.py forecast --config configs/sdnet.py --images 56092
    python scripts/benchmark.py ops
    python scripts/benchmark.py input
    python scripts/benchmark.py start --config configs/quickstart.py

The batch, the size and the precision are the config's, or overridden as everywhere:
--config.train.batch_size=8. Contestants take turns in blocks, A B, B A, A B ..., so
that a machine which slows down slows all of them, and the first step of a block is not
counted; a ratio is the median over the pairs of blocks of one turn. With --json FILE
the measurement is appended as one line; `report` makes docs/benchmarks.md from
docs/benchmarks/*.json. Exit codes: 0 done; 2 wrong input.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import benchmark_step
import benchmark_twin
import command_line
import jax
import numpy as np
from benchmark_machine import describe_machine, seconds_of_others
from benchmark_options import make_parser
from benchmark_pairs import measure, summarize
from benchmark_report import facts_of, make_table, write_report
from rich.console import Console
from rich.table import Table

from jaxseg import backend, memory
from jaxseg.config import Run
from jaxseg.errors import InputError
from jaxseg.vocabulary import SCHEMAS

DOCS = Path(__file__).parents[1] / "docs"


def step(options: argparse.Namespace) -> dict:
    """The train step, alone or against the twin, on one batch or on files."""
    if options.against:  # jax would take most of a GPU's memory for itself
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    run = benchmark_twin.without_chance(read_config(options))
    program = benchmark_step.make_program(run)
    batch = benchmark_step.make_batch(program)
    operations = benchmark_step.count_operations(run)
    files = None
    if options.batches:
        import benchmark_files  # it needs grain

        files = benchmark_files.open_files(run)
    with contextlib.ExitStack() as stack:
        rungs, extra = {}, {"versions": {}}
        if options.against:
            twin, extra = _open_twin(options, run, batch, stack, files)
            rungs = {f"PyTorch {rung}": partial(twin.run, rung) for rung in twin.rungs}
        ours = benchmark_step.Ours(program, batch)
        own = _our_contestants(run, ours, program, batch)
        if files:
            own = {"jaxseg, from files": files.contestant(ours)} | own
        blocks = measure(own | rungs, options.pairs)
    need = memory.need_of(ours.compiled)
    facts = {
        "parameters": ours.num_parameters,
        "compile_seconds": ours.compile_seconds,
        "operations": operations,
        "gigabytes": need and need.total / 1e9,
    }
    title = _title(options, run, f"{ours.num_parameters:,} parameters")
    result = {"what": title, "images": run.train.batch_size}
    return result | summarize(blocks) | facts | extra


def _our_contestants(run: Run, ours, program, batch) -> dict[str, Callable]:
    """The step as the config has it; of several steps a call, one a call as well."""
    precision = backend.resolve_precision(run.train.precision)
    if jax.default_backend() == "gpu" and precision == "float32":
        precision = "TF32"  # XLA's default for products of float32
    if ours.count == 1:
        return {f"jaxseg {precision}": ours.run}
    single = benchmark_step.Ours(program._replace(count=1), batch)
    several = f"jaxseg {precision}, {ours.count} steps a call"
    return {several: ours.run, f"jaxseg {precision}": single.run}


def _open_twin(options, run: Run, batch, stack: contextlib.ExitStack, files):
    """The child process, and what is to be known of it: it trains the same network."""
    name = benchmark_twin.twin_of(run)
    plain = dataclasses.replace(run.train, precision="float32")
    program = benchmark_step.make_program(dataclasses.replace(run, train=plain), {})
    with jax.default_matmul_precision("highest"):  # float32 on a GPU would be TF32
        ours = benchmark_step.Ours(program, batch)
    weights = benchmark_twin.port_weights(name, ours.weights())
    batch = batch | {"shares": np.float32(program.shares)}
    listing = files and files.listing_for(batch)
    opened = benchmark_twin.open_twin(
        options.torch_python, name, weights, batch, options.compiled, listing
    )
    twin = stack.enter_context(opened)
    traces = {"jaxseg": ours.trace(options.trace), "PyTorch": twin.trace(options.trace)}
    for side, losses in traces.items():
        print(f"- losses of {side:7} {' '.join(f'{loss:.6f}' for loss in losses)}")
    difference = benchmark_step.compare_losses(*traces.values())
    print(f"- the same network: losses differ by {difference:.1e} of the first")
    twin.leave_out_failing()
    facts = {"versions": twin.versions, "left_out": twin.left_out}
    return twin, {"traces": traces} | facts


def read_config(options: argparse.Namespace) -> Run:
    """The config with its overrides; no data are touched."""
    return command_line.load_config(options.config, options.overrides, SCHEMAS)


def _title(options: argparse.Namespace, run: Run, *facts: str) -> str:
    network = run.model.network
    encoder = network.kwargs.get("encoder")
    name = f"{network.name} on {encoder}" if encoder else network.name
    size = "x".join(map(str, (run.train.batch_size, *run.data.image_size)))
    return ", ".join((f"{options.config.stem}: {name}", *facts, size))


def suite(options: argparse.Namespace) -> None:
    """The steps of many networks against PyTorch, each in a process of its own.

    Raises:
      InputError: some of them failed.
    """
    import benchmark_suite

    python = os.path.abspath(options.torch_python)  # a link, which must stay one
    words = ["--torch-python", python, "--pairs", str(options.pairs)]
    words += ["--compiled"] * options.compiled
    words += ["--json", str(options.json.resolve())] if options.json else []
    failed = benchmark_suite.run_suite(options.first, words, 60 * options.minutes)
    if failed:
        found, fix = f"{failed} did not end well", "see what they said above"
        raise InputError("steps that can be timed", found, fix)


def augment(options: argparse.Namespace) -> dict:
    """The train step with and without augmentation."""
    run = read_config(options)
    height, width = run.data.image_size
    if height != width or run.task.name == "segdec":
        raise InputError(
            "square images, for quarter turns, and a task whose targets turn with them",
            f"image_size={height, width}, task.name={run.task.name}",
            "--config configs/folder_segmentation.py",
        )
    contestants = {}
    for name, changes in benchmark_step.AUGMENTS.items():
        program = benchmark_step.make_program(run, changes)
        ours = benchmark_step.Ours(program, benchmark_step.make_batch(program))
        print(f"- {name}: compiled in {ours.compile_seconds:.1f} s")
        contestants[name] = ours.run
    blocks = measure(contestants, options.pairs)
    result = {"what": _title(options, run), "images": run.train.batch_size}
    return result | summarize(blocks)


def plan(options: argparse.Namespace) -> dict:
    """What a step needs of memory, and the largest batches."""
    import benchmark_plan

    if options.device and options.measure:
        found = f"--device {options.device}"
        raise InputError("--measure alone: it runs a step here", found, "one of both")
    run = read_config(options)
    mesh = benchmark_plan.open_mesh(options.device, run.train.batch_size)
    if options.device and run.train.precision == "auto":
        faster = dataclasses.replace(run.train, precision="bfloat16")
        run = dataclasses.replace(run, train=faster)
    facts = {"memory": options.memory, "compiled_for": options.device}
    if options.measure:  # first: a GPU knows the peak of the whole process only
        predicted, measured = benchmark_plan.measure_peak(run)
        facts |= {"predicted": predicted, "measured": measured}
    rows = benchmark_plan.plan(run, mesh, int(options.memory * 1e9))
    return {"what": _title(options, run), "levers": rows} | facts


def scale(options: argparse.Namespace) -> dict:
    """What many devices would make of a step."""
    import benchmark_scale

    run = read_config(options)
    faster = dataclasses.replace(run.train, precision="bfloat16")
    run = dataclasses.replace(run, train=faster)
    count = benchmark_scale.count_parameters(run)
    title = _title(options, run, f"{count:,} parameters")
    return {"what": title, "devices": benchmark_scale.predict(run)}


def forecast(options: argparse.Namespace) -> dict:
    """A training from files to the final metric on one H200, mostly predicted."""
    import benchmark_forecast

    run = read_config(options)
    faster = dataclasses.replace(run.train, precision="bfloat16")
    run = dataclasses.replace(run, train=faster)
    with tempfile.TemporaryDirectory() as folder:
        parts = benchmark_forecast.forecast(run, options.images, Path(folder))
    return {"what": _title(options, run, f"{options.images:,} images"), "parts": parts}


def operations(options: argparse.Namespace) -> dict:
    """Every operation of jaxseg against XLA's plain form."""
    import benchmark_ops

    rows = {}
    for name, case in benchmark_ops.make_cases().items():
        forms = benchmark_ops.make_contestants(case, options.batch, options.precision)
        rows[name] = summarize(measure(forms, options.pairs))
        print(f"- {name}: {rows[name]['ratios']['plain form'][0]:.2f}x")
    what = f"{options.batch} images, {options.precision}"
    return {"what": what, "rows": rows}


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


COMMANDS = {  # what each measures; suite and report write no record of their own
    "step": step,
    "augment": augment,
    "plan": plan,
    "scale": scale,
    "forecast": forecast,
    "ops": operations,
    "input": read_input,
    "start": start,
}


def main(arguments: list[str]) -> None:
    plain, overrides = command_line.split_overrides(arguments)
    parser = make_parser(__doc__)
    options = parser.parse_args(plain)
    if overrides and "config" not in options:
        parser.error(f"--config.… does not belong to {options.kind!r}")
    if options.kind == "report":
        write_report(DOCS)
        return
    if options.kind == "suite":  # every step of it writes a measurement of its own
        suite(options)
        return
    options.overrides = overrides
    started, others = time.perf_counter(), seconds_of_others()
    result = COMMANDS[options.kind](options)
    others = (seconds_of_others() - others) / (time.perf_counter() - started)
    machine = describe_machine(result.pop("versions", {}), others / os.cpu_count())
    command = " ".join([options.kind, *settings(options)])
    record = {"kind": options.kind, "command": command, "machine": machine} | result
    columns, *rows = make_table(record)
    table = Table(*columns, title=record["what"])
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    for fact in facts_of(record):
        print(f"- {fact}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        with options.json.open("a", encoding="utf-8") as file:
            print(json.dumps(record), file=file)


def settings(options: argparse.Namespace) -> list[str]:
    """The arguments that matter to the result, without paths of this machine."""
    names = ("config", "against", "batches", "memory", "device", "images")
    names += ("batch", "size", "precision", "measure", "compiled")
    given = [(name, getattr(options, name, None)) for name in names]
    paths = ("data.dir=", "data.cache_dir=")
    changes = [text for text in options.overrides if not text.startswith(paths)]
    words = [
        f"--{name}" if value is True else f"--{name} {value}"
        for name, value in given
        if value
    ]
    return words + changes


if __name__ == "__main__":
    backend.use_huge_pages()
    command_line.main(main)
