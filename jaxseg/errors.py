"""The one error that a user can cause and mend.

Scripts print it without a traceback and end with exit code 2; any other exception is
a bug of ours and keeps its traceback.
"""


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


def shorten(names, limit: int = 5) -> str:
    """The first few names, comma-separated, and how many more there are.

    >>> shorten(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    names = [str(name) for name in names]
    listed = ", ".join(names[:limit])
    return listed + (f" and {len(names) - limit} more" if len(names) > limit else "")
