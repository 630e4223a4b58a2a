"""An encoder as a classifier of whole images."""

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.models.encoders import EncoderName, make_encoder
from jaxseg.models.heads import ImageHead
from jaxseg.types import Array, Outputs


class Classifier(nn.Module):
    """`cls_logits` [N, num_outputs] from the mean of the deepest features.

    Attributes:
      encoder: name of an encoder; it ends as it was published, EfficientNet with 1280
        channels.
      bn_group: images per batch-norm group; None is the global batch.
      drop_path: see the encoder.
      dropout: rate of the mean features.
      remat: see `layers.call_block`.
    """

    num_outputs: int
    encoder: str
    bn_group: int | None
    drop_path: float
    dropout: float
    dtype: jnp.dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> Outputs:
        encoder = make_encoder(
            self.encoder,
            self.dtype,
            skips="blocks",
            top=True,
            bn_group=self.bn_group,
            drop_path=self.drop_path,
            remat=self.remat,
        )
        deepest = encoder(image, train=train)[-1]
        head = ImageHead(self.num_outputs, self.dropout, name="image_head")
        return {"cls_logits": head(deepest, train=train)}


def classifier(
    num_outputs: int,
    dtype: jnp.dtype,
    *,
    encoder: EncoderName,
    bn_group: int | None,
    drop_path: float,
    dropout: float,
) -> Classifier:
    """The encoder classifier of a config."""
    return Classifier(num_outputs, encoder, bn_group, drop_path, dropout, dtype)
