"""Which image sizes a trained network takes."""

import dataclasses

from jax import export

from jaxseg.config import Spec
from jaxseg.models import encoders
from jaxseg.models.segdecnet import DECISION_STRIDE, STRIDE


@dataclasses.dataclass(frozen=True)
class SizeRule:
    """Which H and W a network takes.

    Attributes:
      trained: (H, W) of training, which always fits.
      multiple: both sides are multiples of it; None if only `trained` fits.
      smallest: side in pixels.
    """

    trained: tuple[int, int]
    multiple: int | None
    smallest: int = 1

    @property
    def text(self) -> str:
        """The rule for people."""
        height, width = self.trained
        if self.multiple is None:
            return f"H = {height} and W = {width}: this network has one size"
        least = f", from {self.smallest} on" if self.smallest > self.multiple else ""
        return f"sides must be multiples of {self.multiple}{least}"

    def symbolic(self) -> tuple:
        """(N, H, W) with a symbol, or a multiple of one, for all that is free."""
        if self.multiple is None:
            return (*export.symbolic_shape("n"), *self.trained)
        factor = "" if self.multiple == 1 else f"{self.multiple}*"
        least = -(-self.smallest // self.multiple)
        return export.symbolic_shape(
            f"n, {factor}h, {factor}w",
            constraints=(f"h >= {least}", f"w >= {least}") if least > 1 else (),
        )

    def another(self) -> tuple[int, int]:
        """A size that fits and is not that of training, unless there is none."""
        if self.multiple is None:
            return self.trained
        height, width = self.trained
        return height + self.multiple, width + 2 * self.multiple


def size_rule(network: Spec, trained: tuple[int, int]) -> SizeRule:
    """The rule of a network.

    A classifier trained at a size that is no multiple of its stride keeps that size:
    where its strided kernels stand depends on it. So does a SegDecNet of strips, for
    which one side alone would not say whether a size is large enough.
    """
    if network.name == "unet":
        return SizeRule(trained, 2 ** (len(network.kwargs["widths"]) - 1))
    if network.name == "segdecnet":
        smallest = 2 * DECISION_STRIDE
        is_strip = min(trained) < smallest
        return SizeRule(trained, None if is_strip else STRIDE, smallest)
    has_encoder = network.name in ("encoder_unet", "classifier")
    if has_encoder and all(side % encoders.STRIDE == 0 for side in trained):
        return SizeRule(trained, encoders.STRIDE)
    return SizeRule(trained, None)
