"""HTML that cannot be injected into: text is escaped unless this module made it."""

from __future__ import annotations

from html import escape
from typing import Any

# Elements that have no content and no end tag in HTML; the SVG ones close themselves.
_VOID = frozenset({"br", "meta", "link", "hr", "path", "line", "rect", "circle"})


class Html(str):
    """Text that is markup already; everything else is escaped when it becomes part of a page."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """One element with its children.

    Parameters
    ----------
    name : str
        Name of the element; written by us, never by a file.
    *children : Html, str, number, list of these, or None
        `Html` goes in as it is, lists are joined, None is left out; all else is text and escaped.
    **attributes : str, number or None
        Values are escaped, None leaves the attribute out. ``class_`` is ``class``; other underscores become hyphens.

    Returns
    -------
    Html
        The element.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Any) -> Html:
    """Children of an element, one after the other.

    Parameters
    ----------
    children : sequence
        As for `tag`.

    Returns
    -------
    Html
        Their markup.
    """
    parts = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, list | tuple):
            parts.append(join(child))
        elif isinstance(child, Html):
            parts.append(child)
        else:
            parts.append(Html(escape(str(child), quote=True)))
    return Html("".join(parts))


def table(head: list[Any], rows: list[list[Any]], *, numeric: tuple[int, ...] = ()) -> Html:
    """Build a table that scrolls by itself where the screen is narrow.

    Parameters
    ----------
    head : list
        One cell per column.
    rows : list of list
        Cells, as children of `tag`.
    numeric : tuple of int
        Columns that are set right-aligned, in digits of equal width.

    Returns
    -------
    Html
        The table in its scrolling frame.
    """

    def cells(kind: str, row: list[Any]) -> list[Html]:
        return [tag(kind, cell, class_="number" if i in numeric else None) for i, cell in enumerate(row)]

    body = [tag("tr", cells("td", row)) for row in rows]
    # A scrolling region must be reachable from the keyboard.
    return tag(
        "div",
        tag("table", tag("thead", tag("tr", cells("th", head))), tag("tbody", body)),
        class_="scroll",
        tabindex=0,
    )
