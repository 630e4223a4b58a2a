"""Decides how the values of all masks together become class ids.

What was decided is said in a note; what leaves a doubt is refused with the option that
settles it, ready to copy.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from jaxseg.data import mask_values
from jaxseg.data.mask_values import MaskEncoding
from jaxseg.errors import InputError, shorten
from jaxseg.types import IGNORE

MAX_COLOURS = 64  # a mask with more of them is a photo or was compressed as JPEG
_MAX_NAMED = 64  # more class names than this make no line that anybody copies


@dataclasses.dataclass(frozen=True)
class ValueCounts:
    """The distinct values of one mask.

    Attributes:
      values: [n] or, of a coloured mask, [n, 3] uint8.
      counts: [n] int64, pixels of each.
      complete: False where only the `MAX_COLOURS` commonest colours are kept.
    """

    values: np.ndarray
    counts: np.ndarray
    complete: bool

    @property
    def colours(self) -> np.ndarray:
        """[n] int32, as `pack_colours` gives them."""
        return mask_values.pack_colours(self.values[None])[0]

    def class_counts(self, encoding: MaskEncoding, num_classes: int) -> np.ndarray:
        """[num_classes + 1] pixels of each class; the last counts ignored ones."""
        ids = mask_values.encode_mask(self.values[None], encoding)[0]
        ids = np.minimum(ids, num_classes)
        counts = np.bincount(ids, self.counts, num_classes + 1)
        return counts.astype(np.int64)


def count_values(raw: np.ndarray) -> ValueCounts:
    """How often each value of a mask from `decode_mask` occurs."""
    if raw.ndim == 2:
        counts = np.bincount(raw.ravel(), minlength=256)
        values = np.flatnonzero(counts)
        return ValueCounts(values.astype(np.uint8), counts[values], complete=True)
    packed, counts = np.unique(mask_values.pack_colours(raw), return_counts=True)
    kept = np.sort(np.argsort(-counts, kind="stable")[:MAX_COLOURS])
    values = np.stack([packed[kept] >> shift & 255 for shift in (16, 8, 0)], axis=-1)
    complete = len(packed) <= MAX_COLOURS
    return ValueCounts(values.astype(np.uint8), counts[kept], complete)


def decide_encoding(
    tallies: Mapping[str, ValueCounts],
    classes: tuple[str, ...],
    palette: tuple[str, ...],
    mask_values: str = "auto",
) -> tuple[MaskEncoding, str]:
    """The one encoding that fits every mask, and a sentence that says which it is.

    Args:
      tallies: the values of each mask, by the id of its record.
      classes: name of every class by id.
      palette: '#rrggbb' of every class for colour-coded masks, more colours count
        nowhere; else ().
      mask_values: of the listing: 'auto', 'ids' or 'dark'.

    Raises:
      InputError: masks with many colours, with colours that no palette explains, or
        with values beyond the classes; some of 0 and 1 and others of 0 and 255; dark
        foreground in masks that are not binary.
    """
    if mask_values == "dark" and (palette or len(classes) != 2):
        raise _no_dark(classes, palette)
    pixels = Counter()
    for tally in tallies.values():
        colours = tally.colours.tolist()
        pixels.update(dict(zip(colours, tally.counts.tolist(), strict=True)))
    coloured = [name for name, tally in tallies.items() if tally.values.ndim == 2]
    photos = [name for name, tally in tallies.items() if not tally.complete]
    if photos:
        raise InputError(
            expected="masks with a few flat colours or grey values",
            found=f"{len(photos)} masks with over 64 colours: {shorten(photos)}",
            fix="see that the masks are not photos, and save them as PNG, not as JPEG",
        )
    if palette:
        return _palette_encoding(pixels, classes, palette)
    if coloured:
        raise InputError(
            expected="masks of class ids or of 0 and 255, or the colour of every class",
            found=f"{len(coloured)} colour-coded masks ({shorten(coloured)}): "
            f"{_shares(pixels)}",
            fix=f"{_palette_line(_names(pixels), classes)}  in the order of "
            "data.classes",
        )
    values = Counter({c & 255: n for c, n in pixels.items()})
    if mask_values == "ids":
        return _id_encoding(values, classes)
    encoding, note = _grey_encoding(values, classes)
    if encoding.kind == "ids" and len(classes) == 2:
        _refuse_two_encodings(tallies, dark=mask_values == "dark")
    if mask_values == "dark":
        note = f"{note}, and data.foreground='dark' swaps the classes 0 and 1"
        encoding = dataclasses.replace(encoding, dark=True)
    return encoding, note


def note_classes(
    tallies: Sequence[ValueCounts], encoding: MaskEncoding, classes: tuple[str, ...]
) -> list[str]:
    """What the encoded masks lack, one sentence each.

    Raises:
      InputError: no mask has a foreground pixel.
    """
    counts = [tally.class_counts(encoding, len(classes)) for tally in tallies]
    total = np.sum(counts, axis=0)[: len(classes)]
    present = total > 0
    if not present[1:].any():
        values = sorted({int(v) for tally in tallies for v in tally.values.flat})
        raise InputError(
            expected="at least one mask with a foreground pixel",
            found=f"no mask has a foreground pixel: {len(tallies)} masks, values "
            f"{shorten(values)}" + " (255 counts nowhere)" * (IGNORE in values),
            fix=_classes_line(("background", "crack"), 2)
            if IGNORE in values
            else "see that the mask folder is the right one and its masks are drawn",
        )
    notes = [
        f"no mask holds class {index} ({classes[index]})"
        for index in np.flatnonzero(~present)
    ]
    if len(classes) == 2 and encoding.kind != "palette" and total[1] > total[0]:
        other = "bright" if encoding.dark else "dark"
        notes.append(
            f"WARNING: {100 * total[1] / total.sum():.0f} % of the mask pixels are "
            f"{classes[1]}; if it is the {other} pixels that mark it: "
            f"--config.data.foreground={other}"
        )
    empty = sum(not count[1:-1].any() for count in counts)
    if empty:
        notes.append(f"{empty} of {len(tallies)} masks are all background")
    return notes


def _no_dark(classes: tuple[str, ...], palette: tuple[str, ...]) -> InputError:
    return InputError(
        expected="binary grey masks for data.foreground='dark'",
        found=f"data.palette={palette}"
        if palette
        else f"{len(classes)} classes: {shorten(classes)}",
        fix="--config.data.foreground=bright",
    )


def _refuse_two_encodings(tallies: Mapping[str, ValueCounts], *, dark: bool) -> None:
    """Masks of 0 and 1 and masks of 0 and 255: is 255 a defect, or does it not count?

    No question where a mask holds both 1 and 255.
    """
    held = {name: {*t.values.tolist()} & {1, IGNORE} for name, t in tallies.items()}
    with_1, with_255 = (
        [name for name, values in held.items() if values == {value}]
        for value in (1, IGNORE)
    )
    if not with_1 or not with_255 or {1, IGNORE} in held.values():
        return
    # A palette says which grey is which class, and lets the last one count nowhere.
    order = ("#010101", "#000000") if dark else ("#000000", "#010101")
    line = f'--config.data.palette="{(*order, "#ffffff")}"'
    raise InputError(
        expected="masks of one encoding: 0 and 1, or 0 and 255",
        found=f"{len(with_1)} masks hold 1 ({shorten(with_1, 3)}), {len(with_255)} "
        f"others 255 ({shorten(with_255, 3)}), and none both",
        fix="save them all alike, as 8-bit PNG of 0 and 255; or, where pixels of 255 "
        f"are to count nowhere: {line}" + " --config.data.foreground=bright" * dark,
    )


def _palette_encoding(
    pixels: Counter, classes: tuple[str, ...], palette: tuple[str, ...]
) -> tuple[MaskEncoding, str]:
    palette = tuple(colour.lower() for colour in palette)
    valid = all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in palette)
    if not valid or len({*palette}) != len(palette) or len(palette) < len(classes):
        raise InputError(
            expected=f"data.palette with one colour '#rrggbb' for each of the "
            f"{len(classes)} classes {shorten(classes)}, then those to ignore",
            found=f"{palette}",
            fix=_palette_line(_names(pixels), classes),
        )
    unknown = Counter(
        {c: n for c, n in pixels.items() if mask_values.colour_name(c) not in palette}
    )
    if unknown:
        ids = {index * 0x010101 for index in range(len(classes))}
        raise InputError(
            expected=f"only the colours of data.palette in masks: {', '.join(palette)}",
            found=f"{_shares(unknown, pixels.total())}",
            fix='--config.data.palette="()"  (the masks hold class ids, not colours)'
            if pixels.keys() <= ids
            else _palette_line(palette + _names(unknown), classes),
        )
    palette, ignored = palette[: len(classes)], palette[len(classes) :]
    pairs = [*zip(palette, classes, strict=True), *((c, "ignored") for c in ignored)]
    meaning = ", ".join(f"{colour} is {name}" for colour, name in pairs)
    return (
        MaskEncoding("palette", palette, ignored),
        f"masks are colour-coded: {meaning}",
    )


def _id_encoding(pixels: Counter, classes: tuple[str, ...]) -> tuple[MaskEncoding, str]:
    """For sets whose masks hold class ids and nothing else."""
    if not {*pixels} <= {*range(len(classes)), IGNORE}:
        raise _values_beyond_classes(pixels, classes)
    listed = ", ".join(str(value) for value in sorted(pixels))
    share = 100 * pixels[IGNORE] / pixels.total()
    ignored = f": {IGNORE} counts nowhere ({share:.2g} %)" * (IGNORE in pixels)
    return MaskEncoding("ids"), f"masks hold class ids {listed}{ignored}"


def _grey_encoding(
    pixels: Counter, classes: tuple[str, ...]
) -> tuple[MaskEncoding, str]:
    values, ids = {*pixels}, {*range(len(classes))}
    listed = ", ".join(str(value) for value in sorted(values))
    if values <= ids:
        return _id_encoding(pixels, classes)
    if len(classes) == 2 and values <= {0, 255}:
        note = f"masks hold {{{listed}}}: 255 is class 1 ({classes[1]})"
        return MaskEncoding("binary"), note
    if values <= ids | {IGNORE}:
        return _id_encoding(pixels, classes)
    plain = values - {IGNORE}
    # 0, 1, 2, ... without a gap are ids of more classes; grey edges leave gaps, or go
    # on up to white.
    look_like_ids = plain == {*range(len(plain))} and len(plain) < 250
    if len(classes) > 2 or max(values) <= 127 or look_like_ids:
        raise _values_beyond_classes(pixels, classes)
    meaning = f"values over 127 are class 1 ({classes[1]})"
    if len(values) <= 4:
        return MaskEncoding("threshold"), f"masks hold {{{listed}}}: {meaning}"
    between = sum(pixels[value] for value in range(32, 224)) / pixels.total()
    if between > 0.5:
        raise InputError(
            expected="masks that are mostly black and white",
            found=f"{len(values)} grey values, {100 * between:.0f} % of the pixels in "
            "32..223: these look like photos",
            fix="see that images and masks are not swapped, or threshold the masks",
        )
    kind = "masks are anti-aliased or JPEG-compressed"
    share = f"{100 * between:.2g} % of the pixels in 32..223"
    return MaskEncoding("threshold"), f"{kind} ({share}): {meaning}"


def _values_beyond_classes(pixels: Counter, classes: tuple[str, ...]) -> InputError:
    plain = sorted({*pixels} - {IGNORE})
    colours = Counter({value * 0x010101: count for value, count in pixels.items()})
    # Ids of a class list are mostly in use; {0, 100} are two grey levels instead.
    if plain[-1] < min(_MAX_NAMED, 2 * len(plain)):
        fix = _classes_line(classes, plain[-1] + 1)
    elif len(pixels) <= _MAX_NAMED:
        fix = f"{_palette_line(_names(colours), classes)}  in the order of data.classes"
    else:
        fix = f"rewrite the masks with the values 0..{len(classes) - 1}"
    return InputError(
        expected=f"mask values 0..{len(classes) - 1} for {shorten(classes)}"
        + (", or 0 and 255" if len(classes) == 2 else ", and 255 for no class"),
        found=f"values {shorten(sorted(pixels), 20)}",
        fix=fix,
    )


def _shares(pixels: Counter, total: int = 0) -> str:
    """'#000000 93.1 %, #ff0000 6.9 %', largest first."""
    total = total or pixels.total()
    texts = [
        f"{mask_values.colour_name(colour)} {100 * count / total:.1f} %"
        for colour, count in pixels.most_common()
    ]
    return shorten(texts, limit=12)


def _names(pixels: Counter) -> tuple[str, ...]:
    commonest = pixels.most_common(_MAX_NAMED)
    return tuple(mask_values.colour_name(colour) for colour, _ in commonest)


def _palette_line(colours: tuple[str, ...], classes: tuple[str, ...]) -> str:
    """The option for these colours; and the classes if their number differs."""
    line = f'--config.data.palette="{colours}"'
    if len(colours) == len(classes):
        return line
    return f"{line} {_classes_line(classes, len(colours))}"


def _classes_line(classes: tuple[str, ...], count: int) -> str:
    more = tuple(f"class_{index}" for index in range(len(classes), count))
    return f'--config.data.classes="{(classes + more)[:count]}"'
