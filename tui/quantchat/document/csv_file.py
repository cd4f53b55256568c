"""Data tables as CSV (RFC 4180, UTF-8).

An empty cell means "not known". Control characters in text are replaced by visible marks, and an
apostrophe is put before text that a spreadsheet would take for a formula (OWASP, "CSV Injection").
"""

from __future__ import annotations

import csv
import io
from typing import Any

from quantchat.document.document import DataTable
from quantchat.text import neutralise

# Some spreadsheets also accept the full-width signs of Japanese and Chinese keyboards.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def csv_file(table: DataTable) -> bytes:
    """Return `table` as a CSV file with a header row."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([_cell(value) for value in row] for row in table.rows)
    return file.getvalue().encode()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value  # a number, or None, which is written as an empty cell
    text = neutralise(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
