"""The ledger's witness: every entry once more, as a file outside the database.

A hash chain shows what was changed in its middle. Whoever owns the database can cut off its tail, or write all of it
anew with hashes that fit. What the witness has seen can't be unsaid that way. What a crash kept from it, it is shown
when the ledger is next written to.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from graftwork.errors import GraftworkError, Problem
from graftwork.fingerprint import from_json, to_json
from graftwork.promotion.history import LedgerEntry
from graftwork.storage import make_folder, whole_file


class Witness:
    """A folder with a file for each entry, `<model>@<alias>/<number>.json`, that is written once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def see(self, entries: Iterable[LedgerEntry]) -> None:
        """Keep those that are not kept yet; what was seen before stays as it was, whatever they say now."""
        for entry in entries:
            place = self.place(entry)
            if not place.exists():
                make_folder(place.parent)
                with whole_file(place) as aside:
                    aside.write_text(to_json(entry), encoding="utf-8")

    def contradictions(self, entries: Iterable[LedgerEntry]) -> Iterator[Problem]:
        """What was seen and is not among these entries, all of a ledger, or is another one there."""
        hashes = {(entry.model, entry.alias, entry.sequence): entry.hash for entry in entries}
        for path in sorted(self.folder.glob("*/*.json")):
            try:
                seen = from_json(LedgerEntry, path.read_text(encoding="utf-8"))
            except GraftworkError as error:
                yield Problem(f"the witness of an entry was altered: {error}", str(path))
                continue
            found = hashes.get((seen.model, seen.alias, seen.sequence))
            if found != seen.hash:
                what = "it was taken out of the ledger" if found is None else "another entry was put in its place"
                yield Problem(what, seen.where, f"what it said stands in {path}")

    def place(self, entry: LedgerEntry) -> Path:
        """The file of an entry; names are escaped, so that none leads elsewhere."""
        return self.folder / quote(f"{entry.model}@{entry.alias}", safe="@ ") / f"{entry.sequence:06}.json"
