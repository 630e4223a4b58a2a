"""PyTorch's side of `benchmark.py step --against torch`: a child process.

It trains the same network, from the library that its users have it from where there is
one, from the same weights on the same batch.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxseg.config import Run, Spec
from jaxseg.errors import InputError
from jaxseg.torch_names import to_torch, torch_name

TWIN = Path(__file__).with_name("torch_twin.py")
OWN = {  # torch_networks.py has these, with such keys
    "unet": {
        "norm": "batch",
        "activation": "relu",
        "decoder": "transpose",
        "head_kernel": 1,
        "image_head": False,
    },
    "segdecnet": {"variant": "released", "adjust_gradient": True},
}

Arrays = dict[str, np.ndarray]


def twin_of(run: Run) -> str:
    """The network as torch_twin.py names it.

    Raises:
      InputError: PyTorch's libraries have none like it, and the twin neither; or it is
        not for two classes on images of three colours.
    """
    twin = _name_of(run.model.network)
    channels, classes = run.data.channels, run.data.source.kwargs.get("classes", ())
    if channels != 3 or len(classes) > 2:
        raise InputError(
            "two classes on images of three colours, as PyTorch's side has them",
            f"{channels} channel(s), {len(classes) or 'two'} classes",
            "the same command without --against",
        )
    return twin


def _name_of(network: Spec) -> str:
    name, keys = network.name, network.kwargs
    encoder = keys.get("encoder", "")
    is_resnet, is_smp = encoder.startswith("resnet"), encoder.startswith("smp_")
    if name == "classifier" and not is_smp:
        return f"{'torchvision' if is_resnet else 'timm'} {encoder}"
    plain = not keys.get("image_head") and keys.get("skips") == "blocks"
    if name == "encoder_unet" and plain and (is_resnet or is_smp):
        return f"smp {encoder.removeprefix('smp_').replace('_', '-')}"
    for own, wanted in OWN.items():
        if name == own and wanted.items() <= keys.items():
            return own
    raise InputError(
        "a network that PyTorch has too: a classifier, a plain unet with batch norm, "
        "SegDecNet, or an encoder_unet of segmentation_models.pytorch",
        f"{name} with {dict(keys)}",
        "--config.model.encoder=smp_efficientnet_b0 --config.model.skips=blocks",
    )


def without_chance(run: Run) -> Run:
    """The same without dropout, which no two programs draw alike."""
    network = run.model.network
    zero = {k: 0.0 for k in ("drop_path", "dropout") if k in network.kwargs}
    if network.name == "unet":
        zero = {"dropout": (0.0,) * len(network.kwargs["dropout"])}
    calm = Spec(network.name, {**network.kwargs, **zero})
    return dataclasses.replace(run, model=dataclasses.replace(run.model, network=calm))


def port_weights(twin: str, weights: Arrays) -> Arrays:
    """Parameters by the name and in the layout of the twin's state dict."""
    library, _, model = twin.partition(" ")
    if not model:
        return {_own_name(name): _own_layout(name, w) for name, w in weights.items()}
    naming = "timm" if library == "timm" else "torchvision"
    if library == "smp" and not model.startswith("resnet"):
        naming = "smp"
    ported = {}
    for name, weight in weights.items():
        if name.startswith("image_head"):
            leaf = "bias" if name.endswith("bias") else "weight"
            theirs = f"{'fc' if library == 'torchvision' else 'classifier'}.{leaf}"
        else:
            theirs = torch_name(f"params/{name}", naming, model[-2:])
        if library == "smp" and name.startswith("encoder/"):
            theirs = f"encoder.{theirs}"
        ported[theirs] = to_torch(weight, theirs)
    return ported


def _own_name(name: str) -> str:
    *path, leaf = name.split("/")
    return ".".join([*path, "bias" if leaf == "bias" else "weight"])


def _own_layout(name: str, weight: np.ndarray) -> np.ndarray:
    if name.startswith("up_") and weight.ndim == 4:
        return weight.transpose(2, 3, 0, 1)  # ConvTranspose2d wants [in, out, h, w]
    return to_torch(weight, _own_name(name))


class Twin:
    """The other side of torch_twin.py; that process idles while it is not asked."""

    def __init__(self, process: subprocess.Popen):
        self._process = process
        ready = self._answer()
        self.rungs, self.versions = ready["rungs"], ready["versions"]
        self.left_out = {}

    def trace(self, steps: int) -> list[float]:
        """Losses of the first steps."""
        return self._ask({"trace": steps})["losses"]

    def run(self, rung: str, steps: int) -> float:
        """Seconds of all steps together.

        Raises:
          InputError: it worked before, and does no longer.
        """
        answer = self._ask({"run": steps, "rung": rung})
        if "error" in answer:
            raise InputError(
                f"PyTorch {rung} to go on working",
                answer["error"],
                "a smaller --config.train.batch_size, or no --compiled",
            )
        return answer["seconds"]

    def leave_out_failing(self) -> None:
        """Makes one step of every rung; `rungs` are those that could.

        `left_out` says why the others could not.
        """
        for rung in list(self.rungs):
            answer = self._ask({"run": 1, "rung": rung})
            if "error" in answer:
                self.rungs.remove(rung)
                self.left_out[rung] = answer["error"]
                print(f"- PyTorch {rung} is left out: {answer['error']}")

    def _ask(self, request: dict) -> dict:
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            python, code = self._process.args[0], self._process.wait()
            raise _no_torch(f"{python} ended with {code}; its words are above")
        return json.loads(line)


@contextlib.contextmanager
def open_twin(
    python: str,
    twin: str,
    weights: Arrays,
    batch: Arrays,
    compiled: bool,
    listing: dict | None = None,
) -> Iterator[Twin]:
    """The twin with those weights; its process ends with the block.

    Args:
      twin: from `twin_of`.
      weights: from `port_weights`.
      listing: from `benchmark_files.Files`, to read batches from in the timing.

    Raises:
      InputError: jax runs on what the twin cannot, or that Python lacks what it needs.
    """
    device = _device()
    threads = str(len(os.sched_getaffinity(0)))
    # Threads that spin while they wait would slow the other side down.
    quiet = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": threads}
    where = ["--device", device, "--threads", threads]
    faster = ["--compiled"] if compiled else []
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "weights.npz", **weights)
        np.savez(Path(folder) / "batch.npz", **batch)
        if listing:
            text = json.dumps(listing)
            (Path(folder) / "files.json").write_text(text, encoding="utf-8")
        try:
            process = subprocess.Popen(
                [python, str(TWIN), twin, folder, *where, *faster],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | quiet,
            )
        except OSError as error:
            raise _no_torch(f"{python}: {error.strerror}") from None
        with process:
            yield Twin(process)


def _no_torch(found: str) -> InputError:
    fix = "--torch-python PATH/bin/python of an environment with them"
    return InputError(
        "a Python with torch, numpy and Pillow, and for these networks torchvision, "
        "timm and segmentation-models-pytorch",
        found,
        fix,
    )


def _device() -> str:
    """The device of jax, as PyTorch calls it; the twin has it as well."""
    import jax

    name = {"cpu": "cpu", "gpu": "cuda"}.get(jax.default_backend())
    if name is None or (name == "cuda" and jax.device_count() > 1):
        raise InputError(
            "one GPU, or a CPU, for both sides",
            f"jax runs on {jax.device_count()} of {jax.devices()[0].device_kind}",
            "CUDA_VISIBLE_DEVICES=0 before the command, JAX_PLATFORMS=cpu, or no "
            "--against",
        )
    return name
