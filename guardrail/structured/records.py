"""Reads and replaces the parts of sequences, sets, dicts, dataclasses, named tuples and pydantic models.

Values that are not records: those without text that a reader sees, and those that show it as one string.
"""

from __future__ import annotations

import codecs
import copy
import dataclasses
import ipaddress
import os
import re
import sys
from collections import deque
from collections.abc import Hashable, Mapping, Sequence, Set
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from types import BuiltinFunctionType, EllipsisType, FunctionType, GenericAlias, MethodType
from typing import Any, TypeGuard
from uuid import UUID

import numpy as np

__all__ = [
    "CODE",
    "elements_of",
    "fields_of",
    "is_scalar",
    "is_value",
    "keys_of",
    "listed",
    "shown_text",
    "with_parts",
]

NUMBERS = (type(None), EllipsisType, int, float, complex, Decimal, Fraction)
TIMES = (date, time, timedelta, tzinfo)
CODE = (type, GenericAlias, FunctionType, BuiltinFunctionType, MethodType)
ADDRESSES = (
    *(UUID, ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network),
    *(ipaddress.IPv4Interface, ipaddress.IPv6Interface),
)
SCALARS = (*NUMBERS, *TIMES, *ADDRESSES, *CODE, range, slice)
"""Values without text; bool and datetime are among them as subclasses."""
ARRAYS = (np.ndarray, np.generic)
NUMERIC = "biufcmM"
"""Kinds of numpy's types that hold numbers and times."""

_MARKS = (  # the longer ones first: one begins with another
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ASCII = re.compile(rb"[ -~\s]")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_MIN_ASCII = 0.7
"""Share of ASCII characters from which bytes in no known encoding are text of a European code page."""


def is_scalar(value: object) -> bool:
    """True for values without text that a reader sees: None, numbers, dates, addresses, UUIDs and secrets.

    Arrays and tensors of numbers are among them, and functions and classes. A secret shows itself as stars.
    """
    if isinstance(value, SCALARS):
        return True
    if isinstance(value, ARRAYS):
        return value.dtype.kind in NUMERIC
    tensors = _classes("torch", "Tensor", "dtype", "device")
    return isinstance(value, (*tensors, *_classes("pydantic", "Secret", "SecretStr", "SecretBytes")))


def shown_text(value: object) -> str | None:
    """What a value that is one piece of text shows: a path, a URL, a pattern, bytes that are text.

    None for a value that is not of this kind, "" for bytes in which no text is seen.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _decoded(bytes(value))
    if isinstance(value, re.Pattern):
        return shown_text(value.pattern) if isinstance(value.pattern, bytes) else str(value.pattern)
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        return path if isinstance(path, str) else _decoded(path)
    return str(value) if _is_url(value) else None


def elements_of(value: object) -> list[Any] | None:
    """The elements of a list, deque, plain tuple or set; None for anything else."""
    if isinstance(value, (list, deque, set, frozenset)) or (
        isinstance(value, tuple) and not _is_named(value)
    ):
        return list(value)
    return None


def fields_of(value: object) -> Mapping[Any, Any] | None:
    """What a dict, dataclass, named tuple or pydantic model holds, by key or name; None for anything else.

    Attributes that are not fields (private ones, cached properties) are included: they go with the object.
    """
    if isinstance(value, dict):
        return value
    if _is_named(value):
        return dict(zip(value._fields, value, strict=True))
    if _is_pydantic(value):
        return {**vars(value), **(value.__pydantic_extra__ or {}), **(value.__pydantic_private__ or {})}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name) for name in names if hasattr(value, name)} | _attributes(value)
    return None


def is_value(value: object) -> bool:
    """True for what is read as a whole even if it can be iterated: text, records, sequences, arrays."""
    if isinstance(value, (str, bytes, bytearray, memoryview, Sequence, Set, Mapping)) or is_scalar(value):
        return True
    if fields_of(value) is not None or shown_text(value) is not None:
        return True
    return listed(value) is not None


def listed(value: object) -> Any | None:
    """What a numpy array, or a scalar of its, holds as lists of plain values; None for anything else."""
    return value.tolist() if isinstance(value, ARRAYS) else None


def keys_of(value: object) -> list[Any]:
    """The names in a dict or pydantic model that came with its content, not with its class."""
    if _is_pydantic(value):
        return list(value.__pydantic_extra__ or ())
    return list(value) if isinstance(value, dict) else []


def with_parts(value: Any, changes: Mapping[Hashable, Any]) -> Any:
    """A shallow copy with some elements (by position) or fields (by name) replaced; no validation is run."""
    if _is_named(value):
        return value._replace(**{str(name): part for name, part in changes.items()})
    if isinstance(value, (tuple, set, frozenset)):
        return type(value)(changes.get(position, part) for position, part in enumerate(value))
    if _is_pydantic(value):
        private = value.__pydantic_private__ or {}
        copied = value.model_copy(
            update={slot: part for slot, part in changes.items() if slot not in private}
        )
        for slot in private.keys() & changes.keys():
            copied.__pydantic_private__[slot] = changes[slot]
        return copied
    changed = copy.copy(value)
    for slot, part in changes.items():
        if isinstance(value, (list, deque, dict)):
            changed[slot] = part
        else:
            object.__setattr__(changed, str(slot), part)  # frozen dataclasses refuse setattr
    return changed


def _decoded(content: bytes) -> str:
    """The text of bytes: UTF-8, UTF-16, UTF-32 with its mark, or mostly ASCII in a code page of one byte.

    "" for others: pictures, packed files, text of other scripts in a code page, which no byte names.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if encoding is None and b"\0" in content:
        halves = {"utf-16-le": content[1::2], "utf-16-be": content[::2]}
        encoding = next((name for name, half in halves.items() if half and not half.strip(b"\0")), None)
    if encoding is not None:
        return content.decode(encoding, "replace")
    try:
        return content.decode()
    except UnicodeDecodeError:
        plain = len(_ASCII.findall(content))
        is_text = plain >= _MIN_ASCII * len(content) and not _CONTROL.search(content)
        return content.decode("cp1252", "replace") if is_text else ""


def _is_url(value: object) -> bool:
    """True for the URLs of pydantic, httpx, yarl and others; those of several hosts have no ``host``."""
    if isinstance(value, type) or not hasattr(value, "scheme"):
        return False
    return hasattr(value, "host") or hasattr(value, "hosts")


def _classes(module: str, *names: str) -> tuple[type, ...]:
    """Classes of a module, as far as they are there: of one that was never imported no value can be.

    Another thread may be in the middle of importing it.
    """
    found = sys.modules.get(module)
    kinds = (getattr(found, name, None) for name in names)
    return tuple(kind for kind in kinds if isinstance(kind, type))


def _attributes(value: object) -> dict[str, Any]:
    return dict(getattr(value, "__dict__", {}))


def _is_named(value: object) -> TypeGuard[Any]:
    return isinstance(value, tuple) and hasattr(value, "_fields") and hasattr(value, "_make")


def _is_pydantic(value: object) -> TypeGuard[Any]:
    return isinstance(value, _classes("pydantic", "BaseModel"))
