"""A photo from the disk, as the network gets it."""

import dataclasses

import numpy as np

from jaxseg.data.images import TooLarge, UnreadableImage, decode_image
from jaxseg.predict.photos import Photo
from jaxseg.predict.predictor import Predictor


@dataclasses.dataclass(frozen=True, eq=False)
class Read:
    """A photo as it was read, or why it was not.

    Attributes:
      problem: '' where there are pixels.
      stamp: of the photo.
      size: (h, w) of the photo.
      pixels: [H, W, C] as the network gets them, whole; of tiles those of the photo.
      image: [h, w, C] where it was asked for.
    """

    photo: Photo
    problem: str = ""
    stamp: list[int] | None = None
    size: tuple[int, int] = (0, 0)
    pixels: np.ndarray | None = None
    image: np.ndarray | None = None


def read_photo(photo: Photo, predictor: Predictor, *, keep_image: bool) -> Read:
    """Reads a photo and shrinks it: a batch of photos would fill the memory."""
    try:
        stamp = photo.stamp()  # before: what comes later is another photo
        data = photo.path.read_bytes()
        image = decode_image(data, predictor.trained.preprocessing.channels)
    except TooLarge as error:
        return Read(photo, f"{error}, or --max-pixels with a larger number")
    except UnreadableImage as error:
        return Read(photo, str(error))
    except OSError as error:
        return Read(photo, error.strerror or str(error))
    pixels = image if predictor.plan.tiled else predictor.fit(image)
    kept = image if keep_image else None
    return Read(photo, "", stamp, image.shape[:2], pixels, kept)
