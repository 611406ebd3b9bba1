"""A row of a file, read with errors that name the file, the line and the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.data.errors import DataError

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Row:
    """The fields of one row.

    Attributes:
        values: as they stand in the file.
        where: the file and the line, for errors.
    """

    values: Mapping[str, Any]
    where: str

    def wrong(self, field: str, must: str) -> DataError:
        """The error for a field that is not what it must be."""
        shown = repr(self.values.get(field))
        return DataError(
            f"{self.where}: field {field!r} is {shown if len(shown) < 80 else shown[:77] + '...'}; "
            f"it must be {must}"
        )

    def text(self, field: str, empty: bool = False) -> str:
        """A string, by default not an empty one."""
        value = self.values.get(field)
        if not isinstance(value, str) or not (value.strip() or empty):
            raise self.wrong(field, "a string" if empty else "a string that is not empty")
        return value

    def one_of(self, field: str, valid: Sequence[str]) -> str:
        """One of some strings; a number counts as what it is spelled like."""
        value = self.values.get(field)
        spelled = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(spelled, str) or spelled.strip() not in valid:
            raise self.wrong(field, f"one of {', '.join(valid)}")
        return spelled.strip()

    def index(self, field: str, choices: int) -> int:
        """The number of a choice, from 0."""
        return int(self.one_of(field, [str(at) for at in range(choices)]))

    def choices(self, field: str = "choices", exactly: int | None = None) -> list[str]:
        """Answers to choose from."""
        value = self.values.get(field)
        fit = isinstance(value, list) and all(isinstance(one, str) and one for one in value)
        if not fit or len(value or ()) not in ([exactly] if exactly else range(2, 11)):
            raise self.wrong(field, f"a list of {exactly or '2 to 10'} strings, none of them empty")
        return list(value or ())

    def labelled(self, exactly: int | None = None) -> tuple[list[str], list[str], str]:
        """`choices` = {"text": [...], "label": [...]} and `answerKey`, one of the labels."""
        value = self.values["choices"]
        if not isinstance(value, dict):
            raise self.wrong("choices", 'an object with "text" and "label"')
        inner = Row(value, f"{self.where}, choices")
        texts = inner.choices("text", exactly)
        labels = inner.choices("label", len(texts))
        return texts, labels, self.one_of("answerKey", labels)
