"""A whole run: build, train, choose thresholds, judge on test, save the model."""

import contextlib
import csv
import dataclasses
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxseg import (
    backend,
    config,
    export,
    files,
    hosts,
    loop,
    metrics,
    model_thresholds,
    parallel,
    paths,
    signals,
    workdir,
    writer,
)
from jaxseg.config import Run
from jaxseg.data.splits import write_split
from jaxseg.errors import InputError
from jaxseg.experiment import Experiment, build_experiment
from jaxseg.inspect_data import notes_of
from jaxseg.loop import Interrupted
from jaxseg.progress import console
from jaxseg.report import (
    curves,
    judge,
    previews,
    run_page,
)
from jaxseg.schema import flatten
from jaxseg.tasks import Thresholds
from jaxseg.vocabulary import SCHEMAS

PER_HOST = {"data.dir", "data.cache_dir", "data.workers"}
"""Keys that may differ from host to host."""

__all__ = ["SCHEMAS", "Interrupted", "evaluate", "run"]


def run(
    run_config: Run,
    folder: Path,
    *,
    restart: bool = False,
    like: Path | None = None,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Trains in a run folder, new or to go on in, and judges the best epoch once.

    Args:
      like: another run folder, whose data and split a new run shall have.
      origin: `config`, the file that it came from, and `overrides`, what the command
        line changed; for the report.

    Returns:
      the metrics of the test part (of the validation part where there is no test part).

    Raises:
      InputError: wrong data or config, or a folder of another run.
      Interrupted: stopped by a signal; the same call, without `restart`, goes on.
    """
    cache_note = _enable_compilation_cache(run_config)
    fix = f"free some, then {signals.same_command()} goes on"
    hosts.agree_on(partial(_facts_of, run_config))
    with contextlib.ExitStack() as held, files.explain_full_disk(folder, fix):

        @files.explain_full_disk(folder, fix)
        def claim_and_open() -> Experiment:
            held.enter_context(workdir.claim(folder))
            return _open(run_config, folder, restart, like, origin)

        # Inside, so that a folder that process 0 cannot have ends the others too.
        built = hosts.in_turn(claim_and_open)
        flags = os.environ.get("XLA_FLAGS") or "none"
        for note in (
            f"{workdir.device()}, {built.precision}, XLA_FLAGS: {flags}",
            cache_note,
        ):
            console.print(f"- {note}", markup=False)
        loop.train(built, folder)
        summary = finish(built, folder)
        if hosts.is_first():
            console.print(f"- {run_page.write_report(folder)} is written", markup=False)
        return summary


def _facts_of(run_config: Run) -> dict[str, Any]:
    """What must be the same in every process that trains together."""
    tree = flatten(config.to_dict(run_config))
    shared = {f"config.{k}": str(v) for k, v in tree.items() if k not in PER_HOST}
    return {**shared, "code": hosts.code_hash(), **workdir.environment()}


def evaluate(
    run_config: Run,
    folder: Path,
    part: str,
    epoch: Literal["best", "last"] = "best",
    chosen: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Judges an epoch of a run folder on a part; writes `folder`/`part` anew.

    The best epoch of a finished run is judged at the thresholds of its model. The last
    one, of a stopped run perhaps unfinished, has thresholds and a folder of its own,
    `folder`/`part`_last; the model of the run stays the best.

    Args:
      chosen: 'image' and 'mask' thresholds that the model shall have from now on.

    Raises:
      InputError: the part is empty, or data and config are not those of the run; the
        model decides nothing at such a threshold.
    """
    _enable_compilation_cache(run_config)
    fix = "free some, then the same command once more"
    with workdir.claim(folder), files.explain_full_disk(folder, fix):
        built = build_experiment(run_config, folder / "split.csv")
        workdir.refuse_other_data(folder, built.dataset.content_hash)
        if not len(built.split.indices(part)):
            raise InputError(
                f"images in the {part} part", "none", "--split with another part"
            )
        variables, progress = loop.restore(built, folder, epoch)
        stored = None
        if epoch == "best":
            stored = model_thresholds.read(folder, progress.best_epoch)
        if chosen:
            stored = model_thresholds.with_chosen(stored, folder, part, chosen)
        if epoch == "best":
            monitor = run_config.train.monitor
            console.print(f"- best val/{monitor}: {progress.best_text()}")
        else:
            console.print(f"- last epoch: {len(progress.history)}")
        validation = judge.validate(built, variables, stored)
        out = folder / (part if epoch == "best" else f"{part}_last")
        summary = judge.judge(built, variables, validation, part, out)
        if chosen:
            model_thresholds.write(folder / "model", stored, {part: summary})
        if workdir.is_finished(folder) and out.name == workdir.judged_part(folder):
            run_page.write_report(folder)
        return summary


def finish(built: Experiment, folder: Path) -> dict[str, float]:
    """Restores the best epoch and writes test/ and model/: process 0 does, alone.

    Returns:
      the metrics; {} in other processes.
    """
    variables, progress = loop.restore(built, folder, "best")
    variables = parallel.whole_on_host(variables)
    with hosts.first_alone() as first:
        if not first:
            return {}
        return _write_results(built.on_this_host(), folder, variables, progress)


def _write_results(
    built: Experiment, folder: Path, variables: Any, progress: loop.Progress
) -> dict[str, float]:
    monitor = built.run.train.monitor
    console.print(f"- best val/{monitor}: {progress.best_text()}")
    stored = model_thresholds.read(folder, progress.best_epoch)
    validation = judge.validate(built, variables, stored)
    part = "test" if len(built.split.indices("test")) else "val"
    summary = judge.judge(built, variables, validation, part, folder / part)
    mode = metrics.mode_of(monitor)
    history = writer.read_history(folder)
    curves.save_losses(
        folder / part / "losses.png", history, monitor=monitor, mode=mode
    )
    previews.summarize(
        folder / "previews",
        history,
        best_epoch=progress.best_epoch,
        monitor=monitor,
        mode=mode,
    )
    description = {
        **describe(built, validation.thresholds, {part: summary}),
        "best_epoch": progress.best_epoch,
        "epochs": len(history),
        "asked": workdir.length_of(built.run.train),
    }
    export.save_model(folder / "model", variables, description)
    console.print(f"- {folder / part} and {folder / 'model'} are written", markup=False)
    return summary


def describe(
    built: Experiment, thresholds: Thresholds, summaries: dict[str, Any]
) -> dict[str, Any]:
    """model.json: all that is needed to use the weights, and how good they are."""
    data = built.run.data
    tree = config.to_dict(built.run)
    network = built.run.model.network
    return {
        "model": {"name": network.name, **network.kwargs},
        "task": tree["task"],
        "classes": built.task.classes,
        "parameters": built.num_parameters,
        "precision": built.precision,
        "preprocessing": {
            "image_size": data.image_size,
            "source_size": np.median([r.size for r in built.dataset.records], axis=0),
            "channels": data.channels,
            "resize": "none" if data.crop else "bilinear, antialiased",
            "scale": 255,
            "mean": data.mean,
            "std": data.std,
            "mm_per_pixel": data.mm_per_pixel,
        },
        "thresholds": {
            kind: dataclasses.asdict(chosen) for kind, chosen in thresholds.items()
        },
        "metrics": summaries,
        "data_hash": built.dataset.content_hash,
        "environment": workdir.environment(),
    }


def _enable_compilation_cache(run_config: Run) -> str:
    folder = paths.cache_folder(run_config.data.cache_dir)
    return backend.enable_compilation_cache(folder)


def _open(
    run_config: Run,
    folder: Path,
    restart: bool,
    like: Path | None,
    origin: Mapping[str, Any] | None,
) -> Experiment:
    split_file = folder / "split.csv"
    if not hosts.is_first():
        return _follow(run_config, folder, split_file)
    keep = split_file.is_file() and not restart
    if like:
        workdir.read_record(like, "--like")
    given = split_file if keep else like and like / "split.csv"
    built = build_experiment(run_config, given)
    if like:
        workdir.refuse_other_data(like, built.dataset.content_hash, "--like")
    facts = {
        "data_hash": built.dataset.content_hash,
        "precision": built.precision,
        "steps_per_epoch": [p.loader.steps_per_epoch for p in built.phases],
        "parameters": built.num_parameters,
        "loss": built.loss,
        "origin": origin,
        "notes": list(notes_of(built)),
    }
    # Wrong weights are refused before the folder is made.
    loaded = None if keep else built.load_start()
    workdir.open_workdir(folder, run_config, facts, restart=restart)
    if not split_file.is_file():
        write_split(split_file, built.dataset.records, built.record_split)
    _write_skipped(built, folder)
    for note in facts["notes"]:
        console.print(f"- {note}", markup=False)
    if loaded is not None:
        model, count = run_config.model, len(jax.tree.leaves(loaded))
        source = model.init or model.encoder_init or model.encoder_weights
        console.print(f"- starts from {count} arrays of {source}", markup=False)
    if not hosts.is_alone():
        built.dataset.source.wait()  # then the others find the images decoded
    return built


def _follow(run_config: Run, folder: Path, split_file: Path) -> Experiment:
    """The same in another process, after process 0 has made the folder ready."""
    if not split_file.is_file():
        raise InputError(
            "a --workdir on a file system that all processes share",
            f"process 0 has written {split_file}, and here it is not",
            "--workdir with such a folder",
        )
    workdir.refuse_other_config(folder, run_config)
    built = build_experiment(run_config, split_file)
    workdir.refuse_other_data(folder, built.dataset.content_hash)
    built.load_start()
    built.dataset.source.wait()
    return built


def _write_skipped(built: Experiment, folder: Path) -> None:
    if built.dataset.skipped:
        with files.atomic_file(folder / "skipped.csv", newline="") as file:
            csv.writer(file).writerows([("id", "reason"), *built.dataset.skipped])
