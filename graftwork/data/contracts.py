"""The data contract: pandera checks on the raw rows; a row that breaks one is set aside with the check's name.

A contract is YAML in pandera's own schema format, and comes on top of what must hold for any text: it is there, it is
not blank, it has no NUL character. Cells are text, so a numeric check needs `dtype: float64` and `coerce: true`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.data.quarantine import BadRow, Cells
from graftwork.data.labels import NOT_A_NUMBER
from graftwork.documents import read_document
from graftwork.errors import Problem, RecipeError

if TYPE_CHECKING:
    import pandas
    from pandera.pandas import Column, DataFrameSchema

MISSING = "missing"


def contract_columns(contract: dict[str, Any] | None) -> tuple[str, ...]:
    """The columns that a contract speaks of."""
    return tuple((contract or {}).get("columns", {}))


def read_contract(path: Path) -> dict[str, Any]:
    """The contract as plain values. Raises RecipeError where it is no pandera schema with columns."""
    document = read_document(path)
    contract = document.data
    if not (isinstance(contract, dict) and isinstance(contract.get("columns"), dict) and contract["columns"]):
        raise RecipeError(Problem("a contract needs `columns:`", document.place(()), "see contracts/reviews.yaml"))
    _columns(contract, str(path))
    return contract


def broken_rows(
    rows: Sequence[Cells], columns: Sequence[str], texts: Sequence[str], contract: dict[str, Any] | None
) -> dict[int, BadRow]:
    """What breaks the contract, by position in `rows` (cells in the order of `columns`).

    texts: the columns that hold a text.
    """
    import pandas

    frame = pandas.DataFrame(rows, columns=list(columns), dtype="str")
    schema = _schema(texts, contract)
    broken: dict[int, BadRow] = {}
    # A cell that can't be coerced keeps pandera from running the column's other checks: set aside, then look again.
    while found := _failures(schema, frame):
        broken |= found
        frame = frame.drop(index=list(found))
    return broken


def _failures(schema: "DataFrameSchema", frame: "pandas.DataFrame") -> dict[int, BadRow]:
    from pandera.errors import SchemaErrors

    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases
    else:
        return {}
    cases = cases[cases["index"].notna()].drop_duplicates("index")
    if cases.empty:
        case = error.failure_cases.iloc[0]
        raise RecipeError(Problem(f"column {case['column']!r} fails as a whole: {case['check']}", "the data contract"))
    return {
        int(index): BadRow(str(column), *_reason(str(check), frame.at[index, column]))
        for index, column, check in zip(cases["index"], cases["column"], cases["check"], strict=True)
    }


def _reason(check: str, value: Any) -> tuple[str, str]:
    if check == "not_nullable":
        return MISSING, ""
    is_number = check.startswith(("coerce_dtype('float", "coerce_dtype('int"))
    return NOT_A_NUMBER if is_number else f"breaks {check}", str(value)


def _schema(texts: Sequence[str], contract: dict[str, Any] | None) -> "DataFrameSchema":
    from pandera.pandas import Check, Column, DataFrameSchema

    columns = _columns(contract, "the data contract") if contract else {}
    always = [
        Check.str_matches(r"(?s).*\S", error="the rule that a text is not blank"),
        Check.str_matches(r"[^\x00]*$", error="the rule that a text holds no NUL character"),
    ]
    for text in texts:
        extra = columns[text].checks if text in columns else []
        columns[text] = Column(str, [*always, *extra])
    return DataFrameSchema(columns)


def _columns(contract: dict[str, Any], where: str) -> "dict[str, Column]":
    from pandera.io.pandas_io import deserialize_schema

    try:
        return deserialize_schema(contract).columns
    except Exception as error:  # pandera names no error of its own for a schema that it can't build
        raise RecipeError(Problem(f"not a pandera schema: {error}", where)) from error
