"""A trained network, ready for images of any size.

Images are brought to the scale of the training, and the probabilities back to the size
of the image:

- trained on resized images: the whole image is resized as there (bilinear,
  antialiased), and the probabilities are enlarged bilinearly;
- trained on windows (`data.crop`): overlapping tiles of the image as it is, blended as
  in `jaxseg.infer`;
- with `tile`, for images that are larger than those of the training: the image is
  resized as much as the images of the training were, and then tiled.

A classifier that goes tile by tile says something about every tile (`predict.tiles`).

Score and decision of an image are those of the network's own pixels, before they are
enlarged, as validation judged them.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxseg import infer, parallel, steps
from jaxseg.augment import make_normalize
from jaxseg.backend import resolve_precision
from jaxseg.data.images import UnreadableImage, decode_image, resize_image
from jaxseg.errors import InputError
from jaxseg.infer import Strip, enlarge, enlarge_strips
from jaxseg.predict.plan import Plan, make_plan
from jaxseg.predict.result import Result, Watch
from jaxseg.predict.tiles import tiles_of
from jaxseg.report.overlays import decide
from jaxseg.trained import Trained, restore

Probs = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """A trained network. Threads may share one; it holds nothing that changes."""

    trained: Trained
    plan: Plan
    precision: str
    mesh: Mesh
    variables: Any
    step: Callable

    @property
    def classes(self) -> tuple[str, ...]:
        return self.trained.classes

    def __str__(self) -> str:
        """How images are treated, one sentence."""
        plan, size = self.plan, "{} x {}".format(*self.plan.size)
        way = f"images are resized to {size}"
        if plan.tiled:
            way = f"tiles of {size} that overlap by {plan.overlap} pixels"
            if plan.scale != (1.0, 1.0):
                way += " of images at {:.3g} x {:.3g} of their size".format(*plan.scale)
        flips = ", the mean over four mirror images" * (len(plan.flips) > 1)
        return (
            f"{self.trained.network.name} in {self.precision}: {way}{flips}; "
            f"{plan.batch_size} at a time"
        )

    def predict(
        self, image: np.ndarray | str | Path, *, probabilities: bool = True
    ) -> Result | list[Result]:
        """The result of an image, or a list of them for several.

        Args:
          image: [H, W, C] uint8, or [H, W] for a grey network, of any size; [N, H, W,
            C] for several; or the path of an image file, which is read as in training:
            turned upright, grey repeated, alpha dropped.
          probabilities: whether the result has them.

        Raises:
          InputError: another shape or type, or a file that is no image.
        """
        if isinstance(image, str | Path):
            image = _read(Path(image), self.trained.preprocessing.channels)
        else:
            image = self._check(np.asarray(image))
        dtype = np.float32 if probabilities else None
        results = list(self.results(image if image.ndim == 4 else [image], dtype))
        return results if image.ndim == 4 else results[0]

    def results(
        self, images: Iterable[np.ndarray], dtype: type | None
    ) -> Iterator[Result]:
        """The result of each image [h, w, C]; whole images go in batches.

        Args:
          dtype: of the probabilities: np.float32; np.uint16 for round(65535 p);
            np.uint8 for round(255 p) of the only foreground class, or of several
            classes of the decided one, K = 1; None leaves them out.
        """
        if self.plan.tiled:
            yield from (self.tile(image, dtype) for image in images)
            return
        images, fill = iter(images), None
        while batch := list(itertools.islice(images, self.plan.batch_size)):
            # A single image is not worth a whole batch.
            fill = fill or (self.plan.batch_size if len(batch) > 1 else self.mesh.size)
            outputs = self.run(np.stack([self.fit(image) for image in batch]), fill)
            for i, image in enumerate(batch):
                probs = {name: values[i] for name, values in outputs.items()}
                yield self.finish(probs, image.shape[:2], dtype)

    def fit(self, image: np.ndarray) -> np.ndarray:
        """The image [h, w, C] as the network gets it, whole."""
        return resize_image(image, self.plan.size)

    def run(self, images: np.ndarray, fill: int) -> dict[str, np.ndarray]:
        """`mask_probs` [N, H, W, K] and/or `image_probs` [N, K] of N network inputs.

        Args:
          images: [N, H, W, C] uint8.
          fill: N is filled up to this number; every number is compiled once.
        """
        count = len(images)
        if count < fill:
            more = np.repeat(images[:1], fill - count, axis=0)
            images = np.concatenate([images, more])
        total: dict[str, Any] = {}
        for axes in self.plan.flips:
            batch = {"image": np.ascontiguousarray(np.flip(images, axes))}
            outputs = self.step(self.variables, parallel.put_batch(batch, self.mesh))
            for name, values in jax.device_get(outputs).items():
                values = np.flip(values, axes) if name == "mask_probs" else values
                total[name] = total[name] + values if name in total else values
        number = np.float32(len(self.plan.flips))
        return {name: values[:count] / number for name, values in total.items()}

    def finish(self, probs: Probs, size: tuple[int, int], dtype: type | None) -> Result:
        """The result of an image of a size, from the outputs for the whole of it.

        Args:
          probs: `mask_probs` [H, W, K] and/or `image_probs` [K].
        """
        watch = Watch(self.trained)
        if "mask_probs" not in probs:
            return watch.result(None, None, probs["image_probs"])
        watch.see(probs["mask_probs"])
        pixels = self._assemble(enlarge(probs["mask_probs"], size), size, dtype)
        return watch.result(*pixels, probs.get("image_probs"))

    def tile(self, image: np.ndarray, dtype: type | None) -> Result:
        """The result of an image [h, w, C], tile by tile."""
        if "seg_logits" not in self.trained.task.needs:
            return self._classify_tiles(image)
        size, plan, seen = image.shape[:2], self.plan, []
        inner = self._scale(size)

        def predict(tiles: np.ndarray) -> np.ndarray:
            outputs = self.run(tiles, plan.batch_size)
            seen.append(outputs.get("image_probs"))
            return outputs["mask_probs"]

        tiling = self._tiling()
        strips = infer.predict_strips(predict, resize_image(image, inner), **tiling)
        watch = Watch(self.trained)
        strips = watch.passing(strips)
        if inner != size:
            strips = enlarge_strips(strips, inner[0], size)
        mask, kept = self._assemble(strips, size, dtype)
        # The image has a defect if any of its tiles has one.
        image_probs = None if seen[0] is None else np.concatenate(seen).max(axis=0)
        return watch.result(mask, kept, image_probs)

    def _classify_tiles(self, image: np.ndarray) -> Result:
        size, plan = image.shape[:2], self.plan

        def predict(tiles: np.ndarray) -> np.ndarray:
            return self.run(tiles, plan.batch_size)["image_probs"]

        resized = resize_image(image, self._scale(size))
        tiles = tiles_of(
            infer.predict_tiles(predict, resized, **self._tiling()),
            size=size,
            tile=plan.size,
            scale=plan.scale,
            thresholds=self.trained.thresholds,
        )
        return Watch(self.trained).result(None, None, tiles.image_probs, tiles)

    def _scale(self, size: tuple[int, int]) -> tuple[int, int]:
        """What an image of a size is resized to before it is cut into tiles."""
        sides = zip(size, self.plan.scale, strict=True)
        return tuple(max(round(side * scale), 1) for side, scale in sides)

    def _tiling(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "tile": plan.size,
            "overlap": plan.overlap,
            "batch_size": plan.batch_size,
            "stride": plan.stride,
        }

    def _assemble(
        self, strips: Iterator[Strip], size: tuple[int, int], dtype: type | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Mask and probabilities of an image; only a strip is float32 at a time."""
        mask, kept = np.empty(size, np.uint8), None
        for top, strip in strips:
            rows = slice(top, top + len(strip))
            mask[rows] = decide(strip, self.trained.thresholds)
            if dtype is None:
                continue
            if dtype is np.uint8:
                strip = strip.max(-1, keepdims=True)
            if kept is None:
                kept = np.empty((*size, strip.shape[-1]), dtype)
            whole = 1 if dtype is np.float32 else np.float32(np.iinfo(dtype).max)
            kept[rows] = strip if whole == 1 else np.rint(strip * whole)
        return mask, kept

    def _check(self, image: np.ndarray) -> np.ndarray:
        """[h, w, C] or [N, h, w, C] uint8, with the channels of the training."""
        channels = self.trained.preprocessing.channels
        if image.ndim == 2 and channels == 1:
            image = image[..., None]
        if image.dtype != np.uint8:
            scaled = image.dtype.kind == "f" and image.size and image.max() <= 1
            raise InputError(
                "pixels as uint8, 0 to 255",
                f"{image.dtype}",
                "(255 * image).round().astype(np.uint8)"
                if scaled
                else "Image.open(path) of Pillow gives uint8; or pass the path itself",
            )
        if image.ndim not in (3, 4) or image.shape[-1] != channels:
            raise InputError(
                f"an image [H, W, {channels}], or several [N, H, W, {channels}]: the "
                f"network was trained on {'grey' if channels == 1 else 'RGB'} images",
                f"shape {image.shape}",
                _fix_channels(image, channels),
            )
        if not image.size:
            raise InputError("an image with pixels", f"shape {image.shape}", "another")
        return image


def load(
    folder: str | Path,
    *,
    tile: int | bool = False,
    overlap: int | None = None,
    batch_size: int | None = None,
    flips: bool = False,
    precision: str = "auto",
) -> Predictor:
    """A trained network, ready for images.

    Args:
      folder: model/ of a finished run.
      tile: for a network that was trained on resized images: True cuts larger ones
        into tiles at the scale of the training; a number is the side of a tile, not
        for a classifier. One that was trained on windows always works tile by tile.
      overlap: of tiles, pixels; None is a quarter of a tile, 0 for a classifier.
      batch_size: images or tiles at a time; None is what suits the device.
      flips: averages the probabilities over the image and its mirror images: four
        times the work.
      precision: 'float32', 'bfloat16', or 'auto', which is what this machine is
        fastest in: on a CPU float32, unless `backend.set_xla_flags` ran before jax
        started, as in the scripts, and the CPU has bfloat16.

    Raises:
      InputError: no model folder, a damaged one, or a tile that does not fit.
    """
    trained = restore(Path(folder))
    resolved = resolve_precision(precision)
    model = trained.build(jnp.dtype(resolved))
    kept = trained.preprocessing
    normalize = make_normalize(kept.mean, kept.std)
    step = steps.make_predict_step(model, trained.task, normalize)
    plan = make_plan(
        trained,
        model,
        tile=tile,
        overlap=overlap,
        batch_size=batch_size,
        flips=flips,
    )
    _refuse_small_tiles(step, trained, plan)
    mesh = parallel.make_mesh(plan.batch_size)
    return Predictor(
        trained,
        plan,
        resolved,
        mesh,
        jax.device_put(trained.variables, parallel.replicated(mesh)),
        parallel.compile_batch_step(step, mesh),
    )


def _refuse_small_tiles(step: Callable, trained: Trained, plan: Plan) -> None:
    shape = (1, *plan.size, trained.preprocessing.channels)
    image = jax.ShapeDtypeStruct(shape, jnp.uint8)
    try:
        jax.eval_shape(step, trained.variables, {"image": image})
    except InputError as error:
        found, fix = f"tiles of {plan.size}", "--tile without a number"
        raise InputError(error.expected, found, fix) from None


def _fix_channels(image: np.ndarray, channels: int) -> str:
    if channels == 1:
        return 'np.asarray(Image.fromarray(image).convert("L")), with Pillow\'s Image'
    if image.ndim == 2:
        return "np.repeat(image[..., None], 3, axis=-1)"
    if image.shape[-1] == 1:
        return "np.repeat(image, 3, axis=-1)"
    return "image[..., :3], if these are red, green and blue"


def _read(path: Path, channels: int) -> np.ndarray:
    """The pixels of an image file, as training reads them."""
    expected = "an image file"
    try:
        return decode_image(path.read_bytes(), channels)
    except OSError as error:
        found = f"'{path}': {error.strerror}"
        raise InputError(expected, found, "the path of an image") from None
    except UnreadableImage as error:
        raise InputError(expected, f"'{path}' {error}", "another file") from None
