"""The command line of `benchmark.py`."""

import argparse
import sys
from pathlib import Path

import command_line
from benchmark_report import METHODS

COMMANDS = {
    "step": "a training step, alone or against PyTorch",
    "suite": "steps of many networks, against PyTorch",
    "augment": "what augmentation costs in a step",
    "plan": "memory of a step, and the largest batches",
    "scale": "many devices, predicted",
    "forecast": "a whole training, mostly predicted",
    "ops": "operations against XLA's plain forms",
    "input": "images per second on one core",
    "start": "imports and the time to the first step",
    "report": "docs/benchmarks.md from docs/benchmarks/*.json",
}
WITH_CONFIG = ("step", "augment", "plan", "scale", "forecast", "start")
WITH_PAIRS = {"step": 9, "suite": 3, "augment": 9, "ops": 9, "input": 9}


def make_parser(description: str) -> argparse.ArgumentParser:
    """Options of all commands; `kind` is the command."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    group = parser.add_subparsers(dest="kind", required=True, metavar="COMMAND")
    commands = {
        name: group.add_parser(name, help=what, description=METHODS.get(name))
        for name, what in COMMANDS.items()
    }
    for name in WITH_CONFIG:
        command_line.add_config_argument(commands[name])
    _add_pytorch(commands["step"], commands["suite"])
    _add_machine(commands["plan"])
    add_number(commands["forecast"], "--images", 56_092, "of the whole set")
    add_number(commands["ops"], "--batch", 8, "images")
    commands["ops"].add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32"
    )
    add_number(commands["input"], "--size", 256, "pixels")
    add_number(commands["input"], "--batch", 64, "images")
    for name, pairs in WITH_PAIRS.items():
        add_number(commands[name], "--pairs", pairs, "blocks of each")
    for name in COMMANDS.keys() - {"report"}:
        commands[name].add_argument(
            "--json", type=Path, metavar="FILE", help="append the measurement to it"
        )
    return parser


def add_number(command, name: str, default: int, what: str) -> None:
    text = f"{what} (default: {default})"
    command.add_argument(name, type=command_line.positive, default=default, help=text)


def _add_pytorch(step, suite) -> None:
    step.add_argument("--against", choices=("torch",), help="the other side, if any")
    step.add_argument(
        "--batches", choices=("files",), help="of the config, instead of noise"
    )
    for command in (step, suite):
        command.add_argument(
            "--torch-python",
            default=sys.executable,
            metavar="PATH",
            help="a Python that has torch (default: this one)",
        )
        command.add_argument(
            "--compiled", action="store_true", help="torch.compile too; takes minutes"
        )
    add_number(step, "--trace", 5, "losses to compare first")
    add_number(suite, "--minutes", 9, "after which it ends")
    add_number(suite, "--first", 1, "number of the case to begin with")


def _add_machine(plan) -> None:
    plan.add_argument(
        "--memory", type=float, required=True, metavar="GB", help="of a device"
    )
    plan.add_argument(
        "--device", default="", metavar="TPU", help="not at hand, e.g. v5e:2x2"
    )
    plan.add_argument(
        "--measure", action="store_true", help="also run a step as it is, and measure"
    )
