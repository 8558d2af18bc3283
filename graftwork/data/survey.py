"""What a data file tells about the recipe it needs: classes, lengths of texts, ids, columns that look like groups."""

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graftwork.data.chunks import TableFile, open_table, read_chunks
from graftwork.errors import DataError, Problem, RecipeError, raise_if, shorten
from graftwork.targets.labels import read_class
from graftwork.targets.target import LabelRule

LOOKED_AT_ROWS = 100_000
MOST_CLASSES = 50
OUTSIDE, NEARLY_ALL = "O", 0.95  # the tag of words that are none of what is looked for; a share of rows
FIRST = 100  # rows, of which one has such a tag where rows are tagged
# A numeric column with more values than this is a measure, not a set of classes.
MOST_NUMBERS = 20
THRESHOLD_CLASSES = ("low", "high")
TOKENS_PER_WORD = 1.4
SPECIAL_TOKENS = 2
# Scripts that put no spaces between words have about one token a character.
LABEL = re.compile(r"(.*[_-])?(label|class|category|target|sentiment|intent|topic|rating|stars|y)", re.IGNORECASE)
UNSPACED = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
ID = re.compile(r"(.*[_-])?id", re.IGNORECASE)
GROUP = re.compile(
    r"(.*[_-])?(user|customer|client|account|patient|subject|speaker|author|writer|reviewer|group|session|"
    r"conversation|dialogue|thread|document|doc|article|product|item|review|household|site)(s?[_-]?(id|name))?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Group:
    """A column in which rows share values, by a name that says they may hang together."""

    column: str
    values: int
    rows_per_value: float


@dataclass(frozen=True)
class Survey:
    """What was seen of a file.

    is_whole: False if there are more rows. classes: their rows, in order. id: the column that names rows. usual, long:
    tokens, by estimate, that half and 95 % of the texts do not exceed. is_by_word: classes are tags of words, and a row
    counts for each that it has.
    """

    rows: int
    damaged: int
    is_whole: bool
    classes: dict[str, int]
    id: str | None
    groups: tuple[Group, ...]
    usual: int
    long: int
    is_by_word: bool = False

    def __str__(self) -> str:
        text = f"{self.rows:,} rows" if self.is_whole else f"the first {self.rows:,} rows"
        return f"{text} ({self.damaged:,} more damaged)" if self.damaged else text


def survey_file(path: Path, texts: Sequence[str], label: str, threshold: float | None = None) -> Survey:
    """Look at a file, or at its first rows if it is long.

    threshold: splits a numeric label into two classes. Raises RecipeError if the columns are not what they are taken
    for, DataError if the file can't be read.
    """
    file = open_table(path)
    raise_if(_column_problems(file, texts, label), RecipeError)
    named = [column for column in file.columns if ID.fullmatch(column) or GROUP.fullmatch(column)]
    columns = tuple(dict.fromkeys([*texts, label, *named]))
    may_be_tagged = len(texts) == 1 and threshold is None
    cells, damaged, is_whole = _read(file, columns, may_be_tagged)
    tags = count_tags(cells[texts[0]], cells[label]) if may_be_tagged else {}
    if may_be_tagged and not tags:
        cells, damaged, is_whole = _read(file, columns)
    rows = len(cells[label])
    sizes = sorted(map(_tokens, zip(*(cells[text] for text in texts), strict=True)))
    others = {column: cells[column] for column in named if column not in (*texts, label)}
    return Survey(
        rows=rows,
        damaged=damaged,
        is_whole=is_whole,
        classes=tags or count_classes(cells[label], label, threshold),
        id=_id_column(others),
        groups=tuple(_groups(others)),
        usual=sizes[(rows - 1) // 2],
        long=sizes[math.ceil(0.95 * rows) - 1],
        is_by_word=bool(tags),
    )


def guess_columns(path: Path) -> tuple[str, str]:
    """The columns that look like the text, of most words, and the label, of a few values over and over.

    Or the label is a tag for each word of a text.

    Raises RecipeError if it is not plain which they are, DataError if the file can't be read.
    """
    file = open_table(path)
    cells, _, _ = _read(file, file.columns, has_lists=True)
    tags = [name for name, column in cells.items() if any(OUTSIDE in (cell or "").split() for cell in column[:FIRST])]
    pairs = ((text, name) for name in tags for text in cells if text != name)
    tagged = [pair for pair in pairs if count_tags(*(cells[name] for name in pair))]
    if len(tagged) == 1:
        return tagged[0]
    cells, _, _ = _read(file, file.columns)
    words = {name: sum(len(WORD.findall(cell or "")) for cell in column) for name, column in cells.items()}
    text = max(words, key=lambda name: words[name])
    few = [name for name, column in cells.items() if name != text and _is_of_few_values(column)]
    named = [name for name in few if LABEL.fullmatch(name)] or few
    if len(named) != 1:
        which = f"it could be {' or '.join(map(repr, named))}" if named else "no column has a few values over and over"
        hint = f"say --label COLUMN: there are {shorten(', '.join(file.columns))}"
        raise RecipeError(Problem(f"which column is the label can't be told: {which}", str(path), hint))
    return text, named[0]


def _is_of_few_values(cells: Sequence[str | None]) -> bool:
    values = {cell for cell in cells if cell and cell.strip()}
    return 1 < len(values) <= min(MOST_CLASSES, len(cells) // 2)


def count_tags(texts: Sequence[str | None], tags: Sequence[str | None]) -> dict[str, int]:
    """The rows of each tag, the one outside first, where nearly all rows have a tag for each word; else none.

    One of the tags has to be OUTSIDE, and texts have several words.
    """
    pairs = [(text.split(), told.split()) for text, told in zip(texts, tags, strict=True) if text and told]
    whole = [told for words, told in pairs if len(words) == len(told)]
    known = Counter(tag for told in whole for tag in set(told))
    is_tagged = len(whole) >= NEARLY_ALL * len(texts) and sum(map(len, whole)) > 2 * len(whole)
    if not (is_tagged and OUTSIDE in known and 1 < len(known) <= MOST_CLASSES):
        return {}
    return {tag: known[tag] for tag in sorted(known, key=lambda tag: (tag != OUTSIDE, tag.partition("-")[::-1]))}


def count_classes(cells: Sequence[str | None], column: str, threshold: float | None = None) -> dict[str, int]:
    """The rows of each class, in the order of the classes; rows without a label are none's. Raises RecipeError."""
    labels = Counter(cell for cell in cells if cell and cell.strip())
    numbers = [number for number in map(_as_number, labels) if number is not None]
    is_numeric = len(numbers) == len(labels)
    values = f"{len(labels):,} values from {min(numbers):g} to {max(numbers):g}" if numbers else "no numbers"
    if threshold is not None:
        sides = _split(labels, threshold)
        if not all(sides.values()):
            raise RecipeError(Problem(f"--threshold {threshold:g} leaves a class empty: {column!r} has {values}"))
        return sides
    if is_numeric and len(labels) > MOST_NUMBERS:
        hint = f"say where it splits: --threshold {_middle(labels)!r} would put about half of the rows on each side"
        hint += "; to predict it as it is, write `problem_type: text-regression`, see docs/recipe.md"
        raise RecipeError(Problem(f"the label {column!r} is a measure: {values}", hint=hint))
    if not 1 < len(labels) <= MOST_CLASSES:
        hint = "is it the label? its values: " + shorten(", ".join(sorted(labels)) or "none")
        raise RecipeError(Problem(f"{column!r} has {len(labels):,} values, expected 2 to {MOST_CLASSES}", hint=hint))
    return {value: labels[value] for value in sorted(labels, key=_by_number if is_numeric else str)}


def _column_problems(file: TableFile, texts: Sequence[str], label: str) -> Iterator[Problem]:
    for column in dict.fromkeys([*texts, label]):
        if column not in file.columns:
            near = difflib.get_close_matches(column, file.columns, n=1)
            guess = f"did you mean {near[0]!r}? " if near else ""
            there = f"there are {shorten(', '.join(file.columns))}; the file must begin with a header line"
            yield Problem(f"no column {column!r}", str(file.path), guess + there)
    if len({*texts, label}) <= len(texts):
        named = ", ".join(map(repr, [*texts, label]))
        yield Problem(f"text and label must be different columns, found {named}", str(file.path))


def _read(
    file: TableFile, columns: Sequence[str], has_lists: bool = False
) -> tuple[dict[str, list[str | None]], int, bool]:
    """The cells of each column, how many rows could not be read, and whether these are all rows.

    has_lists: a column may hold lists of words. Raises DataError if none can be.
    """
    cells: dict[str, list[str | None]] = {column: [] for column in columns}
    rows, damaged = 0, dict[int, str]()
    for chunk in read_chunks(file, columns, lists=columns if has_lists else ()):
        if rows + len(damaged) >= LOOKED_AT_ROWS:
            return cells, len(damaged), False
        for column in columns:
            cells[column] += chunk.cells(column)
        rows += len(chunk.lines)
        damaged.update(chunk.damaged)
    if not rows:
        line, reason = next(iter(damaged.items()))
        hint = "only words with a tag each may be arrays" if "is an array" in reason else ""
        raise DataError(Problem(f"not one of {len(damaged):,} rows can be read: {reason}", f"{file.path}:{line}", hint))
    return cells, len(damaged), True


def _id_column(columns: Mapping[str, Sequence[str | None]]) -> str | None:
    """The column with a value of its own in each row; the shortest name if there are several."""
    found = [name for name, cells in columns.items() if ID.fullmatch(name) and len(set(cells)) == len(cells)]
    return min((name for name in found if _is_full(columns[name])), key=len, default=None)


def _groups(columns: Mapping[str, Sequence[str | None]]) -> Iterator[Group]:
    for name, cells in columns.items():
        values = len(set(cells))
        if 1 < values < len(cells) and _is_full(cells):
            yield Group(name, values, len(cells) / values)


def _is_full(cells: Sequence[str | None]) -> bool:
    return all(cell and cell.strip() for cell in cells)


def _tokens(texts: Sequence[str | None]) -> int:
    words = sum(len(WORD.findall(text or "")) for text in texts)
    return math.ceil(words * TOKENS_PER_WORD) + SPECIAL_TOKENS


def _split(labels: Mapping[str, int], threshold: float) -> dict[str, int]:
    read = read_class(LabelRule(THRESHOLD_CLASSES, threshold=threshold))
    rows = dict.fromkeys(THRESHOLD_CLASSES, 0)
    for raw, count in labels.items():
        index = read([raw])
        if isinstance(index, int):
            rows[THRESHOLD_CLASSES[index]] += count
    return rows


def _middle(labels: Counter[str]) -> float:
    """The median of numeric labels; the number before it where nothing would be above."""
    ordered = sorted(float(raw) for raw in labels.elements())
    median = ordered[(len(ordered) - 1) // 2]
    return median if median < ordered[-1] else max(number for number in ordered if number < median)


def _by_number(raw: str) -> tuple[float, str]:
    return float(raw), raw


def _as_number(raw: str) -> float | None:
    try:
        number = float(raw)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
