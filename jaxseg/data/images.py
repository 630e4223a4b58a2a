"""Opens images and masks: bytes in, arrays out, by Pillow alone.

Arrays are [height, width] or [height, width, channels] uint8 and may be read-only. The
EXIF orientation is applied to images and masks alike, so a pair stays aligned. Bytes
that are no picture raise `UnreadableImage`; callers know the file and name it.

Differs from what most loaders do: 16-bit grey is scaled to 8 bit (Pillow's own
conversion clips it to white), and a mask with a palette gives its indices, not colours.
"""

import dataclasses
import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from jaxseg.errors import InputError, shorten
from jaxseg.types import IGNORE

# The formats tried, commonest first. Pillow's full list would start Ghostscript on EPS.
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG2000")
_ORIENTATION = 0x0112
# https://exiftool.org/TagNames/EXIF.html, Orientation: how to turn the stored rows.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UNKNOWN = 254  # marks a value that the encoding does not have
_TABLES = {
    "binary": np.array([0, *[_UNKNOWN] * 254, 1], np.uint8),
    "threshold": np.array([0] * 128 + [1] * 128, np.uint8),
}
_SWAPPED = np.array([1, 0, *range(2, 256)], np.uint8)
STRIP_PIXELS = 2**24  # of a large picture that become an array at a time


class UnreadableImage(Exception):
    """These bytes are not a picture; the text says why, without naming the file."""


class TooLarge(UnreadableImage):
    """More pixels than `allow_pixels` allows: it could be made to fill the memory."""


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What a file holds.

    Attributes:
      size: (height, width), after the EXIF rotation.
      mode: Pillow's name of the stored pixels, e.g. 'RGB', 'L', 'I;16'.
      notes: oddities: '16-bit', 'palette', 'palette: 0 is not black', 'alpha', 'grey',
        'CMYK', 'EXIF-rotated', 'several frames'.
    """

    size: tuple[int, int]
    mode: str
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class MaskEncoding:
    """How the values of a mask file become class ids.

    Attributes:
      kind: 'ids': the value is the id, 255 is `IGNORE`; 'binary': 0 and 255 are 0 and
        1; 'threshold': over 127 is 1; 'palette': each colour is a class.
      palette: '#rrggbb' by class id, of kind 'palette' only; grey v is (v, v, v).
      ignored: colours that count nowhere, of kind 'palette' only.
      dark: class ids 0 and 1 change places, so that dark pixels are the foreground.
    """

    kind: Literal["ids", "binary", "threshold", "palette"]
    palette: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    dark: bool = False


def allow_pixels(count: int) -> None:
    """Sets, for this process, how many pixels an image may have.

    Pillow warns at half of it, which says nothing to a user who has set it.
    """
    Image.MAX_IMAGE_PIXELS = count / 2
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def count_pixels(path: Path) -> int:
    """Height times width, from the header; 0 where it cannot be told.

    `decode_image` says what is wrong with such a file.
    """
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            return picture.width * picture.height
    except Exception:  # Pillow's readers raise any type on damaged bytes
        return 0


def open_picture(data: bytes) -> tuple[Image.Image, ImageFacts]:
    """The picture, upright, decoded to its last pixel so that a cut file is found.

    Raises:
      UnreadableImage: no picture, or a damaged one.
    """
    if not data:
        raise UnreadableImage("is empty (0 bytes)")
    try:
        picture = Image.open(io.BytesIO(data), formats=_FORMATS)
        stored = str(picture.tile)
        picture.load()
    except UnidentifiedImageError:
        raise UnreadableImage("is not an image of a known format") from None
    except Image.DecompressionBombError:
        limit = int(2 * Image.MAX_IMAGE_PIXELS)
        raise TooLarge(f"has over {limit:,} pixels: cut it into tiles") from None
    except Exception as error:  # Pillow's readers raise any type on damaged bytes
        raise UnreadableImage(f"is cut short or damaged ({error})") from None
    _refuse_other_depths(picture)
    turn = _TURNS.get(_orientation(picture))
    notes = _notes(picture, stored, turned=turn is not None)
    if turn is not None:
        picture = picture.transpose(turn)
    return picture, ImageFacts(picture.size[::-1], picture.mode, notes)


def decode_image(data: bytes, channels: int) -> np.ndarray:
    """Pixels of a picture, upright.

    Palettes are expanded, CMYK becomes RGB, alpha is dropped (not blended), grey is
    repeated for three channels and colour becomes luma (ITU-R 601) for one. 16-bit grey
    v in 0..65535 becomes round(v / 257); of 16-bit colour Pillow keeps the upper byte.

    Args:
      data: the bytes of the file.
      channels: 1 or 3.

    Returns:
      [h, w, channels] uint8.

    Raises:
      UnreadableImage: no picture, or a damaged one.
    """
    picture, _ = open_picture(data)
    (width, height), rows = picture.size, max(STRIP_PIXELS // picture.width, 1)
    pixels = np.empty((height, width, channels), np.uint8)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = _pixels(strip, channels)
    return pixels


def _pixels(picture: Image.Image, channels: int) -> np.ndarray:
    if picture.mode.startswith("I"):
        values = (np.asarray(picture).astype(np.int32) + 128) // 257
        return np.repeat(values.astype(np.uint8)[..., None], channels, axis=-1)
    if picture.mode in ("P", "PA"):
        # Pillow warns when a palette with transparency becomes RGB directly.
        picture = picture.convert("RGBA")
    pixels = np.asarray(picture.convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], channels)


def blank_share(data: bytes) -> float:
    """Share of the pixels of a picture that are pure white, in [0, 1]."""
    return float((decode_image(data, channels=3) == 255).all(axis=-1).mean())


def decode_mask(data: bytes) -> np.ndarray:
    """Stored values of a mask, upright; see `read_mask`."""
    return read_mask(data)[0]


def read_mask(data: bytes) -> tuple[np.ndarray, ImageFacts]:
    """Stored values of a mask, and what the file holds, from one decoding.

    A palette gives indices, 1-bit gives 0 and 1, alpha is dropped, and colour with
    equal channels gives one channel. 16-bit values below 256 stay; multiples of 257
    (8-bit values stretched to 16 bit) are divided by 257.

    Returns:
      [h, w] uint8, or [h, w, 3] uint8 if coloured; the facts.

    Raises:
      UnreadableImage: no picture, a damaged one, or values that are no class ids.
    """
    picture, facts = open_picture(data)
    if picture.mode.startswith("I"):
        return _narrow(np.asarray(picture).astype(np.int32)), facts
    if "16-bit" in facts.notes:
        raise UnreadableImage("is 16-bit colour, which Pillow reads as 8-bit only")
    if picture.mode in ("1", "L", "P"):
        return np.asarray(picture, np.uint8), facts
    if picture.mode in ("LA", "PA"):
        return np.asarray(picture)[..., 0], facts
    values = np.asarray(picture.convert("RGB"))
    first = values[..., 0]
    if np.array_equal(first, values[..., 1]) and np.array_equal(first, values[..., 2]):
        return first, facts
    return values, facts


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear resize; when it reduces, every source pixel counts (antialiased).

    Args:
      image: [h, w, C] uint8, C 1 or 3.
      size: (H, W) in pixels.

    Returns:
      [H, W, C] uint8; `image` itself where it fits already.
    """
    if image.shape[:2] == size:
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    pixels = np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))
    return pixels.reshape(*size, image.shape[-1])


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest-neighbour resize of [h, w] uint8 class ids, which makes no new ids.

    Returns:
      [H, W] uint8 for size (H, W); `mask` itself where it fits already.
    """
    if mask.shape == size:
        return mask
    picture = Image.fromarray(mask)
    return np.asarray(picture.resize(size[::-1], Image.Resampling.NEAREST))


def encode_mask(raw: np.ndarray, encoding: MaskEncoding) -> np.ndarray:
    """Class ids of stored mask values.

    >>> encode_mask(np.uint8([[0, 255]]), MaskEncoding("binary"))
    array([[0, 1]], dtype=uint8)

    Args:
      raw: [h, w] or [h, w, 3] uint8 from `decode_mask`.
      encoding: as decided for the whole set by `jaxseg.data.check`.

    Returns:
      [h, w] uint8 class ids, `IGNORE` where a pixel counts nowhere.

    Raises:
      InputError: a colour or value that the encoding does not have.
    """
    if encoding.kind == "palette":
        ids = _encode_colours(pack_colours(raw), encoding.palette + encoding.ignored)
        return np.where(ids < len(encoding.palette), ids, np.uint8(IGNORE))
    if raw.ndim == 3:
        raise _unknown_values("grey values", ["a colour-coded mask"])
    ids = raw if encoding.kind == "ids" else _TABLES[encoding.kind][raw]
    if encoding.kind == "binary" and (ids == _UNKNOWN).any():
        raise _unknown_values("0 and 255", np.unique(raw[ids == _UNKNOWN]))
    return _SWAPPED[ids] if encoding.dark else ids


def pack_colours(raw: np.ndarray) -> np.ndarray:
    """[h, w] int32 0xrrggbb of [h, w, 3] or, as (v, v, v), of [h, w] uint8."""
    if raw.ndim == 2:
        return raw.astype(np.int32) * 0x010101
    red, green, blue = np.moveaxis(raw.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def colour_name(packed: int) -> str:
    """'#rrggbb' of a packed colour.

    >>> colour_name(0xFF8000)
    '#ff8000'
    """
    return f"#{packed:06x}"


def _orientation(picture: Image.Image) -> int:
    try:
        return picture.getexif().get(_ORIENTATION)
    except Exception:  # a broken EXIF block does not spoil the pixels
        return 1


def _notes(picture: Image.Image, stored: str, *, turned: bool) -> tuple[str, ...]:
    mode = picture.mode
    has_palette = mode in ("P", "PA")
    found = {
        # 'BGR;16' is the 5-6-5 bit layout of BMP, not 16 bit per channel.
        "16-bit": mode.startswith("I") or (";16" in stored and "BGR;16" not in stored),
        "palette": has_palette,
        "palette: 0 is not black": has_palette
        and picture.getpalette("RGB")[:3] != [0, 0, 0],
        "alpha": mode in ("LA", "PA", "RGBA") or "transparency" in picture.info,
        "grey": mode in ("1", "L", "LA") or mode.startswith("I"),
        "CMYK": mode == "CMYK",
        "EXIF-rotated": turned,
        "several frames": getattr(picture, "is_animated", False),
    }
    return tuple(note for note, holds in found.items() if holds)


def _refuse_other_depths(picture: Image.Image) -> None:
    if picture.mode == "F":
        raise UnreadableImage("holds floating-point pixels: save it as 8 or 16 bit")
    if picture.mode == "LAB":
        raise UnreadableImage("holds LAB colours: save it as RGB")
    if picture.mode == "I":
        low, high = picture.getextrema()
        if low < 0 or high > 65535:
            raise UnreadableImage(f"holds values {low}..{high}: save it as 8 or 16 bit")


def _narrow(values: np.ndarray) -> np.ndarray:
    """[h, w] uint8 mask values of [h, w] int32 ones in 0..65535."""
    if values.max() < 256:
        return values.astype(np.uint8)
    if (values % 257 == 0).all():
        return (values // 257).astype(np.uint8)
    raise UnreadableImage(
        f"holds 16-bit values up to {values.max()}; class ids must be below 255"
    )


def _encode_colours(packed: np.ndarray, palette: tuple[str, ...]) -> np.ndarray:
    colours = np.array([int(colour[1:], 16) for colour in palette], np.int32)
    order = np.argsort(colours)
    place = np.searchsorted(colours, packed, sorter=order).clip(max=len(colours) - 1)
    ids = order[place].astype(np.uint8)
    unknown = colours[ids] != packed
    if unknown.any():
        names = [colour_name(colour) for colour in np.unique(packed[unknown])]
        raise _unknown_values(", ".join(palette), names)
    return ids


def _unknown_values(allowed: str, values: Iterable) -> InputError:
    return InputError(
        expected=f"mask values as in the set that was checked: {allowed}",
        found=shorten(values),
        fix="rewrite this mask like the others",
    )
