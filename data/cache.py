"""Where converted images and what was found out about shards are kept between runs."""

import os
from pathlib import Path


def folder() -> Path:
    """`$CONVNETS_CACHE`, else `~/.cache/convnets`; it may not exist yet."""
    return Path(os.environ.get("CONVNETS_CACHE") or "~/.cache/convnets").expanduser()
