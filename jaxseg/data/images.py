"""Opens images and masks: bytes in, arrays out, by Pillow.

Where simplejpeg is installed it decodes the JPEG images that need no conversion, to the
same pixels, 1.7 (448 x 448 pixels) to 4 times as fast (2000 x 1500).

Arrays are [height, width] or [height, width, channels] uint8 and may be read-only. The
EXIF orientation is applied to images and masks alike, so a pair stays aligned. Bytes
that are no picture raise `UnreadableImage`; callers know the file and name it.

Differs from what most loaders do: 16-bit grey is scaled to 8 bit (Pillow's own
conversion clips it to white), and a mask with a palette gives its indices, not colours.
"""

import contextlib
import dataclasses
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

# The formats tried, commonest first. Pillow's full list would start Ghostscript on EPS.
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG2000")
_JPEG = b"\xff\xd8\xff"  # how such a file begins
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
      largest: value of a 16-bit picture, 0 of others.
    """

    size: tuple[int, int]
    mode: str
    notes: tuple[str, ...]
    largest: int = 0


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
    picture = _open(data)
    stored = str(picture.tile)
    with _naming_damage():
        picture.load()
    _refuse_other_depths(picture)
    turn = _turn_of(picture)
    notes = _notes(picture, stored, turned=turn is not None)
    largest = _largest(picture) if "16-bit" in notes else 0
    if turn is not None:
        picture = picture.transpose(turn)
    return picture, ImageFacts(picture.size[::-1], picture.mode, notes, largest)


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
    if (pixels := _decode_jpeg(data, channels)) is not None:
        return pixels
    picture, _ = open_picture(data)
    (width, height), rows = picture.size, max(STRIP_PIXELS // picture.width, 1)
    pixels = np.empty((height, width, channels), np.uint8)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = _pixels(strip, channels)
    return pixels


def _open(data: bytes) -> Image.Image:
    """A picture of which only the header is read."""
    if not data:
        raise UnreadableImage("is empty (0 bytes)")
    with _naming_damage():
        return Image.open(io.BytesIO(data), formats=_FORMATS)


@contextlib.contextmanager
def _naming_damage() -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError:
        raise UnreadableImage("is not an image of a known format") from None
    except Image.DecompressionBombError:
        limit = int(2 * Image.MAX_IMAGE_PIXELS)
        raise TooLarge(f"has over {limit:,} pixels: cut it into tiles") from None
    except Exception as error:  # Pillow's readers raise any type on damaged bytes
        raise UnreadableImage(f"is cut short or damaged ({error})") from None


def _decode_jpeg(data: bytes, channels: int) -> np.ndarray | None:
    """Pixels of a JPEG by simplejpeg; None where Pillow has to see to it.

    simplejpeg fails at what libjpeg only warns of: Pillow decides what is damaged.
    """
    if simplejpeg is None or not data.startswith(_JPEG):
        return None
    picture = _open(data)
    kind = {("RGB", 3): "RGB", ("L", 1): "GRAY"}.get((picture.mode, channels))
    if not kind:
        return None
    try:
        pixels = simplejpeg.decode_jpeg(data, kind)
    except ValueError:
        return None
    turn = _turn_of(picture)
    if turn is None:
        return pixels
    upright = Image.fromarray(pixels.squeeze(-1) if kind == "GRAY" else pixels)
    pixels = np.asarray(upright.transpose(turn))
    return pixels.reshape(*pixels.shape[:2], channels)


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


def _turn_of(picture: Image.Image) -> Image.Transpose | None:
    """What makes a picture upright; None where it is."""
    try:
        return _TURNS.get(picture.getexif().get(_ORIENTATION))
    except Exception:  # a broken EXIF block does not spoil the pixels
        return None


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


def _largest(picture: Image.Image) -> int:
    """Of a 16-bit picture; of colour Pillow has the upper bytes."""
    if picture.mode.startswith("I"):
        return int(np.asarray(picture).max())  # Pillow cannot tell of 'I;16B'
    extrema, bands = picture.getextrema(), picture.getbands()
    pairs = zip(bands, extrema if len(bands) > 1 else [extrema], strict=True)
    return 257 * max(high for band, (_, high) in pairs if band != "A")


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
