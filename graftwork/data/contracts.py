"""The data contract: pandera checks on the raw rows; a row that breaks one is set aside with the check's name.

A contract is YAML in pandera's own schema format, and comes on top of what must hold for any text: it is there, it is
not blank, it has no NUL character. Cells are text, so a numeric check needs `dtype: float64` and `coerce: true`.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.data.quarantine import BadRow, Cells
from graftwork.documents import read_document
from graftwork.errors import Problem, RecipeError
from graftwork.targets.labels import NOT_A_NUMBER

if TYPE_CHECKING:
    import pandas
    from pandera.pandas import Column, DataFrameSchema

MISSING = "missing"
COERCE = "cells are text: a check of numbers needs `dtype: float64` and `coerce: true`"


@dataclass(frozen=True)
class Contract:
    """A contract as it was written; `broken_rows` finds out whether pandera can build it."""

    path: str
    schema: dict[str, Any]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it speaks of."""
        return tuple(self.schema["columns"])


def read_contract(path: Path) -> Contract:
    """The contract in a YAML file. Raises RecipeError."""
    document = read_document(path)
    schema = document.data
    if not (isinstance(schema, dict) and isinstance(schema.get("columns"), dict) and schema["columns"]):
        raise RecipeError(Problem("a contract needs `columns:`", document.place(()), "see contracts/reviews.yaml"))
    return Contract(str(path), {"schema_type": "dataframe"} | schema)


def broken_rows(
    rows: Mapping[int, Cells], columns: Sequence[str], texts: Sequence[str], contract: Contract | None
) -> dict[int, BadRow]:
    """What breaks the contract, by the key that the row has in `rows`.

    rows: cells in the order of `columns`. texts: the columns that hold a text. Raises RecipeError for a
    contract that pandera can't build or run.
    """
    import pandas

    frame = pandas.DataFrame(list(rows.values()), list(rows), list(columns), dtype="str")
    schema = _schema(texts, contract)
    broken: dict[int, BadRow] = {}
    # A cell that can't be coerced keeps pandera from running the column's other checks: set aside, then look again.
    while found := _failures(schema, frame, contract.path if contract else ""):
        broken |= found
        frame = frame.drop(index=list(found))
    return broken


def _failures(schema: "DataFrameSchema", frame: "pandas.DataFrame", where: str) -> dict[int, BadRow]:
    from pandera.errors import SchemaErrors

    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as error:
        failed = error.failure_cases
    else:
        return {}
    cases = failed[failed["index"].notna()].drop_duplicates("index")
    if cases.empty:
        case = failed.iloc[0]
        raise RecipeError(Problem(f"{case['check']} can't be checked on {case['column']!r}", where, COERCE))
    return {
        int(index): BadRow(str(column), *_reason(str(check), frame.at[index, column]))
        for index, column, check in zip(cases["index"], cases["column"], cases["check"], strict=True)
    }


def _reason(check: str, value: Any) -> tuple[str, str]:
    if check == "not_nullable":
        return MISSING, ""
    is_number = check.startswith(("coerce_dtype('float", "coerce_dtype('int"))
    return NOT_A_NUMBER if is_number else f"breaks {check}", str(value)


def _schema(texts: Sequence[str], contract: Contract | None) -> "DataFrameSchema":
    from pandera.pandas import Check, Column, DataFrameSchema

    columns = _columns(contract) if contract else {}
    always = [
        Check.str_matches(r"(?s).*\S", error="the rule that a text is not blank"),
        Check.str_matches(r"[^\x00]*$", error="the rule that a text holds no NUL character"),
    ]
    for text in texts:
        extra = columns[text].checks if text in columns else []
        columns[text] = Column(str, [*always, *extra])
    return DataFrameSchema(columns)


def _columns(contract: Contract) -> "dict[str, Column]":
    from pandera.io.pandas_io import deserialize_schema

    try:
        return deserialize_schema(copy.deepcopy(contract.schema)).columns
    except Exception as error:  # pandera names no error of its own for a schema that it can't build
        raise RecipeError(Problem(f"not a pandera schema: {error}", contract.path)) from error
