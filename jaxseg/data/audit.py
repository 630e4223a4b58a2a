"""What a data set is like, in tables, and what to do about it.

For people, before they train: `check` has refused what cannot be used; here is told
what can be used but will disappoint. A sentence that begins with WARNING needs a
decision.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from jaxseg.config import Data
from jaxseg.data.check import CheckedRecord
from jaxseg.data.dataset import Dataset
from jaxseg.data.splits import PARTS, Split, make_split
from jaxseg.errors import InputError

MAX_ROWS = 8
"""Sizes that are listed one by one."""
MAX_MASKS = 400
"""Masks whose shapes are measured, spread evenly over the set."""
EIGHT_NEIGHBOURS = np.ones((3, 3), bool)
FEW, FEW_MASKS = 30, 10
"""Images of a class, or with masks, under which a score of it says little: of 30 images
a share of 0.9 has a 95 % interval from 0.74 to 0.97 (Wilson)."""


class Table(NamedTuple):
    """Rows of text and numbers under a header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class Shape(NamedTuple):
    """A connected region of one class: area in pixels, and whether it is thin."""

    label: int
    area: int
    thin: bool  # at most two pixels thick everywhere


@dataclasses.dataclass(frozen=True)
class Audit:
    tables: tuple[Table, ...]
    notes: tuple[str, ...]


def audit(dataset: Dataset, split: Split, data: Data) -> Audit:
    """Counts, sizes, pixels and shapes of a data set, and advice.

    Args:
      split: of the records.
    """
    records, classes = dataset.records, dataset.classes
    tables = [_parts_table(records, classes, split), _sizes_table(records)]
    if any(checked.record.source for checked in records):
        tables.append(_sources_table(records, classes))
    notes = [
        *_leak_notes(records, data),
        *_count_notes(records, classes, split),
        *_rarity_notes(records, classes, data),
        *_size_notes(records, data),
    ]
    if any(checked.class_pixels for checked in records):
        shapes, change = measure_shapes(dataset)
        tables += [
            _pixels_table(records, classes, split),
            _shapes_table(shapes, classes),
        ]
        notes += _shape_notes(shapes, change, data)
    return Audit(tuple(tables), tuple(notes))


def measure_shapes(dataset: Dataset) -> tuple[list[Shape], tuple[int, int]]:
    """Regions of the masks as the network sees them, all or `MAX_MASKS` of them.

    Returns:
      the regions; how many there are in the same masks at full size, and how many at
      the network's (the same number twice where images are not resized).
    """
    chosen = _spread(len(dataset.ids), MAX_MASKS)
    fields = dataset.source.decoder.fields().items()
    shapes, before, after = [], 0, 0
    for position in chosen:
        sample = {name: np.empty((1, *size), kind) for name, (size, kind) in fields}
        dataset.source.read(np.array([position]), sample)
        found = _shapes_of(sample["mask"][0], len(dataset.classes))
        shapes += found
        if dataset.labels is not None:
            checked = dataset.records[position]
            before += _count_regions(dataset, checked)
            after += len(found)
    return shapes, (before, after)


def _count_regions(dataset: Dataset, checked: CheckedRecord) -> int:
    """Regions of a mask at its full size."""
    if checked.record.mask is None:
        return 0
    mask = dataset.source.decoder.mask(checked.record.mask.read_bytes())
    return sum(
        ndimage.label(mask == label, EIGHT_NEIGHBOURS)[1]
        for label in range(1, len(dataset.classes))
    )


def _shapes_of(mask: np.ndarray, num_classes: int) -> list[Shape]:
    shapes = []
    for label in range(1, num_classes):
        regions, count = ndimage.label(mask == label, EIGHT_NEIGHBOURS)
        if not count:
            continue
        # Beyond the border the region is taken to go on, so nothing is thin by a cut.
        inside = np.pad(regions > 0, 1, mode="edge")
        depth = ndimage.distance_transform_cdt(inside, "chessboard")[1:-1, 1:-1]
        numbers = np.arange(1, count + 1)
        areas = np.bincount(regions.ravel())[1:]
        deepest = ndimage.maximum(depth, regions, numbers)
        shapes += [
            Shape(label, int(area), bool(deep < 2))
            for area, deep in zip(areas, deepest, strict=True)
        ]
    return shapes


def _spread(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _parts_table(records, classes: Sequence[str], split: Split) -> Table:
    rows = []
    for part in PARTS:
        inside = [records[i] for i in split.indices(part)]
        if inside:
            rows.append((part, *_counts_of(inside, classes)))
    rows.append(("all", *_counts_of(records, classes)))
    return Table(
        "images",
        ("part", "images", "groups", *_label_names(records, classes)),
        tuple(rows),
    )


def _sources_table(records, classes: Sequence[str]) -> Table:
    by_source = defaultdict(list)
    for checked in records:
        by_source[checked.record.source].append(checked)
    rows = [(name, *_counts_of(by_source[name], classes)) for name in sorted(by_source)]
    names = _label_names(records, classes)
    return Table("sources", ("source", "images", "groups", *names), tuple(rows))


def _label_names(records, classes: Sequence[str]) -> tuple[str, ...]:
    """Image labels: those of masks only say whether there is any foreground."""
    return ("clean", "with foreground") if _has_masks(records) else tuple(classes)


def _has_masks(records) -> bool:
    return any(checked.class_pixels for checked in records)


def _counts_of(records, classes: Sequence[str]) -> tuple[int, ...]:
    labels = Counter(
        min(checked.label, 1) if checked.class_pixels else checked.label
        for checked in records
    )
    groups = {checked.record.group for checked in records}
    count = len(_label_names(records, classes))
    return (len(records), len(groups), *(labels[i] for i in range(count)))


def _sizes_table(records) -> Table:
    sizes = Counter(checked.size for checked in records)
    common = sizes.most_common(MAX_ROWS if len(sizes) <= MAX_ROWS else 3)
    rows = [(f"{h} x {w}", count) for (h, w), count in common]
    others = np.array([size for size in sizes if size not in dict(common)])
    if len(others):
        (top, left), (bottom, right) = others.min(0), others.max(0)
        count = sum(sizes.values()) - sum(dict(common).values())
        rows.append((f"others: {top}..{bottom} x {left}..{right}", count))
    return Table("sizes of the files", ("height x width", "images"), tuple(rows))


def _pixels_table(records, classes: Sequence[str], split: Split) -> Table:
    """Share of the pixels by class and part, in percent."""
    shares = {}
    for part in PARTS:
        pixels = [records[i].class_pixels for i in split.indices(part)]
        total = np.sum([counts for counts in pixels if counts], axis=0)
        if np.ndim(total):
            shares[part] = 100 * total / max(1, total.sum())
    shown = [
        sum(bool(c.class_pixels and c.class_pixels[label]) for c in records)
        for label in range(len(classes))
    ]
    rows = [
        (name, shown[label], *(float(values[label]) for values in shares.values()))
        for label, name in enumerate(classes)
    ]
    header = ("class", "images with it", *(f"% of {part} pixels" for part in shares))
    return Table("pixels", header, tuple(rows))


def _shapes_table(shapes: list[Shape], classes: Sequence[str]) -> Table:
    rows = []
    for label, name in enumerate(classes):
        found = [shape for shape in shapes if shape.label == label]
        if found:
            areas = [shape.area for shape in found]
            thin = 100 * sum(shape.thin for shape in found) / len(found)
            low, middle, high = np.percentile(areas, (10, 50, 90)).round().astype(int)
            rows.append((name, len(found), int(low), int(middle), int(high), thin))
    header = ("class", "regions", "area: 10 %", "50 %", "90 %", "% thin (2 px)")
    return Table("regions in the masks, in the network's pixels", header, tuple(rows))


def _leak_notes(records, data: Data) -> list[str]:
    """How much a random split would give away."""
    try:
        split = make_split(records, dataclasses.replace(data, split="random"))
    except InputError:
        return []  # too few images to be dealt at random
    places = {part: split.indices(part) for part in PARTS}
    relatives: list[Callable] = [
        lambda checked: checked.record.group,
        lambda checked: checked.looks_like or checked.record.id,
    ]
    seen = [{of(records[i]) for i in places["train"]} for of in relatives]
    judged = [*places["val"], *places["test"]]
    known = [
        any(of(records[i]) in names for of, names in zip(relatives, seen, strict=True))
        for i in judged
    ]
    share = np.mean(known) if known else 0.0
    if share < 0.01:
        return []
    return [
        f"with data.split=random {share:.0%} of the val and test images would have an "
        "image of the same group, or one that looks the same, in training: their "
        "scores would reward memory"
    ]


def _count_notes(records, classes: Sequence[str], split: Split) -> list[str]:
    """Parts that are too small to be trusted, and what there is none of."""
    notes, names = [], _label_names(records, classes)
    totals = _counts_of(records, classes)[2:]
    enough = FEW_MASKS if _has_masks(records) else FEW
    for part in ("val", "test"):
        inside = [records[i] for i in split.indices(part)]
        counts = _counts_of(inside, classes)[2:] if inside else ()
        few = [
            f"{count} ({name})"
            for name, count, total in zip(names, counts, totals, strict=False)
            if total and count < enough
        ]
        if few:
            notes.append(
                f"WARNING: few images in the {part} part, {' and '.join(few)}: their "
                "scores are uncertain by 0.1 and more; add images, or look at several "
                "splits, --config.data.split=kfold"
            )
    if _has_masks(records) and not totals[0]:
        notes.append(
            "no image is clean, so false alarms cannot be measured: add photos without "
            "a defect, with empty masks"
        )
    return notes


def _rarity_notes(records, classes: Sequence[str], data: Data) -> list[str]:
    """Rare classes: of images, or of pixels where there are masks."""
    if _has_masks(records):
        share = 1 - _foreground(records)
        if share <= 0.9:
            return []
        return [
            f"{share:.1%} of the pixels are background: watch IoU and Dice, not "
            "pixel accuracy, and add a Dice or Jaccard term to the loss"
        ]
    counts = np.array(_counts_of(records, classes)[2:])
    unequal = counts.min() and counts.max() > 3 * counts.min()
    if not unequal or data.sampling != "shuffle":
        return []
    return [
        f"the commonest class has {counts.max() / counts.min():.1f} times as many "
        "images as the rarest: --config.data.sampling=balanced shows them equally often"
    ]


def _foreground(records) -> float:
    total = np.sum([c.class_pixels for c in records if c.class_pixels], axis=0)
    return float(total[1:].sum() / max(1, total.sum()))


def _size_notes(records, data: Data) -> list[str]:
    """What resizing to `data.image_size` does to the files."""
    if data.crop is not None:
        return []
    sizes = np.array([checked.size for checked in records], float)
    scale = np.array(data.image_size) / sizes
    stretch = np.median(scale[:, 1] / scale[:, 0])
    notes = []
    if max(stretch, 1 / stretch) > 1.25:
        height, width = np.median(sizes, axis=0)
        fitting = _same_shape(height / width, data.image_size)
        notes.append(
            f"resizing to {data.image_size} changes the shape of images by a factor "
            f'of {max(stretch, 1 / stretch):.2f}: --config.data.image_size="{fitting}" '
            "keeps it"
        )
    if np.median(scale) > 1.5:
        notes.append(
            f"images are enlarged {np.median(scale):.1f} times to {data.image_size}: "
            "a smaller size trains faster and shows the same"
        )
    return notes


def _same_shape(ratio: float, size: tuple[int, int]) -> tuple[int, int]:
    """Multiples of 32 with about the area of `size` and height / width = ratio."""
    height = (size[0] * size[1] * ratio) ** 0.5
    return tuple(max(1, round(side / 32)) * 32 for side in (height, height / ratio))


def _shape_notes(shapes, change: tuple[int, int], data: Data) -> list[str]:
    notes = []
    before, after = change
    remedy = "larger --config.data.image_size, or windows of the full size: data.crop"
    if before and abs(after - before) > 0.1 * before:
        notes.append(
            f"WARNING: resizing to {data.image_size} turns {before} regions of the "
            f"masks into {after}: thin ones break or vanish; {remedy}"
        )
    thin = np.mean([shape.thin for shape in shapes]) if shapes else 0.0
    if thin > 0.5 and data.crop is None:
        notes.append(
            f"{thin:.0%} of the regions are at most 2 pixels thick in the network's "
            f"eyes, where a shift of one pixel halves the IoU; {remedy}"
        )
    return notes
