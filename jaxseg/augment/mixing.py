"""Two images in one, for classifiers: every sample is mixed with another of its batch.

Every function is `name(key, image, other, *, <config keys>) -> (image, share)`: [H, W,
C] float32 in [0, 255] and the share that the own image has in the result. The loss
weighs own and other label by that share (`tasks.Classification`). The other sample is
the next one in a random order that is drawn by sample, so neither the order of the
batch nor the number of devices matters.
"""

import jax
import jax.numpy as jnp

from jaxseg.types import Array


def mixup(
    key: Array, image: Array, other: Array, *, alpha: float
) -> tuple[Array, Array]:
    """share * image + (1 - share) * other, the share from Beta(alpha, alpha).

    Source: https://arxiv.org/abs/1710.09412
    """
    share = jax.random.beta(key, float(alpha), float(alpha))
    return share * image + (1 - share) * other, share


def cutmix(
    key: Array, image: Array, other: Array, *, alpha: float
) -> tuple[Array, Array]:
    """A rectangle of the other image at its place; share is what is left, in pixels.

    The rectangle has the form of the image, before clipping the area 1 - Beta(alpha,
    alpha), and its middle anywhere. Source: https://arxiv.org/abs/1905.04899
    """
    area_key, middle_key = jax.random.split(key)
    side = jnp.sqrt(1 - jax.random.beta(area_key, float(alpha), float(alpha)))
    size = jnp.array(image.shape[:2], jnp.float32)
    middle = jax.random.uniform(middle_key, (2,)) * size
    first = jnp.round(middle - side * size / 2)
    last = jnp.round(middle + side * size / 2)
    rows, columns = (
        (first[axis] <= jnp.arange(length)) & (jnp.arange(length) < last[axis])
        for axis, length in enumerate(image.shape[:2])
    )
    cut = rows[:, None] & columns[None, :]
    share = 1 - cut.mean()
    return jnp.where(cut[..., None], other, image), share


MIXES = {"mixup": mixup, "cutmix": cutmix}


def partners(numbers: Array) -> Array:
    """[N] int32: the place of every sample's other, that with the next larger number.

    Args:
      numbers: [N], drawn by sample; the first follows the last.
    """
    order = jnp.argsort(numbers)
    rank = jnp.argsort(order)
    return order[(rank + 1) % len(rank)]
