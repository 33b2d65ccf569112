"""Markdown that shows what was measured and nothing else: escaped text, tables, footnotes."""

from __future__ import annotations

import re
from collections.abc import Sequence

NOTHING = "–"
"""What stands in a cell that has no value."""

_SPECIAL = re.compile(r"([\\`*\[\]<>|~&])")
_EDGE_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_START_OF_BLOCK = re.compile(r"^([#+=-])")
_START_OF_LIST = re.compile(r"^(\d+)([.)])(?=\s|$)")
_FREE_PIPE = re.compile(r"(?<!\\)\|")


def escape(text: object) -> str:
    r"""Return text on one line that Markdown shows as it is.

    An underscore inside a word is left alone, as Markdown does: names stay readable in a terminal.

    >>> print(escape("*14_a* | <b> no_change _x"))
    \*14_a\* \| \<b\> no_change \_x
    >>> print(escape("# 1"), escape("1. a"), escape("1.5"), escape("- b"))
    \# 1 1\. a 1.5 \- b
    """
    line = " ".join(str(text).split())
    line = _EDGE_UNDERSCORE.sub(r"\\_", _SPECIAL.sub(r"\\\1", line))
    return _START_OF_LIST.sub(r"\1\\\2", _START_OF_BLOCK.sub(r"\\\1", line))


def code(text: object) -> str:
    """Return text as code, on one line.

    >>> print(code("optimizer/learning_rate"), code("a`b"))
    `optimizer/learning_rate` ``a`b``
    """
    line = " ".join(str(text).split())
    longest = max((len(run) for run in re.findall(r"`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def spoken(name: str) -> str:
    r"""Return a name as words, escaped.

    >>> spoken("ductal_carcinoma")
    'ductal carcinoma'
    """
    return escape(name.replace("_", " "))


def bullets(lines: Sequence[str]) -> str:
    """Return Markdown lines as a list."""
    return "\n".join(f"* {line}" for line in lines)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
) -> str:
    r"""Return a table of cells that are Markdown already; a pipe in one does not end it.

    Args:
        columns: Heads.
        rows: One cell per column.
        right: Columns that are aligned to the right.

    >>> print(table(["a", "n"], [["x|y", "1"]], right=["n"]))
    | a | n |
    | --- | ---: |
    | x\|y | 1 |
    """
    rule = ["---:" if column in right else "---" for column in columns]
    lines = [[_FREE_PIPE.sub(r"\|", cell) for cell in line] for line in [columns, rule, *rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


class Footnotes:
    """Reasons that many cells share, each written out once below the table."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def mark(self, reason: str) -> str:
        """Return the mark of a reason, such as ``(a)``."""
        if reason not in self._marks:
            self._marks[reason] = f"({_letters(len(self._marks))})"
        return self._marks[reason]

    def __str__(self) -> str:
        """Return all reasons with their marks, as a list; empty if there is none."""
        return bullets([f"{mark} {escape(reason)}" for reason, mark in self._marks.items()])


def paragraphs(*parts: str) -> str:
    """Return the parts that are not empty, with a blank line between them."""
    return "\n\n".join(part for part in parts if part)


def _letters(number: int) -> str:
    """Return a, b, …, z, aa, ab, … for 0, 1 and so on."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return letters


def plain(text: str) -> str:
    r"""Return a line of Markdown without its marks for bold, code and quotation.

    >>> plain(r"> **refused**: `image/auroc` 0.188 \< 0.600")
    'refused: image/auroc 0.188 < 0.600'
    """
    return re.sub(r"\\(.)", r"\1", re.sub(r"\*\*|`|^\s*>\s?", "", text)).strip()


def plain_cells(row: str) -> list[str]:
    r"""Return the cells of a row of a table, without marks.

    >>> plain_cells(r"| **a** | b \| c |")
    ['a', 'b | c']
    """
    return [plain(cell) for cell in _FREE_PIPE.split(row.strip())[1:-1]]
