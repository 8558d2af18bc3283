"""Which holdout rows may judge: those that none of the models was trained or tuned on, whatever its lineage."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from graftwork.data.manifest import DatasetManifest, load_learnt, load_rows, open_manifest
from graftwork.data.rows import contents
from graftwork.errors import DataError, Problem
from graftwork.storage import Store

if TYPE_CHECKING:
    import pandas as pd


def judged_rows(store: Store, manifest: DatasetManifest, trained_on: Iterable[str]) -> "tuple[pd.DataFrame, int]":
    """The manifest's holdout without rows that are known to a model, and how many those were.

    trained_on: digests of the manifests that the models were trained on, empty where nobody knows. Known is a row whose
    id, content or group is on another side there, or among the rows beside them. Within one lineage there are none; a
    champion from elsewhere may know some. An id that is only a place in a file says nothing: a line that is added above
    moves it on to another row.
    Raises DataError if no row is left.
    """
    rows = load_rows(store, manifest, sides={"holdout"})
    is_known = rows["row_id"].isin([])
    is_named = rows["row_id"] != rows["source"] + "/" + rows["file"] + ":" + rows["line"].astype(str)
    for each in sorted(set(trained_on) - {manifest.digest, ""}):
        known = load_learnt(store, open_manifest(store, each))
        is_known |= is_named & rows["row_id"].isin(known["row_id"])
        is_known |= rows["group"].notna() & rows["group"].isin(known["group"].dropna())
        is_known |= contents(rows).isin(contents(known))
    left = rows[~is_known].reset_index(drop=True)
    if left.empty:
        reason = f"of {len(rows)} holdout rows, the models to judge were trained on {len(rows) - len(left)}"
        raise DataError(Problem(f"no row to judge on: {reason}", manifest.lineage, "land new rows, or raise holdout"))
    return left, len(rows) - len(left)
