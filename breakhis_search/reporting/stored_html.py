"""HTML that was stored by an earlier run: what can be done with it is what we do with it.

Who may write to the artifact store must not run a script in the page of who reads a report. Only
elements, attributes and addresses that the gallery of mistakes is made of are taken over; anything
else is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from html.parser import HTMLParser

_TEXT = "b br code div em figcaption figure h3 img li p span ul"
_PICTURE = "image svg title use"
_ELEMENTS = frozenset(f"{_TEXT} {_PICTURE}".split())
_OF_TEXT = "alt aria-label class href id role src style"
_OF_PICTURES = "height preserveaspectratio viewbox width"
_ATTRIBUTES = frozenset(f"{_OF_TEXT} {_OF_PICTURES}".split())
_RAW = frozenset({"script", "style", "iframe", "object", "embed", "template", "noscript"})
"""What is between their tags is left out, too. A stored style could hide the page it comes into,
and within an svg a browser reads tags in it; the gallery's own comes from our code."""

_ADDRESS = re.compile(r"(data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/=\s]*|#[\w-]+)\Z")
_STYLE = re.compile(r"background:\s*linear-gradient\([\w\s%.,#()-]*\);?\Z")
"""The only style of its own that the gallery has: any other could lie over what is not its own."""

_SPELLED = {"preserveaspectratio": "preserveAspectRatio", "viewbox": "viewBox"}


def without_scripts(html: str) -> str:
    """Return stored HTML with nothing in it but pictures, texts and their style.

    >>> without_scripts('<p onclick="x()">a<script>b()</script></p><img src="https://c">')
    '<p>a</p><img>'
    """
    parser = _Kept()
    parser.feed(html)
    parser.close()
    return "".join(parser.parts)


class _Kept(HTMLParser):
    """Writes down what may stay."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._left_out = 0

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self._left_out += tag in _RAW
        self._open(tag, attrs, ">")

    def _open(self, tag: str, attrs: Sequence[tuple[str, str | None]], end: str) -> None:
        if tag not in _ELEMENTS or self._left_out:
            return
        kept = [(name, value or "") for name, value in attrs if _may_stay(name, value or "")]
        told = "".join(f' {_SPELLED.get(n, n)}="{escape(v)}"' for n, v in kept)
        self.parts.append(f"<{tag}{told}{end}")

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag not in _RAW:  # pictures within an svg have to be closed
            self._open(tag, attrs, "/>")

    def handle_endtag(self, tag: str) -> None:
        if tag in _RAW:
            self._left_out = max(0, self._left_out - 1)
        elif tag in _ELEMENTS and not self._left_out and tag not in {"br", "img"}:
            self.parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._left_out:
            self.parts.append(escape(data, quote=False))


def _may_stay(name: str, value: str) -> bool:
    if name in ("href", "src"):
        return bool(_ADDRESS.fullmatch(value))
    if name == "style":
        return bool(_STYLE.match(value))
    return name in _ATTRIBUTES
