"""The collection crack_segmentation: 11,298 pairs of image and mask from twelve sets.

Layout: `train/{images,masks}` and `test/{images,masks}`, JPEG files of 448x448, the
mask named like its image; a name may end in '.jpg.jpg'. Masks are JPEG files too, with
grey values around the edges. Names start with the set they come from.

Or, as it was sorted for SegDecNet: `train_positive`, `train_negative`, `test_positive`,
`test_negative` and maybe `val_...`, each with `NAME.jpg` and `NAME_GT.jpg` (or .png).
The folder is the label. Names are mostly numbers, which tell no photograph.

Many images are crops of one photograph, and the given split ignores that. The group is
the photograph where the name tells it:

    name                                     group                     known from
    CRACK500_20160222_081011_1281_721        CRACK500_20160222_081011  crop corner x, y
    GAPS384_train_0552_1_641                 GAPS384_train_0552        crop corner x, y
    Rissbilder_for_Florian_9S6A2886_1_2_3_4  ..._9S6A2886              4 crop numbers
    Volker_DSC01692_316_1370_932_1128        Volker_DSC01692           4 crop numbers
    noncrack_noncrack_concrete_wall_20_71    ..._concrete_wall_20      crop number
    Eugen_Muller_..., Nohra_Muller_...       without 4 crop numbers    inferred
    DeepCrack_11231-3                        DeepCrack_11231           inferred
    forest_013, CFD_013                      CFD_013                   inferred: both
                                             are CrackForest
    cracktree200_6774, Sylvie_Chambon_319    the name itself           no crops
    any other NAME_<n>_<m>                   NAME_<n>                  inferred
    any other name                           the name itself           nothing known
"""

import dataclasses
import re
from pathlib import Path

from jaxseg.datasets import folder_segmentation, listing
from jaxseg.datasets.record import Listing, Record

CITATION = "https://github.com/khanhha/crack_segmentation and the sets collected there"

SOURCES = (
    "Eugen_Muller",
    "Nohra_Muller",
    "Rissbilder_for_Florian",
    "Sylvie_Chambon",
)
"""Sets whose name has an underscore; the others end at the first one."""

PHOTOS = (
    r"(CRACK500_\d{8}_\d{6})_\d+_\d+",
    r"(GAPS384_\w+_\d+)_\d+_\d+",
    r"((?:Rissbilder_for_Florian|Volker|Eugen_Muller|Nohra_Muller)_.+)(?:_\d+){4}",
    r"(DeepCrack_.+)-\d+",
    r"(.+_\d+)_\d+",
)
"""Names of crops; the first group is the photograph. The first that fits counts."""


LABELS = {"negative": 0, "positive": 1}
SUFFIX = "_GT"


def scan(root: Path) -> Listing:
    """Lists the pairs with the split of the folders; source is the original set.

    Raises:
      InputError: the folders are missing, or images and masks do not pair.
    """
    listing.require_folder(root)
    if _is_sorted(root):
        return _scan_sorted(root)
    if not _fits(root):
        expected = "the folders train/images, train/masks, test/images, test/masks, or "
        expected += ", ".join(f"{s}_{n}" for s in ("train", "test") for n in LABELS)
        raise listing.wrong_layout(root, expected, _fits)
    found = folder_segmentation.scan(
        root,
        image_dir="images",
        mask_dir="masks",
        mask_suffix="",
        foreground="bright",
        classes=("background", "crack"),
        classes_file="",
        group_pattern="",
    )
    return dataclasses.replace(
        found,
        records=tuple(_name_origin(record) for record in found.records),
        citation=CITATION,
    )


def find_photo(name: str) -> str:
    """The photograph that an image was cut from.

    >>> find_photo("CRACK500_20160222_081011_1281_721")
    'CRACK500_20160222_081011'
    """
    name = re.sub(r"^forest_", "CFD_", name)
    matches = (re.fullmatch(pattern, name) for pattern in PHOTOS)
    return next((match[1] for match in matches if match), name)


def _fits(folder: Path) -> bool:
    parts = ("train", "test")
    return _is_sorted(folder) or all((folder / p / "images").is_dir() for p in parts)


def _is_sorted(folder: Path) -> bool:
    return all(
        (folder / f"{s}_{n}").is_dir() for s in ("train", "test") for n in LABELS
    )


def _scan_sorted(root: Path) -> Listing:
    """The second layout: a folder for each part and label."""
    images, masks, places = {}, {}, {}
    for split in listing.SPLITS:
        for name, label in LABELS.items():
            folder = root / f"{split}_{name}"
            found = listing.split_masks(folder, SUFFIX, f"{folder.name}/")
            images, masks = images | found[0], masks | found[1]
            places |= dict.fromkeys(found[0], (label, split))
    listing.refuse_bare(images, masks, "NAME_GT.jpg or NAME_GT.png beside it")
    listing.refuse_orphans(images, masks)
    records = (
        Record(key, images[key], masks[key], label, group=key, split=split)
        for key, (label, split) in sorted(places.items())
    )
    return Listing(
        # A number is no name of a set or a photograph.
        tuple(
            _name_origin(record) if re.search(r"/[A-Za-z]\w*_", record.id) else record
            for record in records
        ),
        ("background", "crack"),
        citation=CITATION,
    )


def _name_origin(record: Record) -> Record:
    name = record.id.rsplit("/", 1)[-1]
    longer = (source for source in SOURCES if name.startswith(source + "_"))
    source = next(longer, name.split("_")[0])
    return dataclasses.replace(record, group=find_photo(name), source=source)
