"""HTML as a tree: text and attributes are escaped where the tree is written, nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree

__all__ = ["Element", "Node", "element", "folded", "list_of", "table", "written"]

Element = ElementTree.Element
Node = Element | str
"""What an element holds."""


def element(tag: str, *content: Node | None, **attributes: str) -> Element:
    """An element; ``class_`` and ``for_`` lose their underscore, others become hyphens. None is left out."""
    names = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    made = Element(tag, names)
    for node in content:
        if isinstance(node, str):
            _append_text(made, node)
        elif node is not None:
            made.append(node)
    return made


def _append_text(parent: Element, text: str) -> None:
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text


def table(header: Sequence[str], rows: Iterable[Sequence[Node]], *, caption: str) -> Element:
    """A table whose first column names its rows, in a frame that scrolls where the page is narrow.

    A column stands to the right if its first cell is a number.
    """
    body = [list(row) for row in rows]
    kinds = [
        {"class_": "number"} if body and _is_number(cell) else {} for cell in (body[0] if body else header)
    ]
    titles = (element("th", name, scope="col", **kind) for name, kind in zip(header, kinds, strict=True))
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *titles)),
        element("tbody", *(_row(row, kinds) for row in body)),
    )
    return element("div", made, class_="wide", role="region", aria_label=caption, tabindex="0")


def _row(cells: Sequence[Node], kinds: Sequence[Mapping[str, str]]) -> Element:
    others = zip(cells[1:], kinds[1:], strict=True)
    values = (element("td", cell, **kind) for cell, kind in others)
    return element("tr", element("th", cells[0], scope="row", **kinds[0]), *values)


def _is_number(cell: Node) -> bool:
    if isinstance(cell, str):
        return cell[:1].isdecimal() or (len(cell) > 1 and cell[0] in "+\N{MINUS SIGN}")
    return cell.get("class") == "number"


def list_of(pairs: Iterable[tuple[str, str]]) -> Element:
    """Names with their values."""
    return element(
        "dl", *(element("div", element("dt", name), element("dd", value)) for name, value in pairs)
    )


def folded(title: str, content: Element) -> Element:
    """Content behind its title until somebody opens it."""
    return element("details", element("summary", title), content)


def written(root: Element) -> bytes:
    """The document in UTF-8; what UTF-8 cannot hold (lone surrogates) becomes a question mark."""
    text = ElementTree.tostring(root, encoding="unicode", method="html")
    return f"<!DOCTYPE html>\n{text}\n".encode("utf-8", "replace")
