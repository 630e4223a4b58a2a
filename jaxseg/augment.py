"""Augmentation and normalisation on the device, inside the compiled step.

Image and mask always move alike. The parameters of a sample come from
`fold_in(key, position in the global batch)`, and the key from (seed, step): the same
stream on any number of devices and after a resume, with no state to save.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxseg.types import Array, Batch


def make_augment(
    *, hflip: float, vflip: float, transpose: float
) -> Callable[[Array, Batch], Batch]:
    """Random flips and transposes of image and mask; exact, pixels only change place.

    With all three at 0.5 every one of the eight symmetries of the square is as likely,
    rotations by 90 degrees among them. Transposes need square images.

    Args:
      hflip: probability that left and right change places.
      vflip: probability that top and bottom change places.
      transpose: probability that rows become columns.

    Returns:
      `augment(key, batch) -> batch`; what has a probability of 0 costs nothing.
    """
    moves = [
        (probability, move)
        for probability, move in (
            (hflip, lambda pixels: pixels[:, :, ::-1]),
            (vflip, lambda pixels: pixels[:, ::-1]),
            (transpose, lambda pixels: pixels.swapaxes(1, 2)),
        )
        if probability > 0
    ]

    def augment(key: Array, batch: Batch) -> Batch:
        batch = dict(batch)
        for index, (probability, move) in enumerate(moves):
            chosen = _coins(jax.random.fold_in(key, index), batch, probability)
            for name in {"image", "mask"} & batch.keys():
                pixels = batch[name]
                per_image = chosen.reshape(-1, *[1] * (pixels.ndim - 1))
                batch[name] = jnp.where(per_image, move(pixels), pixels)
        return batch

    return augment


def make_normalize(
    mean: Sequence[float], std: Sequence[float]
) -> Callable[[Batch], Batch]:
    """(image / 255 - mean) / std as float32, per channel; the mask becomes int32."""
    multiplier = 1.0 / (255.0 * jnp.asarray(std, jnp.float32))
    offset = jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
    shape = (1, 1, 1, len(mean))
    multiplier, offset = multiplier.reshape(shape), offset.reshape(shape)

    def normalize(batch: Batch) -> Batch:
        batch = dict(batch)
        batch["image"] = batch["image"].astype(jnp.float32) * multiplier - offset
        if "mask" in batch:
            batch["mask"] = batch["mask"].astype(jnp.int32)
        return batch

    return normalize


def _coins(key: Array, batch: Batch, probability: float) -> Array:
    """[N] bool, each from its own key."""
    positions = jnp.arange(batch["image"].shape[0])
    keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
    return jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys)
