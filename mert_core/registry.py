"""Classes by name, imported when they are asked for, so that who needs one does not wait for all the others."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from mert_core.errors import MertError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A read-only dictionary of classes, or of whatever ``make`` makes of them.

    Args:
        what: what its members are called in messages, for example ``teacher class``.
        package: dotted name of the package that holds them.
        entries: ``module.Class`` within the package, by name.
        hint: what a message on an unknown name ends with.
    """

    def __init__(self, what: str, package: str, entries: Mapping[str, str], hint: str = "") -> None:
        self._what, self._package, self._entries, self._hint = what, package, dict(entries), hint

    def __getitem__(self, name: str) -> T:
        module, member = self._split(name)
        return self.made(getattr(importlib.import_module(module), member))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def made(self, member: Any) -> T:
        """Return what stands in the dictionary for a class: the class itself."""
        return member

    def find(self, name: str) -> T:
        """Return a member.

        Raises:
            MertError: there is none of that name; the message lists those there are.
        """
        if name not in self._entries:
            raise MertError(f"no {self._what} is named {name!r}; there are {', '.join(self._entries)}{self._hint}")
        return self[name]

    def module_of(self, name: str) -> str:
        """Return the dotted name of the module that holds a member, which is not imported."""
        return self._split(name)[0]

    def _split(self, name: str) -> tuple[str, str]:
        module, _, member = self._entries[name].rpartition(".")
        return f"{self._package}.{module}", member
