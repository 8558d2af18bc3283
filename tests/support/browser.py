"""Pages as people see them: in Debian's Chromium (or the one that CHROMIUM names), after their scripts have run."""

import io
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

CHROMIUM = os.environ.get("CHROMIUM", "chromium")
OFFLINE = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --hide-scrollbars --virtual-time-budget=20000"
).split()
WITHIN_S = 120


def has_browser() -> bool:
    return shutil.which(CHROMIUM) is not None


def page(url: str) -> str:
    """The page's document, as its scripts have made it."""
    return _open(url, "--dump-dom").decode()


def picture(url: str, size: tuple[int, int]) -> Image.Image:
    """The page in a window of that size."""
    with tempfile.TemporaryDirectory() as temporary:
        shot = Path(temporary) / "shot.png"
        _open(url, "--window-size={},{}".format(*size), f"--screenshot={shot}")
        return Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")


def _open(url: str, *wanted: str) -> bytes:
    with tempfile.TemporaryDirectory() as profile:
        command = [CHROMIUM, *OFFLINE, f"--user-data-dir={profile}", *wanted, url]
        return subprocess.run(command, check=True, capture_output=True, timeout=WITHIN_S).stdout
