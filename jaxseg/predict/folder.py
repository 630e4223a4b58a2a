"""Whole folders through a network: files in, masks and tables out, as fast as it goes.

Threads read the next images and write the last results while the device computes.
"""

import contextlib
import dataclasses
import functools
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxseg import files
from jaxseg.data.images import count_pixels
from jaxseg.datasets import listing
from jaxseg.errors import InputError, shorten
from jaxseg.predict import annotate, measuring, pictures, table
from jaxseg.predict.photos import AHEAD_PIXELS, Photo, in_order, list_photos
from jaxseg.predict.predictor import Predictor
from jaxseg.predict.reading import Read, read_photo
from jaxseg.predict.result import Result
from jaxseg.predict.store import Entry, Store, open_store
from jaxseg.progress import console, duration, track

MUCH_LARGER = 2  # times the images of the training
CHANGED = "was changed or removed while it was predicted"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is written beside masks and tables.

    Attributes:
      probabilities: as 16-bit PNG.
      overlays: pictures for people.
      annotations: 'labelme', 'coco' or ''.
      mm_per_pixel: of the images, for columns in millimetres; None is what the model
        knows.
    """

    probabilities: bool
    overlays: bool
    annotations: Literal["labelme", "coco", ""]
    mm_per_pixel: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class _Predicted:
    photo: Photo
    stamp: list[int]
    size: tuple[int, int]
    image: np.ndarray | None
    finish: Callable[[], Result]


def predict_folder(
    predictor: Predictor, images: Sequence[str], out: Path, wanted: Wanted
) -> list[tuple[str, str]]:
    """Predicts all images and writes what was found; goes on where it stopped.

    Args:
      images: folders, files and patterns.

    Returns:
      (source, reason) of the images, and folders, that could not be read.

    Raises:
      InputError: no images; a folder of other results; wishes that do not fit.
    """
    _refuse_wishes(predictor, wanted)
    photos, skipped, ignored = list_photos(images, out)
    if ignored:
        console.print(f"- {listing.describe_ignored(ignored)}", markup=False)
    fix = "free some, then the same command goes on"
    identity = _identity(predictor, photos[0])
    with open_store(out, identity) as store, files.explain_full_disk(out, fix):
        work = _Work(predictor, store, wanted)
        known = {p.source: store.entry(p, work.files_of(p)) for p in photos}
        todo = [photo for photo in photos if known[photo.source] is None]
        if len(todo) < len(photos):
            console.print(f"- {len(photos) - len(todo)} images are done already")
        if todo:
            workers = os.cpu_count() or 1
            with ThreadPoolExecutor(workers) as pool:
                skipped += work.run(todo, pool)
        known |= {p.source: store.entry(p, work.files_of(p)) for p in todo}
        lost = {p.source for p in todo if known[p.source] is None}
        lost -= {source for source, _ in skipped}
        skipped += [(source, CHANGED) for source in sorted(lost)]
        work.write_tables(list(known.values()), skipped)
        done = [photo for photo in photos if known[photo.source] is not None]
        if wanted.annotations == "labelme":
            annotate.write_labelme(store, done, predictor.classes)
        elif wanted.annotations == "coco":
            annotate.write_coco(store, done, predictor.classes)
    return skipped


class _Work:
    """What is done to every photo."""

    def __init__(self, predictor: Predictor, store: Store, wanted: Wanted):
        self._predictor, self._store, self._wanted = predictor, store, wanted
        self._has_masks = "seg_logits" in predictor.trained.task.needs
        self._has_warned = predictor.plan.tiled
        # Large images are decoded and measured one at a time.
        self._turn = threading.Lock()
        # Overlays show the probabilities; measurements have a score.
        precise = wanted.probabilities or wanted.overlays
        self._dtype = np.uint16 if precise else np.uint8

    def files_of(self, photo: Photo) -> list[Path]:
        """All files of a photo, the mask first."""
        kinds = [("masks", ".png")] if self._has_masks else []
        if self._wanted.probabilities:
            kinds += [(f"probabilities/{i}", ".png") for i in self._probability_ids()]
        kinds += [("overlays", ".jpg")] if self._wanted.overlays else []
        return [self._store.path(kind, photo.name, end) for kind, end in kinds]

    def write_tables(
        self, entries: Sequence[Entry | None], skipped: list[tuple[str, str]]
    ) -> None:
        mm_per_pixel = self._wanted.mm_per_pixel
        if mm_per_pixel is None:
            mm_per_pixel = self._predictor.trained.preprocessing.mm_per_pixel
        out, classes = self._store.out, self._predictor.classes
        if not self._has_masks:
            table.write_classified(out, entries, skipped, classes)
            return
        table.write_tables(out, entries, skipped, classes[1:], mm_per_pixel)
        noisy = sum(
            any(found["number"] > len(found["components"]) for found in entry.pieces)
            for entry in entries
            if entry is not None
        )
        if noisy:
            console.print(
                f"WARNING: {noisy} images have so many pieces that they look like "
                f"noise (over {measuring.MIN_NOISE:,}, and one for every "
                f"{measuring.NOISE_PIXELS:,} pixels); they are counted, not measured"
            )

    def run(self, photos: list[Photo], pool: Executor) -> list[tuple[str, str]]:
        """Predicts and writes; the images that could not be read."""
        started = time.monotonic()
        self._compile()
        ready = time.monotonic()
        skipped, pixels, done = [], 0, 0
        read = self._readable(
            in_order(pool, self._read_in_turn, photos, _pixels_of), skipped
        )
        written = in_order(
            pool, self._write_in_turn, self._predict(read), lambda p: math.prod(p.size)
        )
        for count in track(written, len(photos), "Predicting"):
            pixels, done = pixels + count, done + 1
        seconds = time.monotonic() - ready
        console.print(
            f"- {done} images in {duration(seconds)}: {done / seconds:.2f} images/s, "
            f"{pixels / 1e6 / seconds:.2f} Mpixel/s, reading and writing included; "
            f"compiled in {ready - started:.1f} s before"
        )
        return skipped

    def _compile(self) -> None:
        plan = self._predictor.plan
        channels = self._predictor.trained.preprocessing.channels
        empty = np.zeros((plan.batch_size, *plan.size, channels), np.uint8)
        self._predictor.run(empty, plan.batch_size)

    def _read_in_turn(self, photo: Photo) -> Read:
        keep = self._wanted.overlays
        with self._wait_for_turn(_pixels_of(photo)):
            return read_photo(photo, self._predictor, keep_image=keep)

    def _wait_for_turn(self, pixels: int) -> contextlib.AbstractContextManager:
        return self._turn if pixels > AHEAD_PIXELS else contextlib.nullcontext()

    def _readable(self, read: Iterator[Read], skipped: list) -> Iterator[Read]:
        for item in read:
            if item.pixels is None:
                skipped.append((item.photo.source, item.problem))
            else:
                self._warn_of_scale(item)
                yield item
            del item  # it is large, and the next one is read now

    def _predict(self, read: Iterator[Read]) -> Iterator[_Predicted]:
        """In batches over images where whole images are predicted.

        The next batch is read and computed while the last one is written.
        """
        predictor = self._predictor
        if predictor.plan.tiled:
            for item in read:
                result = predictor.tile(item.pixels, self._dtype)
                yield _predicted(item, functools.partial(_same, result))
                del item, result  # before the next one is read
            return
        with ThreadPoolExecutor(1) as device:
            previous = None
            for batch in self._batches(read):
                inputs = np.stack([item.pixels for item in batch])
                ahead = device.submit(predictor.run, inputs, predictor.plan.batch_size)
                if previous:
                    yield from self._unpack(*previous)
                previous = batch, ahead
            if previous:
                yield from self._unpack(*previous)

    def _batches(self, read: Iterator[Read]) -> Iterator[list[Read]]:
        """Smaller ones where photos are kept to be drawn, and large."""
        batch, held = [], 0
        for item in read:
            batch.append(item)
            held += 0 if item.image is None else math.prod(item.size)
            del item
            if len(batch) == self._predictor.plan.batch_size or held >= AHEAD_PIXELS:
                yield batch
                batch, held = [], 0
        if batch:
            yield batch

    def _unpack(self, batch: list[Read], ahead) -> Iterator[_Predicted]:
        outputs = ahead.result()
        for i, item in enumerate(batch):
            probs = {name: values[i] for name, values in outputs.items()}
            finish = functools.partial(
                self._predictor.finish, probs, item.size, self._dtype
            )
            yield _predicted(item, finish)

    def _write_in_turn(self, item: _Predicted) -> int:
        with self._wait_for_turn(math.prod(item.size)):
            return self._write(item)

    def _write(self, item: _Predicted) -> int:
        """Writes all files of a photo, then its line of the journal; its pixels."""
        store, photo, result = self._store, item.photo, item.finish()
        classes, pieces = result.classes, []
        if result.tiles is not None:
            pieces = [result.tiles.to_json()]
        if self._has_masks:
            levels = measuring.decided_levels(result.probabilities)
            found = measuring.measure_classes(result.mask, levels, classes)
            pieces = [one.to_json() for one in found]
            path = store.path("masks", photo.name, ".png")
            store.write(path, lambda p: pictures.save_mask(p, result.mask, classes))
        if self._wanted.probabilities:
            for i in self._probability_ids():
                path = store.path(f"probabilities/{i}", photo.name, ".png")
                levels = result.probabilities[..., i if len(classes) > 2 else 0]
                store.write(path, lambda p, v=levels: pictures.save_probabilities(p, v))
        if self._wanted.overlays:
            path = store.path("overlays", photo.name, ".jpg")
            store.write(
                path,
                lambda p: pictures.save_overlay(p, item.image, result, photo.source),
            )
        row = table.describe(photo, item.size, result)
        store.finish(photo, item.stamp, row, pieces)
        return math.prod(item.size)

    def _probability_ids(self) -> range:
        """Classes with a probability of their own: all but the background."""
        return range(1, len(self._predictor.classes))

    def _warn_of_scale(self, item: Read) -> None:
        """Says once that images are shrunk far more than those of the training."""
        known = self._predictor.trained.preprocessing.source_size
        sides = zip(item.size, known, strict=True)
        factor = max(side / other for side, other in sides)
        if not self._has_warned and factor > MUCH_LARGER:
            self._has_warned = True
            height, width = item.size
            console.print(
                f"WARNING: {item.photo.source} has {height} x {width} pixels, the "
                f"images of the training about {known[0]:g} x {known[1]:g}; it is "
                "shrunk that much more, and fine cracks vanish. With --tile it keeps "
                "the scale of the training",
                markup=False,
            )


def _predicted(item: Read, finish: Callable[[], Result]) -> _Predicted:
    """Without the pixels that the network had."""
    return _Predicted(item.photo, item.stamp, item.size, item.image, finish)


def _same(result: Result) -> Result:
    return result


def _pixels_of(photo: Photo) -> int:
    return count_pixels(photo.path)


def _refuse_wishes(predictor: Predictor, wanted: Wanted) -> None:
    for option, is_wanted in (
        ("--probabilities", wanted.probabilities),
        ("--format", wanted.annotations),
    ):
        if is_wanted and "seg_logits" not in predictor.trained.task.needs:
            raise InputError(
                f"a network with masks for {option}",
                f"a {predictor.trained.network.name}, which classifies whole images; "
                "results.csv has its probabilities",
                f"leave out {option}",
            )


def _identity(predictor: Predictor, photo: Photo) -> dict[str, Any]:
    """What results depend on, and what their names are relative to."""
    plan = dataclasses.asdict(predictor.plan)
    del plan["batch_size"]
    root = os.fspath(photo.path).removesuffix(photo.source)
    digest = predictor.trained.digest
    return {"model": digest, "images": root, "precision": predictor.precision, **plan}


def refuse_broken(skipped: list[tuple[str, str]], total_path: Path) -> None:
    """Raises InputError naming the images that could not be read, if any."""
    if skipped:
        listed = [f"{source} {reason}" for source, reason in skipped]
        raise InputError(
            "readable images and folders; all others are predicted",
            f"{len(skipped)} that are not: {shorten(listed)}",
            f"mend them (they stand in {total_path / 'skipped.csv'}) and run the same "
            "command again, or --on-corrupt skip",
        )
