"""Text that is safe in a page: everything is escaped unless this module made it.

A page shows names and metadata that come from files, and files come from anywhere. `element` escapes each child and
each attribute value that is not `Markup`, so what is forgotten is escaped, never the other way round. Characters that
a browser would obey or could not show (controls, marks of direction, halves of surrogate pairs) become visible escapes.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable
from typing import final

__all__ = ["Markup", "Node", "element", "escape", "join"]

_VOID = frozenset({"br", "circle", "line", "meta", "path", "polygon", "polyline", "rect"})


@final
class Markup(str):
    """A piece of HTML or SVG; only this module may call it on anything but a literal."""

    __slots__ = ()


Node = Markup | str | int


def escape(text: object) -> Markup:
    r"""Make text safe between tags and in quoted attributes.

    >>> escape('<b onclick="x">\x07')
    '&lt;b onclick=&quot;x&quot;&gt;\\x07'
    """
    if isinstance(text, Markup):
        return text
    return Markup(html.escape("".join(map(_visible, str(text))), quote=True))


def _visible(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp"):
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def element(tag: str, *children: Node, **attributes: object) -> Markup:
    """Build one element.

    Args:
        tag: its name.
        children: Markup as it is, anything else escaped.
        attributes: `class_` becomes class, `stroke_width` stroke-width; None leaves an attribute out.

    >>> element("p", "1 < 2", class_="x", title='"')
    '<p class="x" title="&quot;">1 &lt; 2</p>'
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID and not children:
        return Markup(f"<{tag}{written}/>")
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def _number(value: object) -> object:
    """Coordinates with two decimals: a hundredth of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def join(children: Iterable[Node]) -> Markup:
    """Put pieces after each other, each escaped unless it is Markup."""
    return Markup("".join(escape(child) for child in children))
