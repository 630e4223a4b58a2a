"""The networks of torch_twin.py: those of PyTorch's libraries, and two of our own.

The U-Net and SegDecNet are our own statements of the published networks; their modules
are named as the Flax parameters.

Source: https://arxiv.org/abs/1505.04597; https://arxiv.org/abs/2104.06064.
"""

import functools
import importlib.util
import itertools
from pathlib import Path

import numpy as np
import torch
from torch import library, nn
from torch.nn import functional as F


class DoubleConv(nn.Module):
    """Twice: 3x3 convolution without bias, batch norm, ReLU."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.Conv_0 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.GhostBatchNorm_0 = nn.BatchNorm2d(width)
        self.Conv_1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.GhostBatchNorm_1 = nn.BatchNorm2d(width)

    def forward(self, x):
        x = F.relu(self.GhostBatchNorm_0(self.Conv_0(x)), inplace=True)
        return F.relu(self.GhostBatchNorm_1(self.Conv_1(x)), inplace=True)


class UNet(nn.Module):
    """[N, 3, H, W] -> logits per pixel [N, H, W]; `widths` full resolution first."""

    def __init__(self, widths: list[int]):
        super().__init__()
        for level, width in enumerate(widths):
            above = widths[level - 1] if level else 3
            self.add_module(f"encoder_{level}", DoubleConv(above, width))
        for level, (width, below) in enumerate(itertools.pairwise(widths)):
            self.add_module(f"up_{level}", nn.ConvTranspose2d(below, width, 2, 2))
            self.add_module(f"decoder_{level}", DoubleConv(2 * width, width))
        self.mask_head = nn.ModuleDict({"Conv_0": nn.Conv2d(widths[0], 1, 1)})
        self.num_levels = len(widths)

    def forward(self, x):
        skips = []
        for level in range(self.num_levels):
            x = F.max_pool2d(x, 2) if level else x
            x = self.get_submodule(f"encoder_{level}")(x)
            skips.append(x)
        for level in reversed(range(self.num_levels - 1)):
            x = self.get_submodule(f"up_{level}")(x)
            x = torch.cat([skips[level], x], dim=1)
            x = self.get_submodule(f"decoder_{level}")(x)
        return self.mask_head["Conv_0"](x)[:, 0]


class FeatureNorm(nn.Module):
    """scale (x - mean) / sqrt(std + 0.001) + bias, over the pixels of an image."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        x = x.to(self.weight.dtype)  # from bfloat16
        mean = x.mean(dim=(2, 3), keepdim=True)
        deviation = x.std(dim=(2, 3), keepdim=True)  # unbiased, as everywhere in torch
        scale, bias = (w.view(1, -1, 1, 1) for w in (self.weight, self.bias))
        return scale * (x - mean) / torch.sqrt(deviation + 0.001) + bias


class ConvFeature(nn.Module):
    """Convolution without bias, `FeatureNorm`, ReLU."""

    def __init__(self, channels: int, width: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
        self.norm = FeatureNorm(width)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))


class SegDecNet(nn.Module):
    """[N, 3, H, W] -> (map [N, H/8, W/8], decision [N]); it adjusts the gradient."""

    def __init__(self):
        super().__init__()
        channels = 3
        for level, layers in enumerate(
            ((32, 5, 1), (64, 5, 3), (64, 5, 4), (1024, 15, 1))
        ):
            width, kernel, count = layers
            for layer in range(count):
                block = ConvFeature(channels, width, kernel)
                self.add_module(f"volume_{level}_{layer}", block)
                channels = width
        self.mask_conv = nn.Conv2d(1024, 1, 1, bias=False)
        self.mask_norm = FeatureNorm(1)
        for layer, (above, width) in enumerate(((1025, 8), (8, 16), (16, 32))):
            self.add_module(f"decision_{layer}", ConvFeature(above, width, 5))
        self.decision = nn.Linear(66, 1)

    def forward(self, x):
        for name, block in self.named_children():
            if name.startswith("volume"):
                first = name.endswith("_0") and name != "volume_0_0"
                x = block(F.max_pool2d(x, 2) if first else x)
        seg_map = self.mask_norm(self.mask_conv(x))
        x, seen = x.detach(), seg_map.detach()
        y = torch.cat((x, seen.to(x.dtype)), dim=1)
        for layer in range(3):
            y = self.get_submodule(f"decision_{layer}")(F.max_pool2d(y, 2))
        features = [pool(z) for z in (y, seen) for pool in (_largest, _mean)]
        return seg_map[:, 0], self.decision(torch.cat(features, dim=1))[:, 0]


def _largest(x):
    return x.amax(dim=(2, 3))


def _mean(x):
    return x.mean(dim=(2, 3))


@functools.cache
def import_torchvision():
    """torchvision, also one whose operators are for another build of PyTorch.

    Those that it says it has are then declared, and no network here asks for them.
    """
    if not _load_operators():
        _declare_operators()
    import torchvision

    return torchvision


def _load_operators() -> bool:
    package = Path(importlib.util.find_spec("torchvision").origin).parent
    try:
        for file in package.glob("_C*.so"):
            torch.ops.load_library(file)
            return True
    except OSError:  # for CUDA, beside a PyTorch for CPUs
        pass
    return False


def _declare_operators() -> None:
    for name, schema in (
        ("nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
        ("qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
        (
            "roi_align",
            "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
            "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor",
        ),
    ):
        library.define(f"torchvision::{name}", schema)


def make_network(model: str, weights: dict[str, np.ndarray]) -> nn.Module:
    """'unet', 'segdecnet', or a library and its name for a network with one logit."""
    library, _, name = model.partition(" ")
    if library == "torchvision":
        return import_torchvision().models.get_model(name, num_classes=1)
    if library == "timm":
        import_torchvision()
        import timm

        return timm.create_model(name, num_classes=1)
    if library == "smp":
        import_torchvision()
        import segmentation_models_pytorch

        network = segmentation_models_pytorch.Unet(name, encoder_weights=None)
        network.encoder._drop_connect_rate = 0.0
        return network
    return SegDecNet() if model == "segdecnet" else UNet(_widths(weights))


def _widths(weights: dict[str, np.ndarray]) -> list[int]:
    first = (f"encoder_{level}.Conv_0.weight" for level in itertools.count())
    return [
        len(weights[name])
        for name in itertools.takewhile(weights.keys().__contains__, first)
    ]
