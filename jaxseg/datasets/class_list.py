"""Names of the classes, from the config or from a file that the labelling tool wrote.

A text file has one name per line, the first is class 0. A JSON file maps ids to names,
{"0": "background", "1": "rust"}, or lists the names. Class 0 is the background.
"""

from pathlib import Path

from jaxseg import files
from jaxseg.errors import InputError, shorten
from jaxseg.types import IGNORE


def pixel_classes(
    root: Path, classes: tuple[str, ...], classes_file: str, *, no_class: str = ""
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes of a set with masks, and a note where a file names them.

    Args:
      root: folder of the dataset; `classes_file` may be relative to it.
      classes: names by id, used where there is no file.
      classes_file: path of the file, or ''.
      no_class: a label of pixels that count nowhere, which may stand among the names.

    Raises:
      InputError: fewer than two classes, or more than masks can tell apart, or two of
        one name; a file that is missing, or names no classes 0, 1, 2, ...
    """
    if classes_file:
        classes = _read(root / classes_file)
    classes = tuple(name for name in classes if name != no_class)
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise InputError(
            f"{classes_file or 'data.classes'} to name the background and at least one"
            " class, each once",
            f"{classes}",
            "a file with one name per line, the background first"
            if classes_file
            else """--config.data.classes="('background', 'crack')\"""",
        )
    if len(classes) > IGNORE:
        raise InputError(
            f"at most {IGNORE} pixel classes with the background: masks hold a byte per"
            f" pixel, of which {IGNORE} counts nowhere",
            f"{len(classes)} names in {classes_file or 'data.classes'}",
            "join classes, or leave out those that are not looked for",
        )
    note = f"{len(classes)} classes from {classes_file}: {shorten(classes, 12)}"
    return classes, (note,) if classes_file else ()


def _read(path: Path) -> tuple[str, ...]:
    fix = 'one name per line, or JSON such as {"0": "background", "1": "rust"}'
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() != ".json":
            return tuple(line.strip() for line in text.splitlines() if line.strip())
        named = files.parse_json(text)
    except OSError as error:
        missing = f"'{path}': {error.strerror}"
        fix = "--config.data.classes_file=FILE (inside data.dir, or a full path)"
        raise InputError("a file of class names", missing, fix) from None
    except ValueError as error:
        raise InputError("a file of class names", f"'{path}': {error}", fix) from None
    if isinstance(named, list):
        named = dict(enumerate(named))
    named = named if isinstance(named, dict) else {}
    names = {str(key): name for key, name in named.items()}
    ids = [str(index) for index in range(len(names))]
    if {*names} != {*ids} or not all(isinstance(n, str) for n in names.values()):
        expected = f"a name for each class 0, 1, 2, ... in '{path}'"
        raise InputError(expected, f"{shorten(names.items())}", fix)
    return tuple(names[index] for index in ids)
