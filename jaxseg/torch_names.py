"""Names and layouts of our arrays in the PyTorch libraries, both ways.

One direction of names is enough: every leaf of ours says what it is called there.
Kernels are [h, w, in, out] here and [out, in, h, w] there.

    naming         encoder                                by
    'torchvision'  ResNet                                 torchvision and timm
    'timm'         EfficientNet, 'timm' and 'tensorflow'  timm
    'smp'          EfficientNet, 'smp'                    segmentation_models.pytorch

Names of decoder and head are always those of segmentation_models.pytorch.
"""

import re

import numpy as np

from jaxseg.models.efficientnet import REPEATS

_LEAF = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_CONV_OR_NORM = {"conv": 0, "norm": 1}


def torch_name(path: str, naming: str, depth: str = "") -> str:
    """What a leaf of `EncoderUNet`, or of an encoder alone, is called in a state dict.

    Args:
      path: 'params/encoder/…', 'batch_stats/decoder_4/…', 'params/mask_head/…'.
      naming: 'torchvision', 'timm' or 'smp'.
      depth: 'b0' or 'b1', to number the blocks of 'smp'.

    Returns:
      e.g. 'conv1.weight', without the 'encoder.' of a whole network.
    """
    _, part, *inner, leaf = path.split("/")
    if part == "encoder":
        own = "/".join(inner)
        module = (
            _torchvision(own)
            if naming == "torchvision"
            else _efficientnet(own, naming, depth)
        )
    elif part.startswith("decoder_"):
        layer, kind = inner
        block = 4 - int(part[-1])
        module = f"decoder.blocks.{block}.conv{layer[-1]}.{_CONV_OR_NORM[kind]}"
    else:
        module = "segmentation_head.0"
    return f"{module}.{_LEAF[leaf]}"


def to_torch(leaf: np.ndarray, name: str) -> np.ndarray:
    """An array of ours in the layout of the state dict entry `name`."""
    if leaf.ndim == 3:  # depthwise [h, w, c]
        return np.ascontiguousarray(leaf.transpose(2, 0, 1)[:, None])
    if leaf.ndim == 4:
        return np.ascontiguousarray(leaf.transpose(3, 2, 0, 1))
    if leaf.ndim == 2:
        is_gate = ".se." in name or "._se_" in name  # a 1x1 convolution there
        return np.ascontiguousarray(leaf.T[..., None, None] if is_gate else leaf.T)
    return leaf


def from_torch(array: np.ndarray, ndim: int) -> np.ndarray:
    """A state dict entry in our layout, for a leaf of ours with `ndim` dimensions."""
    if ndim == 3 and array.ndim == 4:
        return np.ascontiguousarray(array[:, 0].transpose(1, 2, 0))
    if ndim == 4 and array.ndim == 4:
        return np.ascontiguousarray(array.transpose(2, 3, 1, 0))
    if ndim == 2 and array.ndim in (2, 4):
        return np.ascontiguousarray(array.reshape(array.shape[:2]).T)
    return array


def _torchvision(module: str) -> str:
    stem = {"stem/conv": "conv1", "stem/norm": "bn1"}
    if module in stem:
        return stem[module]
    stage, block, layer, kind = re.fullmatch(
        r"stage_(\d)_block_(\d+)/(\w+)/(conv|norm)", module
    ).groups()
    if layer == "projection":
        inner = f"downsample.{_CONV_OR_NORM[kind]}"
    else:
        inner = f"{'conv' if kind == 'conv' else 'bn'}{layer[-1]}"
    return f"layer{stage}.{int(block) - 1}.{inner}"


def _efficientnet(module: str, naming: str, depth: str) -> str:
    if module in _ENDS[naming]:
        return _ENDS[naming][module]
    name, inner = module.split("/", 1)
    _, stage, _, block = name.split("_")
    stage, block = int(stage), int(block)
    if naming == "smp":  # numbers its blocks through all stages
        number = sum(REPEATS[depth][: stage - 1]) + block - 1
        return f"_blocks.{number}.{_INNER[naming][inner]}"
    names = _INNER["timm"] | (_INNER_OF_STAGE_1 if stage == 1 else {})
    return f"blocks.{stage - 1}.{block - 1}.{names[inner]}"


_ENDS = {
    "timm": {
        "stem/conv": "conv_stem",
        "stem/norm": "bn1",
        "top/conv": "conv_head",
        "top/norm": "bn2",
    },
    "smp": {
        "stem/conv": "_conv_stem",
        "stem/norm": "_bn0",
        "top/conv": "_conv_head",
        "top/norm": "_bn1",
    },
}
_INNER = {
    "timm": {
        "expand/conv": "conv_pw",
        "expand/norm": "bn1",
        "depthwise/conv": "conv_dw",
        "depthwise/norm": "bn2",
        "squeeze/reduce": "se.conv_reduce",
        "squeeze/expand": "se.conv_expand",
        "project/conv": "conv_pwl",
        "project/norm": "bn3",
    },
    "smp": {
        "expand/conv": "_expand_conv",
        "expand/norm": "_bn0",
        "depthwise/conv": "_depthwise_conv",
        "depthwise/norm": "_bn1",
        "squeeze/reduce": "_se_reduce",
        "squeeze/expand": "_se_expand",
        "project/conv": "_project_conv",
        "project/norm": "_bn2",
    },
}
# timm's blocks of stage 1 expand nothing and count on without a gap.
_INNER_OF_STAGE_1 = {
    "depthwise/norm": "bn1",
    "project/conv": "conv_pw",
    "project/norm": "bn2",
}
