"""The PyTorch twin of jaxseg's training step, for `benchmark.py step --against torch`.

    PYTHON scripts/torch_twin.py 'smp resnet34' FOLDER --threads 2

A child process: it needs torch, numpy, Pillow and the library that it takes the network
from, and never imports jaxseg. FOLDER holds weights.npz (parameters by their names in
the state dict) and batch.npz (`image` [N, H, W, 3] uint8 with `mask` [N, H, W], `label`
[N] or the targets of SegDecNet). With files.json (`images`, `labels` and perhaps
`masks`, the `size` and `batch_size` of batches) every rung reads these files, through a
DataLoader. It speaks JSON, a line each:

    at the start         -> {"rungs": ["float32 channels_last", ...], "versions": ...}
    {"trace": 5}         -> {"losses": [...]}   steps in float32, nothing flipped
    {"run": 3, "rung": "float32 channels_last"}
                         -> {"seconds": 2.4}    of all 3 steps, with random flips
"""

import argparse
import copy
import importlib.metadata
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import nn
from torch.nn import functional as F
from torch_networks import make_network

LEARNING_RATE = 1e-3
MEAN, STD = 0.5, 0.25  # of pixels in [0, 1]
HFLIP = 0.5
# The top of an EfficientNet, which its U-Net holds and never uses.
UNUSED = {"encoder._conv_head.weight", "encoder._bn1.weight", "encoder._bn1.bias"}


def build_network(model: str, weights: dict[str, np.ndarray]) -> nn.Module:
    """The network with the ported weights, training, channels last.

    Raises:
      ValueError: a weight on one side has no partner on the other.
    """
    network = make_network(model, weights)
    names = {name for name, _ in network.named_parameters()}
    alone = sorted((weights.keys() ^ names) - UNUSED)
    if alone:
        raise ValueError(f"weights on one side only: {', '.join(alone)}")
    tensors = {name: torch.from_numpy(w.copy()) for name, w in weights.items()}
    network.load_state_dict(tensors, strict=False)  # running statistics stay new
    return network.to(memory_format=torch.channels_last).train()


class Step:
    """Flip, normalise, forward, cross-entropy, backward and Adam on one batch."""

    def __init__(
        self, model, weights, batch, *, bfloat16: bool, hflip: float, compiled: bool
    ):
        self.network = build_network(model, weights)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=LEARNING_RATE, fused=True
        )
        self.batch = {name: torch.from_numpy(array) for name, array in batch.items()}
        self.hflip = 0.0 if "seg_target" in batch else hflip  # as jaxseg refuses it
        self.bfloat16 = bfloat16
        self.loss = torch.compile(self._loss) if compiled else self._loss

    def from_batches(self, batches: Iterator[dict[str, torch.Tensor]]) -> "Step":
        """The same step on batches that come flipped."""
        step = copy.copy(self)
        step._flip = lambda: next(batches)
        return step

    def __call__(self) -> torch.Tensor:
        """One update; the loss before it."""
        loss = self.loss(self._flip())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        image = batch["image"].float() * (1 / (255 * STD)) - MEAN / STD
        # NHWC in memory seen as NCHW is what channels_last means.
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            logits = self.network(image.permute(0, 3, 1, 2))
        entropy = F.binary_cross_entropy_with_logits
        if "seg_target" not in batch:
            target = batch["mask" if "mask" in batch else "label"].float()
            return entropy(logits.float().view(target.shape), target)
        seg_map, decision = (x.float() for x in logits)
        target = batch["seg_target"]
        pixels = entropy(seg_map, target, reduction="none")
        if "seg_weight" in batch:
            pixels = batch["seg_weight"] * pixels
        dec_loss = entropy(decision, target.amax(dim=(1, 2)))
        shares = batch["shares"]
        return shares[0] * pixels.mean() + shares[1] * dec_loss

    def _flip(self) -> dict[str, torch.Tensor]:
        if not self.hflip:
            return self.batch
        chosen = torch.rand(len(self.batch["image"])) < self.hflip
        flipped = dict(self.batch)
        for name in ("image", "mask"):
            if name in flipped:
                x = flipped[name]
                mine = chosen.view(-1, *[1] * (x.ndim - 1))
                flipped[name] = torch.where(mine, x.flip(2), x)
        return flipped


class Files(torch.utils.data.Dataset):
    """Images with their masks or labels: opened, resized and flipped every time."""

    def __init__(self, listing: dict):
        self.listing = listing

    def __len__(self) -> int:
        return len(self.listing["images"])

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        item = {"image": self._read("images", k, "RGB", Resampling.BILINEAR)}
        if "masks" in self.listing:
            item["mask"] = self._read("masks", k, "L", Resampling.NEAREST) > 0
        if torch.rand(()) < HFLIP:
            item = {name: array[:, ::-1].copy() for name, array in item.items()}
        return item | {"label": self.listing["labels"][k]}

    def _read(self, name: str, k: int, mode: str, resampling) -> np.ndarray:
        height, width = self.listing["size"]
        with Image.open(self.listing[name][k]) as image:
            return np.array(image.convert(mode).resize((width, height), resampling))


def read_batches(listing: dict, workers: int) -> Iterator[dict[str, torch.Tensor]]:
    """Shuffled batches, epoch after epoch."""
    loader = torch.utils.data.DataLoader(
        Files(listing),
        batch_size=listing["batch_size"],
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
    )
    while True:
        yield from loader


def trace_losses(model: str, weights, batch, steps: int) -> list[float]:
    """Losses of the first steps in float32 from the given weights, nothing flipped."""
    step = Step(model, weights, batch, bfloat16=False, hflip=0.0, compiled=False)
    return [step().item() for _ in range(steps)]


def make_rungs(model: str, weights, batch, *, compiled: bool) -> dict[str, Step]:
    """The forms that a PyTorch user would choose from on a CPU."""
    precisions = {"float32": False}
    if _has_bfloat16():
        precisions["bfloat16 autocast"] = True
    return {
        f"{name} channels_last{', compiled' if faster else ''}": Step(
            model, weights, batch, bfloat16=bfloat16, hflip=HFLIP, compiled=faster
        )
        for faster in ((False, True) if compiled else (False,))
        for name, bfloat16 in precisions.items()
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


def serve(model: str, folder: Path, *, compiled: bool) -> None:
    """Answers requests until stdin ends."""
    weights = dict(np.load(folder / "weights.npz"))
    batch = dict(np.load(folder / "batch.npz"))
    rungs = make_rungs(model, weights, batch, compiled=compiled)
    files = folder / "files.json"
    if files.is_file():
        workers = torch.get_num_threads()
        batches = read_batches(json.loads(files.read_text("utf-8")), workers)
        rungs = {
            f"{name}, DataLoader of {workers}": step.from_batches(batches)
            for name, step in rungs.items()
        }
    versions = {"torch": torch.__version__, "torch_python": sys.version.split()[0]}
    library = model.partition(" ")[0]
    if model != library:
        package = {"smp": "segmentation-models-pytorch"}.get(library, library)
        versions[package] = importlib.metadata.version(package)
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
    parser.add_argument("model", help="see torch_networks.py")
    parser.add_argument("folder", type=Path, help="with weights.npz and batch.npz")
    parser.add_argument("--threads", type=int, required=True, help="of PyTorch")
    parser.add_argument("--compiled", action="store_true", help="torch.compile as well")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    serve(options.model, options.folder, compiled=options.compiled)


if __name__ == "__main__":
    main()
