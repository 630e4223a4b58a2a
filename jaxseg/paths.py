"""Where files that can be made again are kept."""

import os
from pathlib import Path


def cache_folder(cache_dir: str) -> Path:
    """`cache_dir` if it is set, else jaxseg's folder in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_dir).expanduser() if cache_dir else Path(home) / "jaxseg"
