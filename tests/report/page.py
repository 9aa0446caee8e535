"""A page as a reader's eyes take it in: elements, tables, text; and the files behind it."""

import csv
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "br", "img", "line", "path", "use", "input", "hr", "wbr"}


@dataclass
class Table:
    """A table's attributes and rows of cells; a row that spans the table is the heading of those after it."""

    attributes: dict[str, str]
    rows: list[list[str]] = field(default_factory=list)

    def records(self) -> list[dict[str, str]]:
        """Return the rows by column name, with their group's heading as ``group``."""
        header, group, found = self.rows[0], "", []
        for row in self.rows[1:]:
            if len(row) == 1:
                group = row[0]
            else:
                found.append(dict(zip(header, row, strict=True)) | {"group": group})
        return found


class Page(HTMLParser):
    """Collects elements, visible text and tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: list[Table] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append(Table(self.elements[-1][1]))
        elif tag == "tr":
            self.tables[-1].rows.append([])
        elif tag in ("td", "th"):
            self.tables[-1].rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without a start"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text.append(data)
        if {"td", "th"} & set(self.open) and "small" not in self.open and "table" in self.open:
            self.tables[-1].rows[-1][-1] += data.strip("\n")

    def table(self, name: str) -> Table:
        """Return the table with that id."""
        return next(one for one in self.tables if one.attributes.get("id") == name)


def rows(run: Path, name: str) -> list[dict[str, str]]:
    """Return the rows of one of a run's tables."""
    with (run / name).open(newline="") as file:
        return list(csv.DictReader(file))


def save(path: Path, table: list[dict[str, str]]) -> None:
    """Write a table."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
