"""SDNET2018: 56,092 crops of bridge decks, pavements and walls, cracked or not.

Layout: six folders `D/CD D/UD P/CP P/UP W/CW W/UW` of 256x256 JPEG files named
`<photo>-<crop>.jpg`; any of the three surfaces may be missing. Unpacked copies nest
the folder as SDNET2018/SDNET2018; both levels are accepted.
"""

from pathlib import Path

from jaxseg.datasets import listing
from jaxseg.datasets.record import Listing, Record
from jaxseg.errors import InputError

CITATION = (
    "S. Dorafshan, R. J. Thomas, M. Maguire, SDNET2018: An annotated image dataset for"
    " non-contact concrete crack detection using deep convolutional neural networks,"
    " Data in Brief 21 (2018), https://doi.org/10.1016/j.dib.2018.11.015"
)
LICENCE = "CC BY 4.0"

SURFACES = ("D", "P", "W")
CONTRADICTORY = (
    ("D/CD/7039-112", "D/UD/7039-112_2"),
    ("W/CW/7074-105", "W/UW/7074-105_2"),
)
"""Byte-identical files that are labelled cracked and uncracked at once."""


def scan(root: Path) -> Listing:
    """Lists the crops; label 1 is cracked, group is surface and photo: 'W/7000'.

    Raises:
      InputError: no surface folder, or a surface without one of its two classes.
    """
    listing.require_folder(root)
    top = root
    while not _has_surface(top) and (top / "SDNET2018").is_dir():
        top = top / "SDNET2018"
    if not _has_surface(top):
        expected = "SDNET2018's folders D/CD, D/UD, P/CP, P/UP, W/CW, W/UW (or some)"
        raise listing.wrong_layout(root, expected, _has_surface)
    records = [
        record
        for surface in SURFACES
        if (top / surface).is_dir()
        for label, letter in enumerate("UC")
        for record in _scan_folder(top, surface, f"{letter}{surface}", label)
    ]
    present = {record.id for record in records}
    dropped = {
        name for pair in CONTRADICTORY if present.issuperset(pair) for name in pair
    }
    note = (
        f"Left out, labelled both cracked and uncracked: {', '.join(sorted(dropped))}."
    )
    kept = (record for record in records if record.id not in dropped)
    return Listing(
        records=tuple(sorted(kept, key=lambda record: record.id)),
        classes=("uncracked", "cracked"),
        notes=((note,) if dropped else ()) + listing.note_ignored(top),
        citation=CITATION,
        licence=LICENCE,
    )


def _has_surface(folder: Path) -> bool:
    return any((folder / s / f"{c}{s}").is_dir() for s in SURFACES for c in "CU")


def _scan_folder(top: Path, surface: str, name: str, label: int) -> list[Record]:
    """The records of one of the six folders."""
    folder = top / surface / name
    images = listing.by_id(listing.list_images(folder), top)
    if not images:
        raise InputError(
            f"cracked (C{surface}) and uncracked (U{surface}) images in '{surface}'",
            f"no image in '{folder}'",
            f"unpack SDNET2018 again, or go on without: mv '{top / surface}' ..",
        )
    return [
        Record(
            id=image_id,
            image=path,
            mask=None,
            label=label,
            group=f"{surface}/{listing.stem(path.name).split('-')[0]}",
            source=surface,
        )
        for image_id, path in images.items()
    ]
