"""Sentences on what a check found: oddities of files, copies, what was set aside."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from jaxseg.data.images import ImageFacts
from jaxseg.errors import shorten

_IMAGE_NOTES = {
    "16-bit": "are 16-bit: scaled to 8 bit by /257 (colour: upper byte)",
    "palette": "have a palette: expanded to colours",
    "alpha": "have transparency: the alpha channel is dropped",
    "grey": "are grey: repeated where three channels are asked for",
    "CMYK": "are CMYK: converted to RGB",
    "EXIF-rotated": "are turned upright by their EXIF orientation",
    "several frames": "have several frames: the first is used",
}
_MASK_NOTES = {
    "16-bit": "are 16-bit: values are kept, or divided by 257 where they are 0..65535",
    "palette": "have a palette: its indices are the values, its colours are not used",
    "palette: 0 is not black": "have a palette where 0 is not black: it is 0 still",
    "alpha": "have transparency: the alpha channel is dropped",
    "EXIF-rotated": "are turned upright by their EXIF orientation",
    "several frames": "have several frames: the first is used",
}


def of_images(facts: Sequence[ImageFacts]) -> list[str]:
    """How odd images are handled."""
    return _file_notes(facts, "images", _IMAGE_NOTES) + _note_dark(facts)


def of_masks(facts: Sequence[ImageFacts]) -> list[str]:
    """How odd masks are handled."""
    return _file_notes(facts, "masks", _MASK_NOTES)


def of_labels(records: Sequence, contrary: Sequence[str]) -> list[str]:
    """Copies, copies with unequal labels, lookalikes, and what was set aside."""
    same = defaultdict(list)
    for item in records:
        same[item.image_sha256].append(item)
    copies = [item.record.id for group in same.values() for item in group[1:]]
    unequal = [
        " = ".join(f"{item.record.id} ({item.label})" for item in group)
        for group in same.values()
        if len({item.label for item in group}) > 1
    ]
    alike = [
        f"{item.record.id} like {item.looks_like}"
        for item in records
        if item.looks_like and item.record.id not in copies
    ]
    found = {
        "images are byte-identical copies of others": copies,
        "groups of byte-identical images have contradictory labels": unequal,
        "images like another one (saved again, or another exposure)": alike,
        "images are left out, their masks contradict the label": contrary,
    }
    return [f"{len(n)} {text}: {shorten(n)}" for text, n in found.items() if n]


def of_broken(names: Sequence[str]) -> list[str]:
    """Images that cannot be opened, where they may be left out."""
    if not names:
        return []
    return [
        f"WARNING: {len(names)} images are left out, they or their masks cannot be "
        f"opened (data.on_corrupt=skip): {shorten(names)}"
    ]


def of_blank(blank: Sequence[tuple[str, str]], limit: float) -> list[str]:
    """Images of which most is pure white."""
    if not blank:
        return []
    names = shorten(name for name, _ in blank)
    return [
        f"{len(blank)} images with over {100 * limit:g} % of pure white pixels are "
        f"left out (data.max_blank): {names}"
    ]


def _note_dark(facts: Sequence[ImageFacts]) -> list[str]:
    """Values of cameras of 10, 12 or 14 bits, stored as they are in 16."""
    largest = max((fact.largest for fact in facts), default=0)
    if not 0 < largest < 2**14:
        return []
    factor = 2**16 >> largest.bit_length()
    return [
        f"WARNING: no value of the 16-bit images is over {largest}, of 65535, so they "
        f"become nearly black: multiply their values by {factor}"
    ]


def _file_notes(
    facts: Sequence[ImageFacts], what: str, sentences: dict[str, str]
) -> list[str]:
    found = Counter(note for fact in facts for note in fact.notes)
    return [
        f"{found[note]} of {len(facts)} {what} {sentence}"
        for note, sentence in sentences.items()
        if found[note]
    ]
