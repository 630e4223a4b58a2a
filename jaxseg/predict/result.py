"""What a network says about one image, and how that is decided."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from jaxseg.infer import Strip
from jaxseg.predict.tiles import Tiles
from jaxseg.report.overlays import decide, foreground_score
from jaxseg.trained import Trained

DECISIONS = ("clean", "defect")
"""Names of the decision on an image, where masks have the classes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """What a network says about one image.

    Attributes:
      classes: names by class id.
      score: in [0, 1]: how certainly there is a defect (the image's own probability, or
        else the largest one of a foreground pixel); with more than two image classes,
        the probability of the decided one.
      decision: 'clean' or 'defect', of an image classifier the name of the class.
      found: whether the decision is anything but 'clean' or the first class.
      threshold: `found` is score >= threshold; None where the largest probability
        decides.
      mask: [H, W] uint8 class ids, 0 is the background; None of a classifier.
      mask_threshold: that of the pixels; None where the largest probability decides.
      probabilities: [H, W, K] float32; K = 1 is the probability of `classes[1]`.
        None of a classifier, or if not wanted.
      image_probabilities: [K] float32; None without an image decision.
      tiles: of a classifier that went through a large image tile by tile.
    """

    classes: tuple[str, ...]
    score: float
    decision: str
    found: bool
    threshold: float | None
    mask: np.ndarray | None
    mask_threshold: float | None
    probabilities: np.ndarray | None
    image_probabilities: np.ndarray | None
    tiles: Tiles | None = None


class Watch:
    """Score and decision of an image, while the probabilities of its pixels pass."""

    def __init__(self, trained: Trained):
        self._trained = trained
        self._score, self._found = 0.0, False

    def see(self, probs: np.ndarray) -> None:
        self._score = max(self._score, float(foreground_score(probs).max()))
        if "mask" not in self._trained.thresholds:
            self._found |= bool(decide(probs, {}).any())

    def passing(self, strips: Iterator[Strip]) -> Iterator[Strip]:
        for top, strip in strips:
            self.see(strip)
            yield top, strip

    def result(
        self,
        mask: np.ndarray | None,
        probabilities: np.ndarray | None,
        image_probs: np.ndarray | None,
        tiles: Tiles | None = None,
    ) -> Result:
        thresholds = self._trained.thresholds
        kind = "mask" if image_probs is None else "image"
        names = self._trained.classes if mask is None else DECISIONS
        threshold = thresholds[kind].value if kind in thresholds else None
        score = self._score if image_probs is None else float(image_probs.max())
        if threshold is not None:
            decided = int(score >= threshold)
        elif image_probs is None:
            decided = int(self._found)
        else:
            decided = int(image_probs.argmax())
        return Result(
            classes=self._trained.classes,
            score=score,
            decision=names[decided],
            found=decided > 0,
            threshold=threshold,
            mask=mask,
            mask_threshold=thresholds["mask"].value if "mask" in thresholds else None,
            probabilities=probabilities,
            image_probabilities=image_probs,
            tiles=tiles,
        )
