"""KolektorSDD: 399 photos of 50 plastic commutators, about 8 of each, 52 with a defect.

Layout: `kosNN/PartM.jpg` with `kosNN/PartM_label.bmp`, one folder per commutator; the
published experiments use the release whose defects are marked by boxes. There is no
published test part: folds over the commutators, `data.split='kfold'`.
"""

import re
from pathlib import Path

from jaxseg.datasets import listing
from jaxseg.datasets.record import Listing, Record

CITATION = (
    "D. Tabernik, S. Sela, J. Skvarc, D. Skocaj, Segmentation-based deep-learning"
    " approach for surface-defect detection, Journal of Intelligent Manufacturing"
    " (2019), https://doi.org/10.1007/s10845-019-01476-x"
)
SUFFIX = "_label"
SKIPPED = "kos21/Part7"
"""The published experiments leave this photo out."""


def scan(root: Path) -> Listing:
    """Lists the photos; the mask decides the label, group is the commutator: 'kos01'.

    Raises:
      InputError: no folder kosNN with images, or photos and masks that do not pair.
    """
    listing.require_folder(root)
    if not _fits(root):
        expected = "the folders kos01, kos02, ... with PartN.jpg and PartN_label.bmp"
        raise listing.wrong_layout(root, expected, _fits)
    images, masks = {}, {}
    for folder in _items(root):
        found = listing.split_masks(folder, SUFFIX, f"{folder.name}/")
        images, masks = images | found[0], masks | found[1]
    is_there = images.pop(SKIPPED, None) is not None
    masks.pop(SKIPPED, None)
    listing.refuse_bare(images, masks, "PartN_label.bmp beside it")
    listing.refuse_orphans(images, masks)
    note = f"{SKIPPED} is left out, as in the published experiments"
    return Listing(
        records=tuple(
            Record(key, images[key], masks[key], None, group=key.split("/")[0])
            for key in sorted(images)
        ),
        classes=("background", "defect"),
        notes=(note,) if is_there else (),
        citation=CITATION,
        licence="CC BY-NC-SA 4.0",
        skipped=((SKIPPED, note),) if is_there else (),
    )


def _items(root: Path) -> list[Path]:
    folders = listing.list_folders(root)
    return [path for path in folders if re.fullmatch(r"kos\d+", path.name)]


def _fits(folder: Path) -> bool:
    return any(listing.list_images(item) for item in _items(folder))
