"""The PyTorch twin of jaxseg's training step, for `benchmark.py step --against torch`.

    PYTHON scripts/torch_twin.py {unet,resnet18} FOLDER --threads 2

A child process: it needs torch and numpy only and never imports jaxseg. FOLDER holds
weights.npz (Flax parameters by path, 'encoder_0/Conv_0/kernel') and batch.npz (`image`
[N, H, W, 3] uint8 with `mask` [N, H, W] or `label` [N]). It speaks JSON, a line each:

    at the start         -> {"rungs": ["float32 channels_last", ...], "versions": ...}
    {"trace": 5}         -> {"losses": [...]}   steps in float32, nothing flipped
    {"run": 3, "rung": "float32 channels_last"}
                         -> {"seconds": 2.4}    of all 3 steps, with random flips

Its networks are our own statement of the U-Net and of ResNet-18. Modules are named as
the Flax parameters, so a weight that has no partner is noticed.

Source: https://arxiv.org/abs/1505.04597; https://arxiv.org/abs/1512.03385, in the form
of torchvision.
"""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

LEARNING_RATE = 1e-3
MEAN, STD = 0.5, 0.25  # of pixels in [0, 1]
HFLIP = 0.5


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


class ConvNorm(nn.Module):
    """Convolution without bias, padded by half its kernel, and batch norm."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int):
        super().__init__()
        padding = kernel // 2
        self.conv = nn.Conv2d(channels, width, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return self.norm(self.conv(x))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a residual, projected where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.layer_1 = ConvNorm(channels, width, 3, stride)
        self.layer_2 = ConvNorm(width, width, 3, 1)
        self.projection = None
        if stride > 1 or channels != width:
            self.projection = ConvNorm(channels, width, 1, stride)

    def forward(self, x):
        residual = x if self.projection is None else self.projection(x)
        x = self.layer_2(F.relu(self.layer_1(x), inplace=True))
        return F.relu(x + residual, inplace=True)


class ResNet18(nn.Module):
    """[N, 3, H, W] -> one logit per image [N]."""

    def __init__(self):
        super().__init__()
        layers = {"stem": ConvNorm(3, 64, 7, 2)}
        channels = 64
        for stage, width in enumerate((64, 128, 256, 512), 1):
            for block in (1, 2):
                stride = 2 if stage > 1 and block == 1 else 1
                name = f"stage_{stage}_block_{block}"
                layers[name] = BasicBlock(channels, width, stride)
                channels = width
        self.encoder = nn.ModuleDict(layers)
        self.image_head = nn.ModuleDict({"Dense_0": nn.Linear(512, 1)})

    def forward(self, x):
        stem, *blocks = self.encoder.values()
        x = F.max_pool2d(F.relu(stem(x), inplace=True), 3, 2, padding=1)
        for block in blocks:
            x = block(x)
        return self.image_head["Dense_0"](x.mean(dim=(2, 3)))[:, 0]


def build_network(model: str, weights: dict[str, np.ndarray]) -> nn.Module:
    """The network with the ported weights, training, channels last.

    Raises:
      ValueError: a weight on one side has no partner on the other.
    """
    network = ResNet18() if model == "resnet18" else UNet(_widths(weights))
    ported = {_torch_name(name): _torch_layout(name, w) for name, w in weights.items()}
    names = {name for name, _ in network.named_parameters()}
    if ported.keys() != names:
        alone = sorted(ported.keys() ^ names)
        raise ValueError(f"weights on one side only: {', '.join(alone)}")
    tensors = {name: torch.from_numpy(w.copy()) for name, w in ported.items()}
    network.load_state_dict(tensors, strict=False)  # running statistics stay new
    return network.to(memory_format=torch.channels_last).train()


def _widths(weights: dict[str, np.ndarray]) -> list[int]:
    levels = sum(
        name.endswith("/Conv_0/kernel") and "encoder" in name for name in weights
    )
    return [weights[f"encoder_{k}/Conv_0/kernel"].shape[-1] for k in range(levels)]


def _torch_name(name: str) -> str:
    *path, leaf = name.split("/")
    return ".".join([*path, "bias" if leaf == "bias" else "weight"])


def _torch_layout(name: str, weight: np.ndarray) -> np.ndarray:
    """Flax keeps [h, w, in, out] and [in, out]."""
    if weight.ndim == 4:
        transposed = name.startswith("up_")  # ConvTranspose2d wants [in, out, h, w]
        return weight.transpose((2, 3, 0, 1) if transposed else (3, 2, 0, 1))
    return weight.T


class Step:
    """Flip, normalise, forward, cross-entropy, backward and Adam on one batch."""

    def __init__(self, model: str, weights, batch, *, bfloat16: bool, hflip: float):
        self.network = build_network(model, weights)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=LEARNING_RATE, fused=True
        )
        target = "label" if model == "resnet18" else "mask"
        self.image = torch.from_numpy(batch["image"])
        self.target = torch.from_numpy(batch[target])
        self.bfloat16, self.hflip = bfloat16, hflip

    def __call__(self) -> torch.Tensor:
        """One update; the loss before it."""
        image, target = self._flip()
        # NHWC in memory seen as NCHW is what channels_last means.
        pixels = (image.float() * (1 / (255 * STD)) - MEAN / STD).permute(0, 3, 1, 2)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            logits = self.network(pixels)
        loss = F.binary_cross_entropy_with_logits(logits.float(), target.float())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _flip(self) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.hflip:
            return self.image, self.target
        chosen = torch.rand(len(self.image)) < self.hflip
        image = torch.where(chosen[:, None, None, None], self.image.flip(2), self.image)
        if self.target.ndim == 1:
            return image, self.target
        mask = torch.where(chosen[:, None, None], self.target.flip(2), self.target)
        return image, mask


def trace_losses(model: str, weights, batch, steps: int) -> list[float]:
    """Losses of the first steps in float32 from the given weights, nothing flipped."""
    step = Step(model, weights, batch, bfloat16=False, hflip=0.0)
    return [step().item() for _ in range(steps)]


def make_rungs(model: str, weights, batch) -> dict[str, Step]:
    """The forms that a PyTorch user would choose from on a CPU."""
    rungs = {"float32 channels_last": False}
    if _has_bfloat16():
        rungs["bfloat16 autocast channels_last"] = True
    return {
        name: Step(model, weights, batch, bfloat16=bfloat16, hflip=HFLIP)
        for name, bfloat16 in rungs.items()
    }


def _has_bfloat16() -> bool:
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def run_steps(step: Step, steps: int) -> float:
    """Seconds of all steps together."""
    started = time.perf_counter()
    for _ in range(steps):
        step()
    return time.perf_counter() - started


def serve(model: str, folder: Path) -> None:
    """Answers requests until stdin ends."""
    weights = dict(np.load(folder / "weights.npz"))
    batch = dict(np.load(folder / "batch.npz"))
    rungs = make_rungs(model, weights, batch)
    versions = {"torch": torch.__version__, "torch_python": sys.version.split()[0]}
    print(json.dumps({"rungs": list(rungs), "versions": versions}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "trace" in request:
            losses = trace_losses(model, weights, batch, request["trace"])
            answer = {"losses": losses}
        else:
            answer = {"seconds": run_steps(rungs[request["rung"]], request["run"])}
        print(json.dumps(answer), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=("unet", "resnet18"), help="which network")
    parser.add_argument("folder", type=Path, help="with weights.npz and batch.npz")
    parser.add_argument("--threads", type=int, required=True, help="of PyTorch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    serve(options.model, options.folder)


if __name__ == "__main__":
    main()
