"""Packages that only some formats need."""

import importlib.util

from jaxseg.errors import InputError


def refuse_missing(*names: str, extra: str) -> None:
    """Refuses to go on without a package.

    Raises:
      InputError: names what is missing, and the extra of jaxseg that has it.
    """
    missing = [name for name in names if not importlib.util.find_spec(name)]
    if missing:
        raise InputError(
            f"the packages of jaxseg[{extra}]: {' and '.join(names)}",
            f"{' and '.join(missing)} not installed",
            f'pip install "jaxseg[{extra}]"',
        )
