"""The files of one record, opened once."""

import dataclasses
import hashlib

import numpy as np

from jaxseg.data import images, lookalikes
from jaxseg.data.encoding import ValueCounts, count_values
from jaxseg.data.images import ImageFacts, UnreadableImage
from jaxseg.datasets.record import Listing, Record


@dataclasses.dataclass(frozen=True)
class Opened:
    """What the files of a record hold, or why they cannot be read.

    Attributes:
      problem: '' where they can.
      blank: share of pure white pixels; 0 where nobody asks.
      mask_facts, tally: of the mask; None without one.
    """

    record: Record
    problem: str = ""
    image_sha256: str = ""
    mask_sha256: str = ""
    facts: ImageFacts | None = None
    thumbnail: np.ndarray | None = None
    blank: float = 0.0
    mask_facts: ImageFacts | None = None
    tally: ValueCounts | None = None


def open_record(listing: Listing, record: Record) -> Opened:
    """Reads image and mask once."""
    path = record.image
    try:
        image = path.read_bytes()
        picture, facts = images.open_picture(image)
        opened = Opened(
            record,
            image_sha256=hashlib.sha256(image).hexdigest(),
            facts=facts,
            thumbnail=lookalikes.thumbnail(picture),
        )
        if listing.max_blank < 1:
            blank = images.blank_share(image)
            opened = dataclasses.replace(opened, blank=blank)
        if record.mask is None:
            return opened
        path = record.mask
        mask = path.read_bytes()
        raw, mask_facts = images.read_mask(mask)
    except OSError as error:
        return Opened(record, f"{path} cannot be read ({error.strerror})")
    except UnreadableImage as error:
        return Opened(record, f"{path} {error}")
    return dataclasses.replace(
        opened,
        mask_sha256=hashlib.sha256(mask).hexdigest(),
        mask_facts=mask_facts,
        tally=count_values(raw),
    )
