"""Programs of some ten lines that use a file as it is, to be printed and copied."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from jaxseg.formats.finished import Finished

Example = Callable[[Finished, Path, Path | None], str]

NARROW = """
values = np.asarray(photo) / 257  # 16-bit grey
photo = Image.fromarray(values.round().astype(np.uint8))"""


def of_network(text: str) -> Example:
    """Of a file that is a function of images.

    Args:
      text: with the fields imports, path, image (lines that make `image`) and report.
    """

    def example(model: Finished, path: Path, image: Path | None) -> str:
        return text.format(
            imports="from PIL import Image\n" if image else "",
            path=quoted(path),
            image=_photo(model, image) if image else _noise(model),
            report=_report(model),
        )

    return example


def of_weights(text: str) -> Example:
    """Of a file that is read, not run; `text` has the field path."""
    return lambda model, path, image: text.format(path=quoted(path))


def quoted(value: object) -> str:
    """Text as ruff would write it."""
    return json.dumps(str(value), ensure_ascii=False)


def _photo(model: Finished, image: Path) -> str:
    """Opened as in training, but for the rotation that a camera asks for."""
    height, width = model.image_size
    mode = {1: "L", 3: "RGB"}[model.channels]
    axes = {1: "None, ..., None", 3: "None"}[model.channels]
    if model.facts["resize"] == "none":
        fit = f"crop((0, 0, {width}, {height}))  # any window of the photo"
    else:
        fit = f"resize(({width}, {height}), Image.Resampling.BILINEAR)"
    return (
        f"photo = Image.open({quoted(image)}){NARROW if _is_deep(image) else ''}"
        f".convert({quoted(mode)})\n"
        f"photo = photo.{fit}\n"
        f"image = np.asarray(photo)[{axes}]  # {_shape(model)} uint8"
    )


def _is_deep(image: Path) -> bool:
    """Whether it is grey of 16 bit, which `convert` would clip to white."""
    with Image.open(image) as picture:
        return picture.mode.startswith("I")


def _noise(model: Finished) -> str:
    return (
        f"# Noise; in its place a photo as uint8 {_shape(model)}, see --images\n"
        f"image = np.random.default_rng(0).integers(0, 256, {_shape(model, '()')}, "
        "np.uint8)"
    )


def _shape(model: Finished, brackets: str = "[]") -> str:
    sizes = ", ".join(map(str, (1, *model.image_size, model.channels)))
    return f"{brackets[0]}{sizes}{brackets[1]}"


def _report(model: Finished) -> str:
    lines, needs = [], model.outputs
    if "mask" in needs:
        lines += [
            f"for number, name in enumerate({_listed(model.description['classes'])}):",
            '    share = (outputs["mask"][0] == number).mean()',
            '    print(f"{name}: {share:.2%} of the pixels")',
        ]
    if "decision" in needs:
        lines += [
            f"names = {_listed(model.image_classes)}",
            'print(names[outputs["decision"][0]], outputs["image_probs"][0])',
        ]
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    return f"[{', '.join(map(quoted, names))}]"
