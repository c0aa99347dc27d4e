"""Prints the modules of a folder with the first line of what each says of itself; ``make map`` calls it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path


def purpose_of(path: Path) -> str:
    """The first line of a module's docstring, without its full stop; "" if there is none."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].rstrip(".:")


def lines(folder: Path) -> list[str]:
    """One line for each module below ``folder``, in the order of their paths."""
    modules = sorted(path for path in folder.rglob("*.py") if purpose_of(path))
    width = max((len(str(path)) for path in modules), default=0)
    return [f"{path!s:{width}}  {purpose_of(path)}" for path in modules]


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        print("\n".join(lines(Path(folder))))
