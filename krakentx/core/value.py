"""The decorator of small values of which many are made: events, effects, messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from attrs import define

T = TypeVar("T")

if TYPE_CHECKING:
    from attrs import frozen as value
else:

    def value(cls: type[T]) -> type[T]:
        """Frozen as far as the type checker can see, which is all of the package.

        A few of them are made for every message. To set the fields of a class that is frozen at run time as well
        takes twice as long as to set plain ones.
        """
        return define(cls, unsafe_hash=True)


__all__ = ["value"]
