"""Rows of sources as a recipe says that they are to be read: what a model reads of a row, and what is told of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from graftwork.data.acceptance import ReadRows, read_source
from graftwork.data.contracts import Contract
from graftwork.data.media import MediaReader
from graftwork.data.quarantine import BadRow
from graftwork.data.rows import make_row
from graftwork.data.sources import LandedFile
from graftwork.errors import DataError, raise_if
from graftwork.recipe import Recipe
from graftwork.sections.data import LabelSection, SourceSection
from graftwork.targets.target import UNLABELLED, Label, LabelRule, Read, Target


@dataclass(frozen=True)
class RowSource:
    """Sources whose rows are read in the same way. label: None if they have none. texts: columns that a model reads.

    kin: by name of a source, another whose groups are its own. caption: column of a text beside a picture.
    """

    sources: Sequence[SourceSection]
    texts: tuple[str, ...]
    label: LabelSection | None
    target: Target | None
    kin: Mapping[str, str] = field(default_factory=dict)
    caption: str | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> "RowSource":
        """Those of a recipe's `data`."""
        return cls(recipe.data.sources, recipe.input.columns, recipe.data.label, recipe.target)

    @property
    def classes(self) -> tuple[str, ...]:
        """What is told of a row, by name; nothing without a label."""
        return () if self.label is None or self.target is None else self.label.names(self.target)

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that tell the label, the text among them where that takes a tag for each of its words."""
        if self.label is None:
            return ()
        is_by_word = self.target is not None and self.target.is_by_word
        return (*self.label.columns, *(self.texts if is_by_word else ()))

    @property
    def reader(self) -> Read:
        """What reads the label of a row from their cells."""
        label = self.label
        if label is None or self.target is None:
            return lambda _: UNLABELLED
        return self.target.reader(LabelRule(self.classes, label.threshold, label.map, label.separator))

    def tell(self, label: Label) -> str:
        """A label in words."""
        return "" if self.target is None else self.target.tell(label, self.classes)


def files_of(sources: Sequence[SourceSection], files: Sequence[LandedFile]) -> list[LandedFile]:
    """Those of the files that landed in these sources."""
    names = {source.name for source in sources}
    return [file for file in files if file.source in names]


def read_rows(
    rows: RowSource, contract: Contract | None, files: Sequence[LandedFile], media: MediaReader | None
) -> ReadRows:
    """All rows of the sources. media: of files that rows name. Raises DataError for a file that can't be taken."""
    texts, labels = rows.texts if rows.caption is None else (*rows.texts, rows.caption), rows.columns
    read = ReadRows()
    for source in rows.sources:
        group, before = (source.group.column, source.group.before) if source.group else (None, None)
        names = [name for name in (source.id, group) if name is not None]
        read_source(
            read,
            [file for file in files if file.source == source.name],
            columns=tuple(dict.fromkeys([*texts, *labels, *names, *(contract.columns if contract else ())])),
            texts=texts,
            names=names,
            build=partial(
                make_row,
                texts=texts,
                labels=labels,
                read_label=rows.reader,
                id_column=source.id,
                group=group,
                group_before=before,
                may_be_empty=rows.label is not None and rows.label.separator is not None,
                kin=rows.kin.get(source.name),
            ),
            contract=contract,
            take=None if media is None else partial(_take, media, rows.caption),
            written={
                "header": source.header,
                "delimiter": source.delimiter,
                "encoding": source.encoding,
                "embedded": () if media is None else rows.texts,
                "lists": labels if rows.target is not None and rows.target.is_by_word else (),
            },
        )
    raise_if(read.refused, DataError)
    return read


def _take(media: MediaReader, caption: str | None, file: LandedFile, cell: str, column: str) -> str | BadRow:
    """What stands for the file that a cell names; a caption stands for itself."""
    return cell if column == caption else media.take(file, cell, column)
