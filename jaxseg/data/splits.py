"""Train, validation and test: grouped, stratified, written once, then only read.

A group (photo, tile, structure) never falls apart: its images share texture, light and
often the same crack, so a random split rewards memory. Files of identical content count
as one group whatever they are called. Where a published test set is kept, validation
never comes out of it.
"""

import csv
import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxseg import files
from jaxseg.config import Data
from jaxseg.data.check import CheckedRecord
from jaxseg.data.dealing import assign_groups, components_of, strata_of
from jaxseg.data.segmented import surplus_positives
from jaxseg.errors import InputError, shorten

PARTS = ("train", "val", "test")
UNUSED = "unused"
MODES = ("grouped", "published", "random", "kfold")
COLUMNS = ("id", "label", "group", "split", "sha256")


@dataclasses.dataclass(frozen=True)
class Split:
    """Which part every record belongs to.

    Attributes:
      parts: 'train', 'val', 'test' or 'unused' per record, in the order of the records.
      notes: sentences to print: leaks that the user accepted, and the like.
    """

    parts: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def indices(self, part: str) -> np.ndarray:
        """Positions of the part's records, int64, ascending."""
        return np.flatnonzero(np.asarray(self.parts) == part)


def make_split(records: Sequence[CheckedRecord], data: Data) -> Split:
    """Splits as `data.split` says.

    'grouped' keeps the dataset's own split where it has one and otherwise deals whole
    groups, to every part its share of each label, source, class of pixels and amount
    of foreground; 'published' keeps the dataset's own split though it leaks; 'random'
    deals single images (comparable with much of the literature, and leaking); 'kfold'
    tests on fold `data.fold` of `data.num_folds` and takes `data.val_fraction` of the
    other folds for validation; anything else is the path of a split.csv. Of the
    training images with a defect `data.num_positives` stay in use: with one
    `data.split_seed`, the fewer are among the more.

    Raises:
      InputError: a group or a file content in two parts, a part without a sample of
        some class, fewer positives than asked for, or an unreadable split.csv.
    """
    if data.split not in MODES:
        parts, notes = read_split(Path(data.split), records), []
        _refuse_leaks(records, parts, f"{data.split}: give each group one split")
    elif data.split == "random":
        single = components_of(records, by_group=False)
        parts = _deal(records, single, _fractions(data), data.split_seed)
        notes = _leak_notes(records, parts)
    elif data.split == "kfold":
        parts, notes = _fold(records, data), []
    else:
        parts, notes = _keep_or_deal(records, data)
    _refuse_missing_classes(records, parts)
    for surplus in surplus_positives(records, parts, data):
        parts[surplus] = UNUSED
    return Split(tuple(parts), (*notes, *_lookalike_notes(records, parts)))


def write_split(path: Path, records: Sequence[CheckedRecord], split: Split) -> None:
    """Writes split.csv; a crash leaves the old file or the new one, no half one."""
    with files.atomic_file(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for checked, part in zip(records, split.parts, strict=True):
            record = checked.record
            writer.writerow(
                (record.id, checked.label, record.group, part, checked.image_sha256)
            )


def read_split(path: Path, records: Sequence[CheckedRecord]) -> list[str]:
    """The parts of the records, as a split.csv has them.

    Raises:
      InputError: the file is missing or malformed, or names other images than the
        records.
    """
    fix = f"--config.data.split=grouped, or a csv with the columns {','.join(COLUMNS)}"
    if not path.is_file():
        raise InputError(f"one of {', '.join(MODES)} or a csv file", str(path), fix)
    try:
        with path.open(
            newline="", encoding="utf-8-sig", errors="surrogateescape"
        ) as file:
            rows = list(csv.DictReader(file, restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError("a csv file", f"{path}: {error}", fix) from None
    if not rows or not {"id", "split"} <= rows[0].keys():
        raise InputError("the columns id and split", f"{path} without them", fix)
    parts = {row["id"]: row["split"] for row in rows}
    if len(parts) < len(rows):
        counts = Counter(row["id"] for row in rows)
        twice = [name for name, count in counts.items() if count > 1]
        raise InputError("one row per image", f"{shorten(twice)} twice in {path}", fix)
    allowed = (*PARTS, UNUSED)
    wrong = sorted({part for part in parts.values() if part not in allowed})
    if wrong:
        raise InputError(
            f"splits {', '.join(allowed)}", f"{shorten(wrong)} in {path}", fix
        )
    ids = {checked.record.id for checked in records}
    if ids != parts.keys():
        raise InputError(
            f"the same images in {path} and in the dataset",
            f"only in the dataset: {shorten(sorted(ids - parts.keys())) or 'none'}; "
            f"only in the file: {shorten(sorted(parts.keys() - ids)) or 'none'}",
            "restore the missing images, or make a new split in a new --workdir; in a "
            "split of your own the split of what it leaves out is unused",
        )
    return [parts[checked.record.id] for checked in records]


def find_leaks(
    records: Sequence[CheckedRecord], parts: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Groups, and ids of files with identical content, that stand in two parts."""
    parts_of_group, parts_of_hash = defaultdict(set), defaultdict(set)
    for checked, part in zip(records, parts, strict=True):
        if part == UNUSED:
            continue
        parts_of_group[checked.record.group].add(part)
        parts_of_hash[checked.image_sha256].add(part)
    groups = sorted(name for name, found in parts_of_group.items() if len(found) > 1)
    ids = sorted(
        checked.record.id
        for checked in records
        if len(parts_of_hash[checked.image_sha256]) > 1
    )
    return groups, ids


def _keep_or_deal(records: Sequence[CheckedRecord], data: Data):
    published = [checked.record.split for checked in records]
    if not any(published):
        if data.split == "published":
            raise InputError(
                "a dataset that comes with a split",
                f"{data.source.name} has none",
                "--config.data.split=grouped",
            )
        groups = components_of(records, by_group=True)
        return _deal(records, groups, _fractions(data), data.split_seed), []
    parts = [part or "train" for part in published]
    _refuse_without_train(parts)
    if data.split == "grouped":
        fix = "--config.data.split=published (keeps it), or =kfold (splits anew)"
        _refuse_leaks(records, parts, fix)
    notes = _leak_notes(records, parts)
    if "val" not in parts:
        _carve_validation(records, parts, data)
    return parts, notes


def _carve_validation(records, parts: list[str], data: Data) -> None:
    """Takes whole groups out of train, in place; a published test set stays whole."""
    train = [i for i, part in enumerate(parts) if part == "train"]
    inside = [records[i] for i in train]
    groups = components_of(inside, by_group=True)
    fractions = {"train": 1 - data.val_fraction, "val": data.val_fraction}
    for i, part in zip(
        train, _deal(inside, groups, fractions, data.split_seed), strict=True
    ):
        parts[i] = part


def _fold(records: Sequence[CheckedRecord], data: Data) -> list[str]:
    groups = components_of(records, by_group=True)
    fractions = [1 / data.num_folds] * data.num_folds
    folds = assign_groups(strata_of(records), groups, fractions, data.split_seed)
    empty = sorted({*range(data.num_folds)} - {*folds.tolist()})
    if empty:
        filled = data.num_folds - len(empty)
        raise InputError(
            f"groups for each of {data.num_folds} folds",
            f"{groups.max() + 1} group(s), none for fold {shorten(empty)}",
            f"--config.data.num_folds={filled}" if filled > 1 else "add groups",
        )
    parts = ["test" if fold == data.fold else "train" for fold in folds.tolist()]
    _carve_validation(records, parts, data)
    return parts


def _deal(records, groups, fractions: Mapping[str, float], seed: int) -> list[str]:
    names, shares = list(fractions), list(fractions.values())
    assigned = assign_groups(strata_of(records), groups, shares, seed)
    parts = [names[part] for part in assigned.tolist()]
    empty = [name for name in names if name not in parts]
    if empty:
        raise InputError(
            f"enough groups for {', '.join(names)}",
            f"{groups.max() + 1} group(s), none left for {', '.join(empty)}",
            f"more photos, finer groups, or {_way_out(names)}",
        )
    return parts


def _way_out(names: Sequence[str]) -> str:
    """The option that needs fewer groups, or takes a larger share of them."""
    if "test" in names:
        return "--config.data.test_fraction=0.0"
    return "a larger --config.data.val_fraction"


def _fractions(data: Data) -> dict[str, float]:
    train = 1 - data.val_fraction - data.test_fraction
    fractions = {"train": train, "val": data.val_fraction, "test": data.test_fraction}
    return {part: share for part, share in fractions.items() if share > 0}


def _refuse_without_train(parts: Sequence[str]) -> None:
    if "train" in parts:
        return
    found = [part for part in PARTS if part in parts]
    raise InputError(
        "a published split with a train part",
        f"{len(parts)} images, all of {' and '.join(found)}",
        "name the folder or the list of the training images train; or "
        "--config.data.split=kfold, which deals all of these anew",
    )


def _refuse_leaks(records, parts: Sequence[str], fix: str) -> None:
    groups, ids = find_leaks(records, parts)
    if groups or ids:
        raise InputError(
            "every group and every file content in one split only",
            f"{len(groups)} group(s) in two splits ({shorten(groups) or 'none'}), "
            f"{len(ids)} identical file(s) in two ({shorten(ids) or 'none'})",
            fix,
        )


def _leak_notes(records, parts: Sequence[str]) -> list[str]:
    groups, ids = find_leaks(records, parts)
    if not groups and not ids:
        return []
    return [
        f"WARNING: this split leaks: {len(groups)} group(s) and {len(ids)} identical "
        "file(s) stand in more than one part; test scores will be too good"
    ]


def _lookalike_notes(records, parts: Sequence[str]) -> list[str]:
    """Names images outside of train that show what one in train shows."""
    scenes = [checked.looks_like or checked.record.id for checked in records]
    placed = list(zip(scenes, records, parts, strict=True))
    trained = {s: checked.record.id for s, checked, part in placed if part == "train"}
    found = [
        f"{checked.record.id} like {trained[scene]}"
        for scene, checked, part in placed
        if part in ("val", "test") and scene in trained
    ]
    if not found:
        return []
    return [
        "WARNING: images of val and test that show the same as a training image: "
        f"{len(found)} ({shorten(found)}); scores will be too good. Join them by "
        "data.group_pattern, or name a csv with the columns id and split in data.split"
    ]


def _refuse_missing_classes(records, parts: Sequence[str]) -> None:
    """Train and val need every image class; masks need some foreground.

    A test part may lack a class (its metrics are then nan), or be missing altogether.
    """
    from_masks = all(checked.record.label is None for checked in records)
    needed = {1} if from_masks else {checked.label for checked in records}
    for part in ("train", "val"):
        inside = {c.label for c, p in zip(records, parts, strict=True) if p == part}
        missing = sorted(needed - inside)
        if missing:
            what = "with any foreground" if from_masks else f"of class {missing[0]}"
            raise InputError(
                f"every class in the {part} part",
                f"no image {what} in it, of {len(records)} images in all",
                "add images or groups of that class, or try another "
                "--config.data.split_seed or --config.data.val_fraction",
            )
