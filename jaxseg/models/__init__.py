"""Networks by the name a config gives them.

Every builder takes `(num_outputs, dtype, *, <config keys>)` and returns a Linen module
whose `__call__(image, *, train)` gives the outputs documented in `jaxseg.types`.
"""

from jaxseg.models.classifier import classifier
from jaxseg.models.encoder_unet import encoder_unet
from jaxseg.models.segdecnet import segdecnet
from jaxseg.models.simple_cnn import simple_cnn
from jaxseg.models.unet import unet

MODELS = {
    "unet": unet,
    "encoder_unet": encoder_unet,
    "classifier": classifier,
    "simple_cnn": simple_cnn,
    "segdecnet": segdecnet,
}
