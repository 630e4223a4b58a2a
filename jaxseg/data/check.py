"""Opens every image and mask of a listing once, before anything is trained on it.

What was found and how it is handled is said in notes, and what cannot be handled is
refused with the fix; how mask values become class ids is decided in `encoding`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from jaxseg.data import check_notes, lookalikes
from jaxseg.data.encoding import decide_encoding, note_classes
from jaxseg.data.images import ImageFacts
from jaxseg.data.mask_values import MaskEncoding
from jaxseg.data.opened import Opened, open_record
from jaxseg.datasets.record import Listing, Record
from jaxseg.errors import InputError, Refusals, shorten

FORMAT = 1
"""To be raised when the same files would be judged otherwise than before: by other
rules or words here or in `check_notes`, `encoding` or `lookalikes`, or by masks that
`datasets.drawing` draws otherwise."""

Progress = Callable[[Iterable, int, str], Iterable]


@dataclasses.dataclass(frozen=True)
class CheckedRecord:
    """A record whose files have been opened.

    Attributes:
      record: as listed.
      image_sha256: hex digest of the bytes of the image file.
      mask_sha256: the same of the mask file, '' without one.
      size: (height, width) in pixels, upright.
      label: as listed; where that is None, 1 if the mask has any foreground, else 0.
      class_pixels: pixels of each class in the mask; () without one.
      looks_like: id of the first record whose image shows the same; '' for itself.
    """

    record: Record
    image_sha256: str
    mask_sha256: str
    size: tuple[int, int]
    label: int
    class_pixels: tuple[int, ...]
    looks_like: str = ""

    @property
    def foreground(self) -> float | None:
        """Share of the pixels with a class that are not class 0; None without mask."""
        if not self.class_pixels:
            return None
        return sum(self.class_pixels[1:]) / max(1, sum(self.class_pixels))


@dataclasses.dataclass(frozen=True)
class Checked:
    """A listing that can be trained on.

    Attributes:
      records: those kept, in the order of the listing.
      encoding: how mask values become class ids; None without masks.
      notes: what was found and how it is handled, one sentence each.
      skipped: (id, reason) of records left out.
      content_hash: hex sha256 over id, contents, label, group and split of all records.
    """

    records: tuple[CheckedRecord, ...]
    encoding: MaskEncoding | None
    notes: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    content_hash: str

    @property
    def files_hash(self) -> str:
        """Hex sha256 over the bytes of all files in order, whatever they are called."""
        hashes = [(item.image_sha256, item.mask_sha256) for item in self.records]
        return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def check(
    listing: Listing,
    *,
    palette: tuple[str, ...],
    on_corrupt: str,
    workers: int,
    progress: Progress,
) -> Checked:
    """Opens everything once and decides how the masks are to be read.

    Args:
      listing: what to open.
      palette: '#rrggbb' of every class for colour-coded masks, else ().
      on_corrupt: 'fail' refuses files that cannot be opened, 'skip' leaves them out.
      workers: threads.
      progress: `progress(iterable, total, description)` returns an iterable.

    Raises:
      InputError: broken files, pairs of different size, masks that cannot be read
        without doubt, or nothing to train on; all of these at once.
    """
    with ThreadPoolExecutor(workers) as pool:
        opening = pool.map(partial(open_record, listing), listing.records)
        total = len(listing.records)
        opened = list(progress(opening, total, "Checking images and masks"))
    opened, blank = _set_blank_aside(opened, listing.max_blank)
    kept = [item for item in opened if not item.problem]
    broken = tuple((item.record.id, item.problem) for item in opened if item.problem)
    refusals = Refusals()
    with refusals.collected():
        _refuse_broken(broken, on_corrupt, has_others=bool(kept))
    with refusals.collected():
        _refuse_different_sizes(kept)
    with refusals.collected():
        _refuse_unlabelled(kept)
    encoding, encoding_notes = _decide_encoding(kept, listing, palette, refusals)
    refusals.raise_all()
    mask_facts = [item.mask_facts for item in kept if item.mask_facts is not None]
    num_classes = len(listing.classes)
    finished = [_finish(item, encoding, num_classes) for item in kept]
    finished = _mark_lookalikes(finished, [item.thumbnail for item in kept])
    records, contrary = _set_contrary_aside(finished, on_corrupt)
    notes = (
        *check_notes.of_images([item.facts for item in kept]),
        *check_notes.of_masks(mask_facts),
        *encoding_notes,
        *check_notes.of_broken([name for name, _ in broken]),
        *check_notes.of_labels(records, [name for name, _ in contrary]),
        *check_notes.of_blank(blank, listing.max_blank),
    )
    skipped = (*listing.skipped, *blank, *broken, *contrary)
    return Checked(records, encoding, notes, skipped, _content_hash(records))


def _decide_encoding(
    opened: Sequence[Opened],
    listing: Listing,
    palette: tuple[str, ...],
    refusals: Refusals,
) -> tuple[MaskEncoding | None, list[str]]:
    """How the masks are to be read, and notes; None without masks, or if refused."""
    tallies = {item.record.id: item.tally for item in opened if item.tally is not None}
    encoding, notes = None, []
    if listing.mask_values != "ids":
        with refusals.collected():
            _refuse_unequal_palettes(opened)
    if tallies:
        with refusals.collected():
            encoding, note = decide_encoding(
                tallies, listing.classes, palette, listing.mask_values
            )
            missing = note_classes(list(tallies.values()), encoding, listing.classes)
            notes = [note, *missing]
    return encoding, notes


def _set_blank_aside(
    opened: Sequence[Opened], limit: float
) -> tuple[list[Opened], tuple[tuple[str, str], ...]]:
    blank = [item for item in opened if item.blank > limit]
    kept = [item for item in opened if item.blank <= limit]
    if blank and not kept:
        raise InputError(
            expected=f"images with at most {100 * limit:g} % of pure white pixels",
            found=f"all {len(blank)} have more, the first {100 * blank[0].blank:.0f} %",
            fix="--config.data.max_blank=1.0 keeps them all",
        )
    reason = "{:.1f} % of the pixels are blank (pure white)"
    return kept, tuple(
        (item.record.id, reason.format(100 * item.blank)) for item in blank
    )


def _refuse_broken(
    broken: Sequence[tuple[str, str]], on_corrupt: str, *, has_others: bool
) -> None:
    found = f"{len(broken)} broken: {shorten(problem for _, problem in broken)}"
    if broken and on_corrupt == "fail":
        raise InputError(
            expected="images and masks that can be opened",
            found=found,
            fix="--config.data.on_corrupt=skip leaves them out; or replace the files",
        )
    if not has_others:
        raise InputError(
            expected="at least one record that can be opened",
            found=found,
            fix="see that --config.data.dir names the folder of the intact files",
        )


def _set_contrary_aside(
    records: Sequence[CheckedRecord], on_corrupt: str
) -> tuple[tuple[CheckedRecord, ...], tuple[tuple[str, str], ...]]:
    """Records whose label says defect or clean, and whose mask says the other."""
    contrary = [
        item
        for item in records
        if item.foreground is not None and (item.label > 0) != (item.foreground > 0)
    ]
    reasons = {
        item.record.id: "its label is a defect, and its mask is all background"
        if item.label
        else "its label is clean, and its mask has foreground pixels"
        for item in contrary
    }
    if contrary and (on_corrupt == "fail" or len(contrary) == len(records)):
        listed = shorten(f"{name}: {reason}" for name, reason in reasons.items())
        raise InputError(
            expected="labels that agree with the masks",
            found=f"{len(contrary)} contradict them: {listed}",
            fix="--config.data.on_corrupt=skip leaves them out; or draw the masks, or "
            "move the images where they belong",
        )
    kept = tuple(item for item in records if item.record.id not in reasons)
    return kept, tuple(reasons.items())


def _refuse_different_sizes(opened: Sequence[Opened]) -> None:
    differing = [
        f"{item.record.id}: image {_size_text(item.facts)}, "
        f"mask {_size_text(item.mask_facts)}"
        for item in opened
        if item.tally is not None and item.facts.size != item.mask_facts.size
    ]
    if differing:
        raise InputError(
            expected="every mask to have the size of its image (height x width)",
            found=f"{len(differing)} pairs differ: {shorten(differing)}",
            fix="export these masks or annotations again at the size of the image as "
            "it is displayed, or take the pairs out of the folder (of severstal: "
            "--config.data.mask_size='(H, W)')",
        )


def _refuse_unlabelled(opened: Sequence[Opened]) -> None:
    unknown = [
        item.record.id
        for item in opened
        if item.record.label is None and item.tally is None
    ]
    if unknown:
        raise InputError(
            expected="a label or a mask for every image",
            found=f"neither for {len(unknown)} images: {shorten(unknown)}",
            fix="draw their masks, or take these images out of the folder",
        )


def _refuse_unequal_palettes(opened: Sequence[Opened]) -> None:
    """The indices are the values, so each must be the same colour in all masks."""
    notes = {
        item.record.id: item.mask_facts.notes
        for item in opened
        if item.tally is not None
    }
    palettes = [name for name, found in notes.items() if "palette" in found]
    unlike = [name for name in palettes if "palette: 0 is not black" in notes[name]]
    if 0 < len(unlike) < len(palettes):
        raise InputError(
            expected="masks with palettes in one order: the indices are the values",
            found=f"index 0 is black in {len(palettes) - len(unlike)} masks, and "
            f"another colour in {len(unlike)}: {shorten(unlike)}",
            fix="save all masks as grey PNG without a palette, of 0 and 255 or of "
            "class ids",
        )


def _size_text(facts: ImageFacts) -> str:
    turned = " (EXIF-rotated)" if "EXIF-rotated" in facts.notes else ""
    return f"{facts.size[0]} x {facts.size[1]}{turned}"


def _finish(
    item: Opened, encoding: MaskEncoding | None, num_classes: int
) -> CheckedRecord:
    label, counts = item.record.label, ()
    if item.tally is not None:
        counts = item.tally.class_counts(encoding, num_classes)[:-1].tolist()
        label = int(any(counts[1:])) if label is None else label
    hashes = item.image_sha256, item.mask_sha256
    return CheckedRecord(item.record, *hashes, item.facts.size, label, tuple(counts))


def _mark_lookalikes(
    records: Sequence[CheckedRecord], thumbnails: Sequence[np.ndarray]
) -> tuple[CheckedRecord, ...]:
    first = lookalikes.cluster(np.stack(thumbnails))
    return tuple(
        dataclasses.replace(item, looks_like=records[other].record.id)
        if other != position
        else item
        for position, (item, other) in enumerate(zip(records, first, strict=True))
    )


def _content_hash(records: Sequence[CheckedRecord]) -> str:
    digest = hashlib.sha256()
    for item in records:
        record, hashes = item.record, (item.image_sha256, item.mask_sha256)
        facts = [record.id, *hashes, item.label, record.group, record.split]
        digest.update(json.dumps(facts).encode())
    return digest.hexdigest()
