"""Annotations of a folder of results, from the masks on the disk."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxseg.data.images import count_pixels, decode_mask
from jaxseg.predict import annotations
from jaxseg.predict.photos import Photo, in_order
from jaxseg.predict.store import Store
from jaxseg.progress import track


def write_labelme(store: Store, photos: list[Photo], classes: Sequence[str]) -> None:
    """From the masks on the disk. A file that is there may be corrected: it stays."""

    def write(photo: Photo) -> None:
        place = store.path("labelme", photo.name, ".json")
        if not place.is_file():
            mask = _read_mask(store, photo)
            store.write(
                place,
                lambda path: annotations.write_labelme(
                    path, place, photo.path, mask, classes
                ),
            )

    _for_each(write, photos)


def write_coco(store: Store, photos: list[Photo], classes: Sequence[str]) -> None:
    """From the masks on the disk, so that it costs no prediction."""

    def regions(photo: Photo):
        mask = _read_mask(store, photo)
        return photo.source, mask.shape, annotations.coco_regions(mask)

    images = _for_each(regions, photos)
    store.write(
        store.out / "coco.json",
        lambda path: annotations.write_coco(path, images, classes),
    )


def _read_mask(store: Store, photo: Photo) -> np.ndarray:
    return decode_mask(store.path("masks", photo.name, ".png").read_bytes())


def _for_each(work: Callable[[Photo], Any], photos: list[Photo]) -> list:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = in_order(pool, work, photos, lambda photo: count_pixels(photo.path))
        return list(track(done, len(photos), "Tracing outlines", quiet=True))
