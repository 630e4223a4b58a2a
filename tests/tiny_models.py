"""Model folders of random weights, as a finished run leaves them, in milliseconds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import export
from jaxseg.models import MODELS
from jaxseg.tasks import num_outputs

UNET = dict(
    name="unet",
    widths=(4, 8),
    norm="none",
    bn_group=None,
    activation="relu",
    dropout=(0.0, 0.0),
    decoder="transpose",
    head_kernel=1,
    image_head=False,
    adjust_gradient=False,
)
JOINT_UNET = {**UNET, "image_head": True}
SEGDECNET = dict(name="segdecnet", adjust_gradient=True, variant="released")
ENCODER_UNET = dict(
    name="encoder_unet",
    encoder="resnet18",
    skips="blocks",
    decoder_widths=(8, 8, 8, 8, 8),
    bn_group=None,
    drop_path=0.0,
    image_head=False,
    adjust_gradient=False,
)
CLASSIFIER = dict(
    name="classifier", encoder="resnet18", bn_group=None, drop_path=0.0, dropout=0.0
)
SIMPLE_CNN = dict(name="simple_cnn", bn_group=None, dropout=0.0)

RULE = dict(threshold="max_f1", min_recall=0.9)
SEGMENTATION = dict(name="segmentation", **RULE)
JOINT = dict(name="joint", mask_weight=1.0, image_weight=1.0, **RULE)
CLASSIFICATION = dict(name="classification", **RULE)
SEGDEC = dict(
    name="segdec",
    delta=1.0,
    soft_label=True,
    dynamic=True,
    weighted=True,
    weight_power=1.0,
    weight_max=1.0,
    weight_per_component=False,
    dilate=1,
    **RULE,
)
BINARY, THREE = ("wall", "crack"), ("wall", "crack", "rust")
MEAN, STD = (0.5, 0.4, 0.6), (0.25, 0.2, 0.3)


def save_tiny(
    folder,
    network=UNET,
    task=SEGMENTATION,
    classes=BINARY,
    *,
    image_size=(32, 48),
    channels=3,
    resized=True,
    source_size=None,
    thresholds=None,
    seed=0,
):
    """Writes the folder; the network (float32) and its variables."""
    make = MODELS[network["name"]]
    kwargs = {key: value for key, value in network.items() if key != "name"}
    model = make(num_outputs(classes), jnp.float32, **kwargs)
    image = jnp.zeros((1, *image_size, channels))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    rng = np.random.default_rng(seed)
    variables = jax.tree.map_with_path(partial(_draw, rng), shapes)
    kinds = {} if len(classes) > 2 else thresholds or {}
    description = {
        "model": network,
        "task": task,
        "classes": classes,
        "preprocessing": {
            "image_size": image_size,
            "source_size": source_size or image_size,
            "channels": channels,
            "resize": "bilinear, antialiased" if resized else "none",
            "scale": 255,
            "mean": MEAN[:channels],
            "std": STD[:channels],
        },
        "thresholds": {
            kind: {"value": value, "rule": "max_f1", "note": ""}
            for kind, value in kinds.items()
        },
    }
    export.save_model(folder, variables, description)
    return model, variables


def _draw(rng, path, leaf):
    """Kernels as of He, other leaves around one (scales, variances) or zero."""
    if len(leaf.shape) > 1:
        fan_in = np.prod(leaf.shape[:-1])
        return rng.normal(size=leaf.shape).astype("f4") * np.float32(2 / fan_in) ** 0.5
    middle = path[-1].key in ("scale", "var")
    return (middle + 0.2 * rng.uniform(-1, 1, leaf.shape)).astype("f4")


def photo(height, width, channels=3, seed=0):
    """Random blobs and noise, uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, channels))
    blobs = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    noise = rng.integers(0, 256, (height, width, channels))
    return ((blobs + noise) // 2).astype(np.uint8)
