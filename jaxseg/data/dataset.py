"""A dataset ready to train on: scanned, checked, prepared, split and decoded."""

import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np

from jaxseg import backend, files, paths, progress
from jaxseg.config import Data
from jaxseg.data import check, stored
from jaxseg.data.cache import FORMAT, Decoder, Source, open_source
from jaxseg.data.check import CheckedRecord
from jaxseg.data.prepare import MORE_ROOM, prepare
from jaxseg.data.targets import TargetRule
from jaxseg.data.tiles import TileDecoder, describe_crop
from jaxseg.datasets.record import Listing
from jaxseg.errors import InputError, shorten


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What the loop needs to know.

    A sample is an image, or with `data.crop` a window of the grid over an image.

    Attributes:
      records: all images of the set.
      classes: names by class id.
      ids: names of the n samples; positions in other arrays refer to this order.
      record_of: [n] int64, position of the record that a sample is of.
      labels: [n] int32 image classes; None for windows, which show what they show.
      source: pixels of the samples by position.
      content_hash: changes when any file or label does.
      notes: sentences to print.
    """

    records: tuple[CheckedRecord, ...]
    classes: tuple[str, ...]
    ids: list[str]
    record_of: np.ndarray
    labels: np.ndarray | None
    source: Source
    content_hash: str
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @property
    def record_labels(self) -> np.ndarray:
        """[number of records] int32 image classes."""
        return np.asarray([c.label for c in self.records], np.int32)


def load_dataset(
    listing: Listing, data: Data, targets: TargetRule | None = None
) -> Dataset:
    """Checks the files and opens them as fast as `data.cache` allows.

    Args:
      targets: what to make of masks besides.

    Raises:
      InputError: whatever is wrong with the files, the masks or the disk.
    """
    cache_dir, workers = _make_cache_folder(data), num_workers(data)
    checked = _check_once(listing, data, cache_dir, workers)
    _refuse_empty_classes(listing.classes, checked)
    decoder = _make_decoder(checked, data, targets)
    source, cache_note = open_source(
        prepare(checked, cache_dir),
        decoder,
        files_hash=checked.files_hash,
        cache_dir=cache_dir,
        mode=data.cache,
        workers=workers,
    )
    ids, record_of, crop_notes = _samples(checked.records, source, data)
    labels = np.asarray([c.label for c in checked.records], np.int32)
    return Dataset(
        records=checked.records,
        classes=listing.classes,
        ids=ids,
        record_of=record_of,
        labels=labels if data.crop is None else None,
        source=source,
        content_hash=checked.content_hash,
        skipped=checked.skipped,
        notes=(
            *_source_notes(listing),
            *listing.notes,
            *checked.notes,
            *crop_notes,
            cache_note,
        ),
    )


def _make_decoder(
    checked: check.Checked, data: Data, targets: TargetRule | None
) -> Decoder | TileDecoder:
    if data.crop is None:
        return Decoder(data.image_size, data.channels, checked.encoding, targets)
    _refuse_small_images(checked.records, data.image_size)
    sizes = tuple(item.size for item in checked.records)
    return TileDecoder(data.image_size, data.channels, checked.encoding, sizes)


def _samples(records, source: Source, data: Data):
    """Id and record of every sample, and what to say about crops."""
    names = [checked.record.id for checked in records]
    if data.crop is None:
        return names, np.arange(len(records)), ()
    ids = [f"{names[tile]}_y{top}_x{left}" for tile, top, left in source.grid.tolist()]
    note = describe_crop(data.crop, data.image_size, len(ids))
    return ids, source.grid[:, 0], (note,)


def _refuse_small_images(records, image_size: tuple[int, int]) -> None:
    """A window must fit into every image."""
    sizes = {item.record.id: item.size for item in records}
    small = [
        f"{name}: {size[0]} x {size[1]}"
        for name, size in sizes.items()
        if size[0] < image_size[0] or size[1] < image_size[1]
    ]
    if small:
        smallest = np.min([*sizes.values()], axis=0)
        fitting = tuple(int(side) // 32 * 32 or int(side) for side in smallest)
        raise InputError(
            f"images of at least {image_size[0]} x {image_size[1]} pixels "
            "(data.image_size) to cut windows from (data.crop)",
            f"{len(small)} smaller: {shorten(small)}",
            f'--config.data.image_size="{fitting}", or --config.data.crop=none '
            "resizes whole images",
        )


def _source_notes(listing: Listing) -> tuple[str, ...]:
    """Whom to cite, for the datasets that know."""
    if not listing.citation:
        return ()
    return (f"cite {listing.citation} (licence: {listing.licence or 'unknown'})",)


def num_workers(data: Data) -> int:
    """`data.workers`, or one thread per core this process may use."""
    return data.workers or len(backend.usable_cores())


def _make_cache_folder(data: Data) -> Path:
    folder = paths.cache_folder(data.cache_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            "a folder for prepared images that can be written",
            f"{folder}: {error.strerror}",
            "--config.data.cache_dir=DIR that you can write",
        ) from None
    return folder


def _check_once(listing, data: Data, cache_dir: Path, workers: int) -> check.Checked:
    """The stored result for an unchanged folder, or a new check."""
    formats = [FORMAT, check.FORMAT]
    options = [*formats, stored.fingerprint(listing), data.palette, data.on_corrupt]
    name = hashlib.sha256(json.dumps(options).encode()).hexdigest()[:20]
    path = cache_dir / "checked" / f"{name}.json"
    with (
        files.explain_full_disk(cache_dir, MORE_ROOM),
        files.exclusive(path.with_suffix(".lock"), wait=True),
    ):
        checked = stored.read(path, listing)
        if checked is None:
            checked = check.check(
                listing,
                palette=data.palette,
                on_corrupt=data.on_corrupt,
                workers=workers,
                progress=progress.track,
            )
            stored.write(path, checked)
    return checked


def _refuse_empty_classes(classes: tuple[str, ...], checked: check.Checked) -> None:
    """Image classes must all occur; masks are judged by `check` instead."""
    if checked.encoding is not None:
        return
    present = {record.label for record in checked.records}
    missing = [name for label, name in enumerate(classes) if label not in present]
    if missing:
        raise InputError(
            f"images of every class: {', '.join(classes)}",
            f"no image of {shorten(missing)} among {len(checked.records)} images",
            "add such images, or look whether --config.data.dir is the right folder",
        )
