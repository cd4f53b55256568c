"""Parse TOML text, with hints for common mistakes, and find the line of each key.

The parser is the standard library's (tomli before Python 3.11). It reports the line of a syntax
error, but not the line of a parsed key. To find this line, `KeyLines` parses the text statement by
statement with the same parser, so no second grammar is needed. Format: TOML 1.0, https://toml.io/.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KeyPath = tuple[str | int, ...]
"""The path from the top of the file to a value: keys, and 0-based indexes into lists."""

MAX_DOTS = 2000
"""Most dots in one line, because the parser's time and memory are quadratic in the depth of a
dotted key. The squared numbers of dots of all lines may add up to `MAX_DOTS` squared at most."""

MAX_EFFORT = 1_000_000
"""Most characters that are parsed, in all attempts together, to split a text into statements. When
they are used up, the line numbers of the remaining keys stay unknown."""

# The parser's message (a regular expression), and how to fix the mistake.
_HINTS: tuple[tuple[str, str], ...] = (
    ("Invalid value", "put text in quotes; write true, not True"),
    ("Invalid statement", "write key = value, or [table]"),
    ("Expected '=' after a key", "write key = value"),
    ("Expected newline or end of doc", "write one key on each line"),
    ("Cannot (overwrite|declare|mutate|redefine)", "remove one of the two definitions"),
    ("Unclosed|Expected '\\]", "close the bracket, or add the missing comma"),
    (
        "Illegal character '\\\\n'|Unterminated string|Expected (\"'+\"|'\"+')",
        'close the quote; put text over several lines between """ and """',
    ),
    ("Unescaped '", "write \\\\, or use single quotes: a backslash begins an escape"),
)


class TomlError(ValueError):
    """Invalid TOML: what is wrong, how to fix it, and on which line.

    `hint` may be empty. `line` is 1-based, and None if it is not known.
    """

    def __init__(self, what: str, hint: str = "", line: int | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.line = line


def parse(text: str) -> dict[str, Any]:
    """Parse `text` as TOML. Raises TomlError and no other exception."""
    effort = 0
    for number, line in enumerate(text.split("\n"), start=1):
        effort += line.count(".") ** 2
        if effort > MAX_DOTS**2:
            raise TomlError("too many dots, on this line and those above", line=number)
    try:
        parsed: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _explained(str(error), text) from None
    except RecursionError:
        raise TomlError("lists or tables are nested too deeply") from None
    except ValueError as error:  # a number with more digits than Python converts
        raise TomlError("a number is too long") from error
    return parsed


def _explained(message: str, text: str) -> TomlError:
    """Return an error with the parser's `message`, the line, and a hint for common mistakes."""
    found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    line = None
    if found:
        message = message[: found.start()]
        # For a bracket or quote that is never closed, name the line on which it was opened.
        unclosed = not found[1] or message.startswith("Unclosed")
        line = _last_statement(text) if unclosed else int(found[1])
    hint = next((hint for pattern, hint in _HINTS if re.match(pattern, message)), "")
    return TomlError(message[:1].lower() + message[1:], hint, line)


class _Statement(NamedTuple):
    line: int
    """1-based line on which the statement begins."""
    tree: dict[str, object] | None
    """The statement parsed by itself; None for the rest of the text if it does not parse."""
    header: bool
    """Whether the statement is a `[table]` or `[[table]]` header."""


def _statements(text: str) -> Iterator[_Statement]:
    """Yield the statements of `text` in order, without blank lines and comments.

    A statement is the smallest number of lines that parse by themselves. A statement that does not
    parse is the last one yielded.
    """
    begin, pending, effort = 1, "", 0
    for number, line in enumerate(text.split("\n"), start=1):
        pending = f"{pending}\n{line}" if pending else line
        effort += len(pending)
        if effort > MAX_EFFORT:
            break
        try:
            tree = tomllib.loads(pending)
        except (ValueError, RecursionError):
            continue
        if tree:
            yield _Statement(begin, tree, pending.lstrip().startswith("["))
        begin, pending = number + 1, ""
    if pending.strip():
        yield _Statement(begin, None, header=False)


def _last_statement(text: str) -> int | None:
    line = None
    for statement in _statements(text):
        line = statement.line
    return line


class KeyLines:
    """The line of each key in a valid TOML text."""

    def __init__(self, text: str) -> None:
        self._placed = list(_placed(text))

    def find(self, path: KeyPath) -> int | None:
        """Return the 1-based line of `path`, or of its nearest enclosing table; None if unknown."""
        best, line = 0, None
        for where, prefix, tree in self._placed:
            depth = _matching_depth(path, prefix, tree)
            if depth > best:
                best, line = depth, where
        return line


def _placed(text: str) -> Iterator[tuple[int, KeyPath, dict[str, object]]]:
    """Yield for each statement its line, the path of a table, and its parsed keys.

    The table is the one that contains the statement or, for a header, the one that it opens.
    """
    counts: dict[tuple[str, ...], int] = {}
    table: KeyPath = ()
    for line, tree, header in _statements(text):
        if tree is None:
            return
        if not header:
            yield line, table, tree
            continue
        names, repeated = _header(tree)
        if repeated:
            count = counts.get(names, -1) + 1
            # A new entry has its own inner lists: their entries are counted from 0 again.
            counts = {key: n for key, n in counts.items() if key[: len(names)] != names}
            counts[names] = count
        path: list[str | int] = []
        for end, name in enumerate(names, start=1):
            path.append(name)
            if names[:end] in counts:
                path.append(counts[names[:end]])
        table = tuple(path)
        yield line, table, {}


def _header(tree: dict[str, object]) -> tuple[tuple[str, ...], bool]:
    """Return the names in a parsed table header, and whether it has double brackets (`[[…]]`)."""
    names: list[str] = []
    inner: Any = tree
    while isinstance(inner, dict) and inner:
        ((name, inner),) = inner.items()
        names.append(name)
    return tuple(names), isinstance(inner, list)


def _matching_depth(path: KeyPath, prefix: KeyPath, tree: Any) -> int:
    """Return the number of leading parts of `path` that a statement matches.

    First the statement's table (`prefix`) is matched, then the keys in the statement (`tree`).
    """
    depth = 0
    for part, own in zip(path, prefix, strict=False):
        if part != own:
            return depth
        depth += 1
    if depth < len(prefix):
        return depth
    for part in path[depth:]:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            break
        depth += 1
    return depth
