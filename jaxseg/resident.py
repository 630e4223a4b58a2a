"""The training part in the memory of the devices: a step then moves positions only.

Uploaded once, whole on every device. What a batch consists of is decided on the host as
ever; its pixels are gathered inside the compiled step.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxseg import parallel
from jaxseg.config import Data
from jaxseg.data.cache import Source
from jaxseg.errors import InputError
from jaxseg.types import IGNORE, Array, Batch

MAX_SHARE = 0.4
"""Of a device's memory that 'auto' gives to pixels; the rest is for the step."""


ABSTRACT_PLACES = {
    name: jax.ShapeDtypeStruct((1,), jnp.int32) for name in ("place", "index")
}
"""Inputs of a step on one image."""


def choose(data: Data, source: Source, count: int, mesh: Mesh) -> tuple[bool, str]:
    """Whether the pixels of `count` samples go to the devices, and a sentence on it.

    Raises:
      InputError: `data.cache` 'device', and they do not fit or are windows.
    """
    mode = data.cache
    if mode == "device" and data.crop is not None:
        raise InputError(
            "whole images for config.data.cache=device",
            "windows of them (config.data.crop)",
            "--config.data.cache=host",
        )
    if mode not in ("auto", "device") or data.crop is not None:
        return False, ""
    size = num_bytes(abstract_data(source, count))
    stats = mesh.local_devices[0].memory_stats() or {}
    limit = stats.get("bytes_limit")  # None on CPU, where nothing is gained
    text = f"{size / 1e9:.2f} GB of training pixels"
    if mode == "device":
        if limit and size > limit:
            raise InputError(
                f"room on each device for {text} (data.cache=device)",
                f"{limit / 1e9:.2f} GB of memory",
                "--config.data.cache=host, or a smaller --config.data.image_size",
            )
        return True, f"{text} stay in the memory of the device (data.cache=device)"
    if not limit:
        return False, ""
    share = f"{size / limit:.0%} of it"
    if size <= MAX_SHARE * limit:
        return True, f"{text} stay in the memory of the device, {share}"
    return False, f"{text} come from the host: for the device's memory, {share} is much"


def abstract_data(source: Source, count: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of what `upload` gives for `count` samples."""
    fields = source.decoder.fields() | {"label": ((), np.int32)}
    return {
        name: jax.ShapeDtypeStruct((count, *shape), kind)
        for name, (shape, kind) in fields.items()
    }


def num_bytes(data: Mapping[str, jax.ShapeDtypeStruct]) -> int:
    """How much memory the arrays take."""
    return sum(x.size * x.dtype.itemsize for x in data.values())


def upload(
    source: Source,
    labels: np.ndarray,
    positions: np.ndarray,
    hidden: np.ndarray | None,
    mesh: Mesh,
) -> dict[str, Array]:
    """The samples at `positions`, in their order, as `TrainLoader` would read them.

    Args:
      labels, hidden: by position in the whole set, as of `TrainLoader`.

    Returns:
      arrays [n, ...], whole on every device; `label` among them.
    """
    arrays = abstract_data(source, len(positions)).items()
    pixels = {name: np.empty(x.shape, x.dtype) for name, x in arrays}
    source.read(positions, pixels)
    if hidden is not None:
        pixels["mask"][hidden[positions]] = IGNORE
    pixels["label"][:] = labels[positions]
    return parallel.put_everywhere(pixels, mesh)


def gather(data: dict[str, Array], chosen: Batch) -> Batch:
    """The batch of a `PlaceLoader`: `chosen` has `place` and `index`, both [B]."""
    places = chosen["place"]
    batch = {name: values[places] for name, values in data.items()}
    valid = jnp.ones(places.shape, bool)
    return {**batch, "valid": valid, "index": chosen["index"]}
