"""The small crack classifier of the SDNET2018 assignment: 412,849 parameters at 64x64.

Source: https://github.com/alexdimakos1991/Deep-Learning-Final-Assignment-SDNET-2018.
"""

import flax.linen as nn
import jax.numpy as jnp

from jaxseg import ops
from jaxseg.models.heads import check_stride
from jaxseg.models.layers import Conv, GhostBatchNorm
from jaxseg.types import Array, Outputs


class SimpleCNN(nn.Module):
    """Two conv-norm-pool layers, one hidden dense layer of 24, dropout.

    The first dense layer sees every pixel, so a trained network has one image size.
    [N, H, W, C] -> `cls_logits` [N, num_outputs].
    """

    num_outputs: int
    bn_group: int | None
    dropout: float
    dtype: jnp.dtype = jnp.float32
    remat: str = "none"  # too small for it to matter

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> Outputs:
        check_stride(image.shape[1:3], 4)
        x = image
        for channels in (32, 64):
            x = Conv(channels, dtype=self.dtype)(x)
            x = GhostBatchNorm(self.bn_group, dtype=self.dtype)(x, train=train)
            x = ops.max_pool(ops.relu(x), window=2, stride=2)
        x = x.reshape(x.shape[0], -1)
        x = ops.relu(nn.Dense(24, dtype=self.dtype)(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = nn.Dense(self.num_outputs)(x.astype(jnp.float32))
        return {"cls_logits": logits}


def simple_cnn(
    num_outputs: int, dtype: jnp.dtype, *, bn_group: int | None, dropout: float
) -> SimpleCNN:
    """The small classifier of a config."""
    return SimpleCNN(num_outputs, bn_group, dropout, dtype)
