"""The one error that a user can cause and mend.

Scripts print it without a traceback and end with exit code 2; any other exception is
a bug of ours and keeps its traceback.
"""

import contextlib
from collections.abc import Iterator


class InputError(Exception):
    """Wrong input, config or surroundings: what was expected, what was found, the fix.

    Attributes:
      expected: what the program needed, in one sentence.
      found: what it got instead, naming files, keys or numbers.
      fix: the line to type or the thing to do, ready to copy.
    """

    def __init__(self, expected: str, found: str, fix: str):
        super().__init__(expected, found, fix)
        self.expected, self.found, self.fix = expected, found, fix

    def __str__(self) -> str:
        return (
            f"expected: {self.expected}\nfound:    {self.found}\nfix:      {self.fix}"
        )


class Refusals:
    """Refusals that do not hinder each other, told at once."""

    def __init__(self):
        self._errors: list[InputError] = []

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Keeps an `InputError` of the body for `raise_all`."""
        try:
            yield
        except InputError as error:
            self._errors.append(error)

    def raise_all(self) -> None:
        """Raises the one that was collected, or all as one, if there are any."""
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            raise InputError(*(self._listed(p) for p in ("expected", "found", "fix")))

    def _listed(self, part: str) -> str:
        texts = [getattr(error, part) for error in self._errors]
        lines = [f"{number}. {text}" for number, text in enumerate(texts, start=1)]
        return "\n  ".join([f"{len(lines)} things:", *lines])


def shorten(names, limit: int = 5) -> str:
    """The first few names, comma-separated, and how many more there are.

    >>> shorten(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    names = [str(name) for name in names]
    listed = ", ".join(names[:limit])
    return listed + (f" and {len(names) - limit} more" if len(names) > limit else "")
