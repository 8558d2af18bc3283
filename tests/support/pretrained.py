"""Texts to go on with pretraining on."""

from pathlib import Path

from tiny import write_project


def write_sentences(folder: Path, checkpoint: Path) -> None:
    """A project as of `write_project`, but the second sentence of each text but one says again what the first does."""
    write_project(folder, checkpoint)
    header, *lines, last = (folder / "made.csv").read_text().splitlines()
    said = [(*line.rsplit(",", 1), line.split()[1]) for line in lines]
    rows = [f"{text} . it was {word} and {word},{label}" for text, label, word in said]
    (folder / "made.csv").write_text("\n".join([header, *rows, last]) + "\n")
