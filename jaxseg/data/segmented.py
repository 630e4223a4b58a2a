"""Which defects are learned from, and of which the mask: mixed supervision.

The other training images with a defect count by their label alone. Clean images are
known pixel by pixel, and validation and test see all masks.

Source: https://arxiv.org/abs/2104.06064.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxseg.config import Data
from jaxseg.data.check import CheckedRecord
from jaxseg.datasets.listing import stem
from jaxseg.errors import InputError, shorten

PICKLES = (".pyb", ".pkl", ".pickle")
CONVERT = (
    'if you trust it: python3 -c "import pathlib, pickle; '
    "print(*[n for n, s in pickle.loads(pathlib.Path('{}').read_bytes())[0] if s], "
    "sep='\\n')\" > segmented.txt  (with [0][FOLD] for a set with folds, whose images "
    "have to be the training part then: --config.data.split=FILE.csv), then "
    "--config.data.segmented_file=segmented.txt"
)


class Segmented(NamedTuple):
    """The training images with a defect, by what is learned from them.

    Attributes:
      hidden: [number of records] bool, masks that are not in use; None where all are.
      count: masks of training defects in use.
      notes: sentences on it, where some are not.
    """

    hidden: np.ndarray | None
    count: int
    notes: tuple[str, ...] = ()


def choose_masks(
    records: Sequence[CheckedRecord], train: np.ndarray, data: Data
) -> Segmented:
    """The masks that `data.num_segmented` or `data.segmented_file` leave in use.

    Args:
      train: positions of the training part in `records`.

    Raises:
      InputError: more masks are asked for than there are; the file cannot be read or
        names images that the set does not have.
    """
    positives = np.array(
        [i for i in train if records[i].class_pixels and records[i].label > 0], np.int64
    )
    elsewhere = 0
    if data.segmented_file:
        wanted = _read_names(Path(data.segmented_file).expanduser(), records)
        shown = [i for i in positives if _names_of(records[i]) & wanted]
        others = np.setdiff1d(np.arange(len(records)), train)
        elsewhere = sum(bool(_names_of(records[i]) & wanted) for i in others)
    elif data.num_segmented is not None:
        what = "a defect and a mask"
        _refuse_too_many("num_segmented", data.num_segmented, len(positives), what)
        order = np.random.default_rng(data.split_seed).permutation(positives)
        shown = order[: data.num_segmented]
    else:
        return Segmented(None, len(positives))
    if not len(positives):
        return Segmented(None, 0)
    hidden = np.zeros(len(records), bool)
    hidden[positives] = True
    hidden[shown] = False
    notes = [
        f"{len(shown)} of {len(positives)} training images with a defect are learned "
        "from their mask, the others from their label"
    ]
    if elsewhere:
        notes.append(
            f"{elsewhere} of the images named in data.segmented_file are not in the "
            "training part: nothing is learned from them"
        )
    return Segmented(hidden, len(shown), tuple(notes))


def surplus_positives(
    records: Sequence[CheckedRecord], parts: Sequence[str], data: Data
) -> np.ndarray:
    """Positions of the training images with a defect beyond `data.num_positives`.

    Raises:
      InputError: there are fewer than those.
    """
    positives = np.array(
        [i for i, p in enumerate(parts) if p == "train" and records[i].label > 0],
        np.int64,
    )
    if data.num_positives is None:
        return positives[:0]
    _refuse_too_many("num_positives", data.num_positives, len(positives), "a defect")
    order = np.random.default_rng(data.split_seed).permutation(positives)
    return order[data.num_positives :]


def _names_of(checked: CheckedRecord) -> set[str]:
    """What a list may call an image: its id, the end of it, or its group."""
    record = checked.record
    return {record.id, record.id.rpartition("/")[2], record.group}


def _refuse_too_many(key: str, wanted: int, count: int, what: str) -> None:
    if wanted > count:
        raise InputError(
            f"at most {count} in config.data.{key}, the training images with {what}",
            f"{wanted}",
            f"--config.data.{key}={count}",
        )


def _read_names(path: Path, records: Sequence[CheckedRecord]) -> set[str]:
    """The names of a list, without the extensions of image files."""
    expected = "a text file with the id of one image per line (data.segmented_file)"
    fix = "--config.data.segmented_file=FILE.txt with ids as in split.csv"
    if not path.is_file():
        raise InputError(expected, f"no file {path}", fix)
    content = path.read_bytes()
    if path.suffix in PICKLES or content.startswith(b"\x80"):
        found = f"{path}, a pickle, which is never opened here"
        raise InputError(expected, found, CONVERT.format(path))
    try:
        lines = content.decode("utf-8-sig").splitlines()
        rows = [row for row in csv.reader(lines) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(expected, f"{path}: {error}", fix) from None
    wide = [",".join(row) for row in rows if len(row) > 1]
    if wide or not rows:
        found = f"{path} with the lines {shorten(wide)}" if wide else f"{path} is empty"
        raise InputError(expected, found, fix)
    names = {stem(name.strip()) for (name,) in rows} - {"id"}
    unknown = sorted(names - set().union(*map(_names_of, records)))
    if unknown:
        raise InputError(
            f"names of images of this set in {path}",
            f"{len(unknown)} of {len(names)} are none: {shorten(unknown)}",
            f"use ids as in split.csv, e.g. {records[0].record.id}",
        )
    return names
