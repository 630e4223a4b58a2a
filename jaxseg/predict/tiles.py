"""What a classifier says about the tiles of a large image.

With two classes the image is as its worst tile: the score is the largest one. With more
its probabilities are the mean over all tiles. tiles.csv has every tile, so that other
rules are possible.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.report import overlays, results
from jaxseg.tasks import Thresholds

COLUMNS = ("name", "top", "left", "bottom", "right", "score", "decision")


@dataclasses.dataclass(frozen=True, eq=False)
class Tiles:
    """The tiles of an image, in R rows and C columns.

    Attributes:
      rows: [R, 2] float, first and last edge in pixels of the image.
      columns: [C, 2] likewise.
      probs: [R, C, K] float32, as `image_probabilities` of a result.
      decided: [R, C] class ids.
    """

    rows: np.ndarray
    columns: np.ndarray
    probs: np.ndarray
    decided: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """[R, C]: the probability of any class but the first."""
        return overlays.foreground_score(self.probs)

    @property
    def image_probs(self) -> np.ndarray:
        """[K] of the whole image, see the module."""
        across = (0, 1)
        binary = self.probs.shape[-1] == 1
        return self.probs.max(across) if binary else self.probs.mean(across)

    def to_json(self) -> dict[str, Any]:
        return {key: value.tolist() for key, value in vars(self).items()}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "Tiles":
        return cls(**{key: np.asarray(value) for key, value in written.items()})

    def table(self, name: str, classes: Sequence[str]) -> Iterator[dict[str, Any]]:
        """A row of tiles.csv per tile."""
        for i, (top, bottom) in enumerate(self.rows):
            for j, (left, right) in enumerate(self.columns):
                sides = np.round((top, left, bottom, right), 2).tolist()
                said = self.scores[i, j], classes[self.decided[i, j]]
                row = dict(zip(COLUMNS, (name, *sides, *said), strict=True))
                if len(classes) > 2:
                    for kind, value in zip(classes, self.probs[i, j], strict=True):
                        row[f"probability/{kind}"] = value
                yield row


def tiles_of(
    said: Iterable[tuple[int, int, np.ndarray]],
    *,
    size: tuple[int, int],
    tile: tuple[int, int],
    scale: tuple[float, float],
    thresholds: Thresholds,
) -> Tiles:
    """The tiles of an image.

    Args:
      said: top, left and probabilities [K] of every tile, row by row, in pixels of the
        resized image.
      size: (h, w) of the image itself.
      tile: (h, w) in pixels of the resized image.
      scale: its size as a share of the image's, of height and width.
    """
    tops, lefts, probs = zip(*said, strict=True)
    edges = []
    for starts, n, side, shrunk in zip((tops, lefts), size, tile, scale, strict=True):
        first = np.unique(starts)
        both = np.stack([first, first + side], axis=1) / shrunk
        edges.append(both.clip(0, n))
    probs = np.stack(probs).reshape(len(edges[0]), len(edges[1]), -1)
    if "image" in thresholds:
        decided = (probs[..., 0] >= thresholds["image"].value).astype(int)
    else:
        decided = probs.argmax(-1)
    return Tiles(*edges, probs, decided)


def write_tiles(
    path: Path, images: Iterable[tuple[str, Tiles]], classes: Sequence[str]
) -> None:
    """Writes tiles.csv, whole or not at all."""
    rows = [row for name, tiles in images for row in tiles.table(name, classes)]
    columns = dict.fromkeys(COLUMNS) | {key: None for row in rows for key in row}
    results.write_rows(path, list(columns), rows)
