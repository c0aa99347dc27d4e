"""Reads and replaces the parts of sequences, sets, dicts, dataclasses, named tuples and pydantic models."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Hashable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeGuard
from uuid import UUID

__all__ = ["elements_of", "fields_of", "is_scalar", "keys_of", "with_parts"]

SCALARS = (type(None), int, float, complex, Decimal, Fraction, date, time, timedelta, UUID)
"""Values without text; bool and datetime are among them as subclasses."""


def is_scalar(value: object) -> bool:
    """True for values that cannot hold text: None, numbers, dates and UUIDs."""
    return isinstance(value, SCALARS)


def elements_of(value: object) -> list[Any] | None:
    """The elements of a list, plain tuple or set; None for anything else."""
    if isinstance(value, (list, set, frozenset)) or (isinstance(value, tuple) and not _is_named(value)):
        return list(value)
    return None


def fields_of(value: object) -> Mapping[Any, Any] | None:
    """What a dict, dataclass, named tuple or pydantic model holds, by key or name; None for anything else.

    Attributes that are no fields (private ones, cached properties) are included: they travel with the object.
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
        return value.model_copy(update=dict(changes))
    changed = copy.copy(value)
    for slot, part in changes.items():
        if isinstance(value, (list, dict)):
            changed[slot] = part
        else:
            object.__setattr__(changed, str(slot), part)  # frozen dataclasses refuse setattr
    return changed


def _attributes(value: object) -> dict[str, Any]:
    return dict(getattr(value, "__dict__", {}))


def _is_named(value: object) -> TypeGuard[Any]:
    return isinstance(value, tuple) and hasattr(value, "_fields") and hasattr(value, "_make")


def _is_pydantic(value: object) -> TypeGuard[Any]:
    # Where pydantic was never imported no value can be one of its models.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(value, pydantic.BaseModel)
