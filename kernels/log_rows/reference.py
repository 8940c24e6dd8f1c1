"""What a record of a text table is, one character at a time: the specification of `_cpu.py`.

A line end is LF, or CR LF. Fields are divided by the separator. A field that begins with the quote
goes on to the next quote that is not doubled; line ends and separators inside of it are data, two
quotes are one. A quote anywhere else is data. A line of nothing but spaces is blank, no record.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """Fields of a record, the lines it stands on (from 0), and what is wrong with it, or None."""

    fields: list[str]
    first_line: int
    last_line: int
    fault: str | None


def records(text: str, separator: str, quote: str, num_fields: int) -> tuple[list[Record], int]:
    """(all records of `text`, number of blank lines); `quote` is one character, or empty."""
    found: list[Record] = []
    blanks = line = at = 0
    if text and not text.endswith("\n"):
        text += "\n"
    while at < len(text):
        stop = text.index("\n", at)
        if separator != " " and not text[at:stop].removesuffix("\r").strip(" "):
            blanks, line, at = blanks + 1, line + 1, stop + 1
            continue
        fields: list[str] = []
        first, fault = line, None
        while True:
            field = ""
            closed = True
            if quote and text[at] == quote:
                at += 1
                closed = False
                while at < len(text):
                    if text[at] == quote:
                        if text[at + 1 : at + 2] != quote:
                            at, closed = at + 1, True
                            break
                        at += 1
                    line += text[at] == "\n"
                    field += text[at]
                    at += 1
                if not closed:
                    fault, at, line = "open quote", len(text) - 1, line - 1
                elif text[at] != "\n" and text[at : at + 2] != "\r\n" and not text.startswith(separator, at):
                    fault = fault or "text after quote"
            start = at
            while text[at] != "\n" and not text.startswith(separator, at):
                at += 1
            rest = text[start:at]
            fields.append(field + (rest.removesuffix("\r") if text[at] == "\n" else rest))
            if text[at] == "\n":
                break
            at += len(separator)
        if fault is None and len(fields) != num_fields:
            fault = "ragged"
        found.append(Record(fields, first, line, fault))
        line, at = line + 1, at + 1
    return found, blanks
