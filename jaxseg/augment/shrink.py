"""Smaller images for the first epochs of a training, made on the device."""

import jax
import jax.numpy as jnp

from jaxseg.types import Batch


def shrink(batch: Batch, image_size: tuple[int, int]) -> Batch:
    """The batch with image and mask at a smaller size, in their dtypes.

    As when images are decoded: bilinear with antialiasing, masks by nearest pixel.

    Args:
      image_size: (H, W); equal to that of the batch it changes nothing.
    """
    image = batch["image"]
    if image.shape[1:3] == tuple(image_size):
        return batch
    n, _, _, channels = image.shape
    resized = jax.image.resize(
        image.astype(jnp.float32), (n, *image_size, channels), "linear"
    )
    batch = {**batch, "image": jnp.round(resized).clip(0, 255).astype(image.dtype)}
    if "mask" in batch:
        mask = batch["mask"]
        batch["mask"] = jax.image.resize(mask, (n, *image_size), "nearest")
    return batch
