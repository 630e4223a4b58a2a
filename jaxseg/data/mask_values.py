"""What the values of a mask file mean: class ids."""

import dataclasses
from collections.abc import Iterable
from typing import Literal

import numpy as np

from jaxseg.errors import InputError, shorten
from jaxseg.types import IGNORE

_UNKNOWN = 254  # marks a value that the encoding does not have
_TABLES = {
    "binary": np.array([0, *[_UNKNOWN] * 254, 1], np.uint8),
    "threshold": np.array([0] * 128 + [1] * 128, np.uint8),
}
_SWAPPED = np.array([1, 0, *range(2, 256)], np.uint8)


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
