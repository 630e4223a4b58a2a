"""What a dataset is: a function that lists its records.

`scan(root, *, options...) -> Listing` looks at names and folders, and at annotation
files where there are some; images are opened later, by `jaxseg.data.check`. The
keyword-only parameters of a scan function are the keys that its config may set.
"""

import dataclasses
from pathlib import Path
from typing import Literal, Protocol


class MaskFile(Protocol):
    """Anything that gives the bytes of a picture: a path, or a `Drawing`."""

    def read_bytes(self) -> bytes: ...


@dataclasses.dataclass(frozen=True)
class Record:
    """One image and what is known about it.

    Attributes:
      id: unique in the set, with '/' between folders and without extension:
        'W/CW/7000-1'.
      image: the image file.
      mask: the mask file, or what draws it; None without pixel annotation.
      label: image class; None where the content of the mask decides (1 = any
        foreground).
      group: what must not be split apart: photo, tile, structure.
      split: 'train', 'val' or 'test' where the dataset fixes it, else None.
      source: part of the set that scores are compared between, e.g. a surface; also a
        stratum of the split. '' when there is only one.
    """

    id: str
    image: Path
    mask: MaskFile | None
    label: int | None
    group: str
    split: str | None = None
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Listing:
    """The records of a dataset.

    Attributes:
      records: sorted by id; ids are unique.
      classes: name of every class by id; pixel classes where records have masks, image
        classes otherwise. ('background', 'crack') is a binary set.
      notes: what was left out or assumed, one sentence each, printed once.
      citation: whom to cite, '' for the user's own folders.
      licence: licence of the data, '' if unknown.
      mask_values: 'ids': masks hold class ids, 255 counts nowhere; 'dark': the dark
        pixels of binary masks are the foreground; 'auto': their values decide.
      max_blank: images with a larger share of pure white pixels are left out.
      skipped: (id, reason) of what the scan left out.
    """

    records: tuple[Record, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    citation: str = ""
    licence: str = ""
    mask_values: Literal["auto", "ids", "dark"] = "auto"
    max_blank: float = 1.0
    skipped: tuple[tuple[str, str], ...] = ()
