"""A table of the report, as Markdown; page.py writes it as HTML."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of the report, below a title; note: a sentence below it."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        lines = [f"## {self.title}", "", f"| {' | '.join(self.header)} |", "|---" * len(self.header) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join([*lines, *(["", self.note] if self.note else [])])
