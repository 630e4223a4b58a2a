"""Tracing for elsewhere: other devices, every platform at once, or a translator."""

import contextlib
import contextvars
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Literal

from jax import lax

from jaxseg.types import Array

Target = Literal["accelerator", "any platform", "translation"]

_target: contextvars.ContextVar[Target | None] = contextvars.ContextVar(
    "target", default=None
)


def target() -> Target | None:
    """What is traced for; None for the machine at hand."""
    return _target.get()


@contextlib.contextmanager
def traced_for(target: Target) -> Iterator[None]:
    """What is traced inside is for elsewhere, not for the machine at hand.

    JAX remembers traces by function and would not notice: trace a new lambda.

    Args:
      target: 'accelerator' is a GPU or TPU, at hand or not. 'any platform' leaves a
        choice of forms open until the platform is known; 'translation' keeps every
        `translatable` function whole, as a `lax.composite` named 'jaxseg.<function>'
        with its settings, for a translator to another format. These two have no
        gradient.
    """
    token = _target.set(target)
    try:
        yield
    finally:
        _target.reset(token)


def translatable(function: Callable[..., Array]) -> Callable[..., Array]:
    """Arrays become parameters of the composite, settings its attributes."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args, **kwargs):
        if _target.get() != "translation":
            return function(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arrays = {k: v for k, v in bound.arguments.items() if hasattr(v, "dtype")}
        settings = {k: v for k, v in bound.arguments.items() if k not in arrays}
        whole = lax.composite(
            lambda *values, **settings: function(
                **dict(zip(arrays, values, strict=True)), **settings
            ),
            name=f"jaxseg.{function.__name__}",
        )
        return whole(*arrays.values(), **settings)

    return call
