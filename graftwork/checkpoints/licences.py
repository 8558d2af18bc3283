"""Under which licence a checkpoint comes, as far as it says so itself."""

import re
from pathlib import Path

FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)
LICENCE_LINE = re.compile(r"^license:[ \t]*[\"']?([\w.+-]+)", re.MULTILINE)
# How the licence texts that weights come under begin.
TEXTS = {"Apache License": "apache-2.0", "MIT License": "mit", "BSD 3-Clause License": "bsd-3-clause"}
HEAD = 200


def licence_of(folder: Path) -> str | None:
    """The licence in the front matter of the model card, else the one whose text LICENSE holds, in lower case."""
    card = _read(folder / "README.md")
    front = FRONT_MATTER.match(card)
    stated = LICENCE_LINE.search(front[1]) if front else None
    if stated:
        return stated[1].lower()
    heads = [_read(path)[:HEAD] for path in sorted(folder.glob("LICENSE*"))]
    return next((name for title, name in TEXTS.items() if any(title in head for head in heads)), None)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
