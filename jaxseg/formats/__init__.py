"""A finished model as one file for other programs, compared before it is kept.

| format      | inside                              | read by                          |
|-------------|-------------------------------------|----------------------------------|
| stablehlo   | all, from pixels to decisions       | jax.export, of the same half year|
| onnx        | the same                            | onnxruntime and others           |
| safetensors | weights and model.json              | code of one's own                |
| pytorch     | weights                             | segmentation_models_pytorch.Unet |
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxseg import files
from jaxseg.errors import InputError
from jaxseg.formats import examples, onnx_file, parity, smp, stablehlo, weights
from jaxseg.formats.finished import Finished, read_finished
from jaxseg.formats.parity import Mismatch

__all__ = ["FORMATS", "Mismatch", "export_model"]


@dataclasses.dataclass(frozen=True)
class Format:
    """How a model becomes a file.

    Attributes:
      write: `(model, path)`.
      read: the file as a function of images, to compare it; None if it holds weights.
      check: `(model, path)` of weights: raises `Mismatch`.
      checked: what can be said after it.
      example: `(model, path, image)` to use the file.
      beside: the facts go into a second file, FILE.json, for want of room inside.
    """

    write: Callable[[Finished, Path], None]
    example: Callable[[Finished, Path, Path | None], str]
    read: Callable[[Path], parity.Run] | None = None
    check: Callable[[Finished, Path], None] = lambda model, path: None
    checked: str = ""
    beside: bool = False


FORMATS = {
    "stablehlo": Format(
        stablehlo.write,
        examples.of_network(stablehlo.EXAMPLE),
        read=stablehlo.read,
        beside=True,
    ),
    "onnx": Format(
        onnx_file.write, examples.of_network(onnx_file.EXAMPLE), read=onnx_file.read
    ),
    "safetensors": Format(
        weights.write,
        examples.of_weights(weights.EXAMPLE),
        check=weights.refuse_other,
        checked="the arrays read back bit for bit",
    ),
    "pytorch": Format(
        smp.write,
        lambda model, path, image: smp.example(model, path),
        checked="not run here, without PyTorch; the tests of jaxseg compare the logits",
    ),
}


def export_model(
    folder: Path, kind: str, out: Path, images: Path | None
) -> tuple[list[str], str]:
    """Writes a model folder as a file; on any failure there is none.

    Args:
      kind: a key of `FORMATS`.
      images: a folder of images to compare on; None compares on noise.

    Returns:
      what was done, a line each, and a program that uses the file.

    Raises:
      InputError: the model, the place or the images are wrong, a package is missing, or
        the network has no such form.
      Mismatch: the file does not compute what the model computes.
    """
    form, model = FORMATS[kind], read_finished(folder)
    paths = parity.find_images(images) if images else []
    batches = parity.make_batches(model, paths) if form.read else []
    with _appears_when_done(out) as temporary:
        form.write(model, temporary)
        if form.read:
            lines = parity.compare(model, form.read(temporary), batches)
            source = f"images of {images}" if images else "noise (better: --images DIR)"
            apart = " and ".join(lines)
            lines = [f"compared with JAX on {source}: at most {apart} apart"]
        else:
            form.check(model, temporary)
            lines = [form.checked]
        size = temporary.stat().st_size / 1e6
        if form.beside:
            with _appears_when_done(out.with_name(f"{out.name}.json")) as second:
                second.write_text(json.dumps(model.facts_of_network, indent=2))
    facts = model.facts_of_network if form.read else model.facts_of_weights
    about = [
        f"{out} is written, {size:.1f} MB",
        f"input: {facts['input']}",
        f"{model.size.text}; trained at {'x'.join(map(str, model.image_size))}",
    ]
    return about + lines, form.example(model, out, paths[0] if paths else None)


@contextlib.contextmanager
def _appears_when_done(out: Path) -> Iterator[Path]:
    """Gives a name beside `out` that becomes `out` when all went well."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        if out.is_dir():
            raise IsADirectoryError(0, "is a folder")
        temporary.touch()
    except OSError as error:
        raise InputError(
            "a file that can be written",
            f"{out}: {error.strerror}",
            "--out FILE in a folder that exists",
        ) from None
    try:
        with files.explain_full_disk(out.parent, "free some, or --out elsewhere"):
            yield temporary
            temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
