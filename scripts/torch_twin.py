"""The PyTorch twin of jaxseg's training step, for `benchmark.py step --against torch`.

    PYTHON scripts/torch_twin.py 'smp resnet34' FOLDER --device cpu --threads 2

A child process: it needs torch, numpy, Pillow and the library that it takes the network
from, and never imports jaxseg. FOLDER holds weights.npz (parameters by their names in
the state dict) and batch.npz (`image` [N, H, W, 3] uint8 with `mask` [N, H, W], `label`
[N] or the targets of SegDecNet). With files.json (`images`, `labels` and perhaps
`masks`, the `size` and `batch_size` of batches) every rung reads these files, through a
DataLoader; else the batch lies on the device. It speaks JSON, a line each:

    at the start         -> {"rungs": ["float32 channels_last", ...], "versions": ...}
    {"trace": 5}         -> {"losses": [...]}   steps in float32, nothing flipped
    {"run": 3, "rung": "float32 channels_last"}
                         -> {"seconds": 2.4}    of all 3 steps, with random flips
                         or {"error": "..."}    where this form does not work here
"""

import argparse
import copy
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch_files import read_batches
from torch_networks import make_network

LEARNING_RATE = 1e-3
MEAN, STD = 0.5, 0.25  # of pixels in [0, 1]
HFLIP = 0.5
# The top of an EfficientNet, which its U-Net holds and never uses.
UNUSED = {"encoder._conv_head.weight", "encoder._bn1.weight", "encoder._bn1.bias"}


class Rung(NamedTuple):
    """A form of the step that PyTorch's users choose from.

    Attributes:
      precision: 'float32', on a GPU without TF32 (PyTorch's default has it in
        convolutions); 'TF32'; 'bfloat16 autocast'.
      compiled: mode of torch.compile for network and loss; '' without.
      graph: the whole step is one CUDA graph.
    """

    precision: str
    channels_last: bool = True
    compiled: str = ""
    graph: bool = False

    def __str__(self) -> str:
        mode = "" if self.compiled in ("", "default") else f" {self.compiled}"
        return (
            self.precision
            + " channels_last" * self.channels_last
            + f", compiled{mode}" * bool(self.compiled)
            + ", CUDA graph" * self.graph
        )


def offered_rungs(device: str, *, compiled: bool) -> list[Rung]:
    """From plain float32 to what the fastest do."""
    if device == "cpu":
        precisions = ["float32"] + ["bfloat16 autocast"] * _has_bfloat16()
        modes = ("", "default") if compiled else ("",)
        return [Rung(name, compiled=mode) for mode in modes for name in precisions]
    plain = Rung("bfloat16 autocast")
    rungs = [Rung("float32", False), Rung("TF32", False), plain]
    graphs = [plain._replace(graph=True)]
    if compiled:
        modes = ("default", "reduce-overhead")
        rungs += [plain._replace(compiled=mode) for mode in modes]
        # max-autotune would make graphs of its own, of the network alone.
        most = "max-autotune-no-cudagraphs"
        graphs.append(plain._replace(compiled=most, graph=True))
    return rungs + graphs  # last, since a capture that fails may leave traces


def build_network(model: str, weights: dict[str, np.ndarray]) -> nn.Module:
    """The network with the ported weights, training.

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
    return network.train()


class Step:
    """Flip, normalise, forward, cross-entropy, backward and Adam on one batch."""

    def __init__(self, model, weights, batch, rung: Rung, device: str, hflip: float):
        self.rung, self.device = rung, device
        self.batch = to_device(batch, device)
        self.hflip = 0.0 if "seg_target" in batch else hflip  # as jaxseg's side
        self.network = build_network(model, weights).to(device)
        if rung.channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=LEARNING_RATE,
            fused=True,
            capturable=rung.graph,
        )
        self.loss = self._loss
        if rung.compiled:  # all of it, or it is no such form
            mode = rung.compiled
            self.loss = torch.compile(self._loss, mode=mode, fullgraph=True)
        self.generator = torch.Generator(device)
        self._replay = None

    def from_batches(self, batches: Iterator[dict[str, torch.Tensor]]) -> "Step":
        """The same step on batches that come flipped."""
        step = copy.copy(self)
        step._flip = lambda: to_device(next(batches), self.device)
        return step

    def run(self, steps: int) -> float:
        """Seconds of all steps together, from an idle device to an idle device."""
        allow_tf32(self.rung.precision != "float32")
        torch.backends.cudnn.benchmark = True
        if self.rung.graph and not self._replay:
            self._replay = capture(self)
        advance = self._replay or self
        synchronize(self.device)
        started = time.perf_counter()
        for _ in range(steps):
            advance()
        synchronize(self.device)
        return time.perf_counter() - started

    def __call__(self) -> torch.Tensor:
        """One update; the loss before it."""
        loss = self.loss(self._flip())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        image = batch["image"].float() * (1 / (255 * STD)) - MEAN / STD
        image = image.permute(0, 3, 1, 2)  # NHWC in memory: that is channels_last
        if not self.rung.channels_last:
            image = image.contiguous()
        bfloat16 = self.rung.precision.startswith("bfloat16")
        with torch.autocast(self.device, torch.bfloat16, enabled=bfloat16):
            logits = self.network(image)
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
        count = len(self.batch["image"])
        of = {"device": self.device, "generator": self.generator}
        chosen = torch.rand(count, **of) < self.hflip
        flipped = dict(self.batch)
        for name in ("image", "mask"):
            if name in flipped:
                x = flipped[name]
                mine = chosen.view(-1, *[1] * (x.ndim - 1))
                flipped[name] = torch.where(mine, x.flip(2), x)
        return flipped


def allow_tf32(allowed: bool) -> None:
    """A setting of the process."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def to_device(batch: dict, device: str) -> dict[str, torch.Tensor]:
    """A batch of arrays or pinned tensors; on a CPU they stay where they are."""
    return {
        name: torch.as_tensor(array).to(device, non_blocking=True)
        for name, array in batch.items()
    }


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def capture(step: Step):
    """A function that repeats the whole step: one launch, as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # allocations and searches are no part of a graph
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(step.generator)
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def trace_losses(
    model: str, weights, batch, steps: int, device: str = "cpu"
) -> list[float]:
    """Losses of the first steps in float32 from the given weights, nothing flipped."""
    step = Step(model, weights, batch, Rung("float32"), device, hflip=0.0)
    allow_tf32(False)
    return [step().item() for _ in range(steps)]


def _has_bfloat16() -> bool:
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def serve(
    model: str, folder: Path, device: str, *, compiled: bool, answers: TextIO
) -> None:
    """Answers requests until stdin ends."""
    weights = dict(np.load(folder / "weights.npz"))
    batch = dict(np.load(folder / "batch.npz"))
    rungs = {
        str(rung): Step(model, weights, batch, rung, device, HFLIP)
        for rung in offered_rungs(device, compiled=compiled)
    }
    files = folder / "files.json"
    if files.is_file():
        workers = torch.get_num_threads()
        listing = json.loads(files.read_text("utf-8"))
        batches = read_batches(listing, workers, device, HFLIP)
        rungs = {
            f"{name}, DataLoader of {workers}": step.from_batches(batches)
            for name, step in rungs.items()
            if not step.rung.graph  # which has its batch within
        }
    versions = {"torch": torch.__version__, "torch_python": sys.version.split()[0]}
    if device == "cuda":
        versions["cuda"] = torch.version.cuda
        versions["cudnn"] = str(torch.backends.cudnn.version())
    library = model.partition(" ")[0]
    if model != library:
        package = {"smp": "segmentation-models-pytorch"}.get(library, library)
        versions[package] = importlib.metadata.version(package)
    ready = {"rungs": list(rungs), "versions": versions}
    print(json.dumps(ready), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "trace" in request:
            losses = trace_losses(model, weights, batch, request["trace"], device)
            answer = {"losses": losses}
        else:
            answer = try_to_run(rungs[request["rung"]], request["run"])
        print(json.dumps(answer), file=answers, flush=True)


def try_to_run(step: Step, steps: int) -> dict[str, float | str]:
    """A form may lack memory, a compiler or what a graph wants; others go on."""
    try:
        return {"seconds": step.run(steps)}
    except Exception as error:  # of the compiler, of CUDA, ...
        if step.device == "cuda":
            torch.cuda.empty_cache()  # for the others
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="see torch_networks.py")
    parser.add_argument("folder", type=Path, help="with weights.npz and batch.npz")
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--threads", type=int, required=True, help="of PyTorch")
    parser.add_argument("--compiled", action="store_true", help="torch.compile as well")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error(
            f"torch {torch.__version__} finds no GPU, where jaxseg runs on one"
        )
    torch.set_num_threads(options.threads)
    # What others print must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(
        options.model,
        options.folder,
        options.device,
        compiled=options.compiled,
        answers=answers,
    )


if __name__ == "__main__":
    main()
