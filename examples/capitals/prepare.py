"""Write the movie reviews as words without capitals and punctuation, and beside them what a tag of each word puts back.

    python examples/capitals/prepare.py [FILE]

FILE (by default `capitals.tsv`) has the columns id, text and tags. CAP is a word with a capital letter; COMMA and STOP
come after a word: a comma, a semicolon or a colon; the end of a sentence. The texts are those of examples/reviews.
"""

import re
import sys
from pathlib import Path

REVIEWS = Path(__file__).parents[1] / "reviews/movies.tsv"
INNER = re.compile(r"[^\w'-]|_")
COMMA, STOP = (",", ";", ":"), (".", "!", "?")


def tag(word: str) -> tuple[str, str] | None:
    """The bare word and its tag; None of what is no word."""
    bare = INNER.sub("", word).strip("'-")
    if not bare:
        return None
    after = word.rstrip("'\")]-")
    parts = ["CAP"] if any(letter.isupper() for letter in bare) else []
    parts += ["COMMA"] if after.endswith(COMMA) else ["STOP"] if after.endswith(STOP) else []
    return bare.lower(), "+".join(parts) or "O"


def write_tags(target: Path) -> None:
    with target.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write("id\ttext\ttags\n")
        for line in REVIEWS.read_text(encoding="utf-8").splitlines():
            name, _, review = line.split("\t")
            tagged = [each for each in map(tag, review.split()) if each is not None]
            if tagged:
                words, tags = zip(*tagged, strict=True)
                stream.write(f"{name}\t{' '.join(words)}\t{' '.join(tags)}\n")


if __name__ == "__main__":
    write_tags(Path(sys.argv[1] if len(sys.argv) > 1 else "capitals.tsv"))
