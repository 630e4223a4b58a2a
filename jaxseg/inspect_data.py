"""What can be done with the data of a config before it is trained."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from jaxseg import class_weights, paths
from jaxseg.config import Run
from jaxseg.data import audit, stock
from jaxseg.data.dataset import load_dataset
from jaxseg.data.splits import PARTS, UNUSED
from jaxseg.errors import InputError
from jaxseg.experiment import Experiment, build_experiment
from jaxseg.plan import make_plan
from jaxseg.progress import console
from jaxseg.report import check_page, contact_sheet

NUM_SAMPLES = 24
"""Images on the page of a data check."""


def check_data(
    run_config: Run, folder: Path, *, title: str, num_augmented: int
) -> None:
    """Tells what the data are like, on the terminal and as files in `folder`.

    Raises:
      InputError: whatever stands in the way of a training; it is in the files as well.
    """
    found = check_page.Findings(title)
    try:
        built = build_experiment(run_config)
    except InputError as error:
        _write_findings(dataclasses.replace(found, problem=error), folder)
        raise
    audited = audit.audit(built.dataset, built.record_split, run_config.data)
    found = dataclasses.replace(
        found,
        notes=(*notes_of(built), *audited.notes),
        tables=audited.tables,
        pictures=_draw_samples(built, num_augmented),
    )
    check_page.print_findings(found, console)
    _write_findings(found, folder)


def prepare_data(run_config: Run, unused_days: float | None) -> None:
    """Checks, copies and decodes what a training reads; says what the cache holds.

    Args:
      unused_days: other sets that nothing has opened for so long are deleted.

    Raises:
      InputError: wrong data or config.
    """
    plan = make_plan(run_config)
    dataset = load_dataset(plan.listing, run_config.data, plan.rule)
    for note in dataset.notes:
        console.print(f"- {note}", markup=False)
    dataset.source.wait()
    for kept in stock.list_kept(paths.cache_folder(run_config.data.cache_dir)):
        is_old = unused_days is not None and kept.days >= unused_days
        if is_old:
            stock.remove(kept)
        console.print(
            f"- {'deleted: ' * is_old}{kept.path}, {kept.num_bytes / 1e9:.2f} GB, last "
            f"opened {kept.days:.0f} days ago",
            markup=False,
        )


def notes_of(built: Experiment) -> Iterator[str]:
    """What the data are like and how they are split."""
    yield from built.dataset.notes
    sizes = {p: len(built.record_split.indices(p)) for p in (*PARTS, UNUSED)}
    listed = ", ".join(f"{n} {p}" for p, n in sizes.items() if n or p != UNUSED)
    yield f"{len(built.dataset.records)} images: {listed}"
    yield from built.split.notes
    yield from filter(None, [class_weights.describe(built.loss, built.task.classes)])


def _draw_samples(built: Experiment, num_augmented: int) -> dict[str, Image.Image]:
    pictures = {"samples": contact_sheet.draw_samples(built, NUM_SAMPLES)}
    if built.run.data.augment:
        sheet = contact_sheet.draw_augmented(built, num_augmented)
        pictures["augmented samples"] = sheet
    return pictures


def _write_findings(found: check_page.Findings, folder: Path) -> None:
    try:
        check_page.write_findings(found, folder)
    except OSError as error:
        raise InputError(
            "a folder for the results that can be written",
            f"{folder}: {error.strerror}",
            "--out DIR in another place",
        ) from None
    console.print(f"- {folder / check_page.PAGE} is written", markup=False)
