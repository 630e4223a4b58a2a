"""Encoders by name: feature pyramids at the strides 2, 4, 8, 16, 32.

The names are those of timm, with 'smp_' for the form of segmentation_models.pytorch;
`efficientnet` tells the forms apart.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.errors import InputError
from jaxseg.models.efficientnet import EfficientNetEncoder
from jaxseg.models.resnet import ResNetEncoder

STRIDE = 32
EncoderName = Literal[
    "resnet18",
    "resnet34",
    "efficientnet_b0",
    "efficientnet_b1",
    "tf_efficientnet_b0",
    "tf_efficientnet_b1",
    "smp_efficientnet_b0",
    "smp_efficientnet_b1",
]
Skips = Literal["blocks", "expansions"]
FORMS = {"": "timm", "tf_": "tensorflow", "smp_": "smp"}


def make_encoder(
    name: EncoderName,
    dtype: jnp.dtype,
    *,
    skips: Skips,
    top: bool,
    bn_group: int | None,
    drop_path: float,
    remat: str,
) -> nn.Module:
    """The encoder of a name, called 'encoder' in its network.

    Args:
      skips: outputs of blocks, or the wider activations inside them (EfficientNet).
      top: EfficientNet ends in its convolution to 1280 channels.
      remat: see `layers.call_block`.

    Returns:
      A module `(image [N, H, W, C], train=) -> five features`, shallow to deep.

    Raises:
      InputError: a ResNet with skips from expansions, which it does not have.
    """
    prefix, is_efficientnet, depth = name.rpartition("efficientnet_")
    if is_efficientnet:
        return EfficientNetEncoder(
            depth,
            FORMS[prefix],
            skips,
            top,
            bn_group,
            drop_path,
            dtype,
            remat,
            name="encoder",
        )
    if skips != "blocks":
        raise InputError(
            "skips that the encoder has: a ResNet expands nothing",
            f"config.model.skips={skips!r} with config.model.encoder={name!r}",
            "--config.model.skips=blocks",
        )
    depth = int(name.removeprefix("resnet"))
    return ResNetEncoder(depth, bn_group, drop_path, dtype, remat, name="encoder")
