"""YAML trees that remember their lines, and typed readers of them; knows nothing of protocols.

Every complaint is a LayoutError `FILE:LINE: reason`, so whoever writes a layout is led to the place.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NoReturn

import yaml

from akbypass.errors import LayoutError

DEPTH_MAX = 16  # levels of a tree; a layout has 5, more means an anchor that contains itself


@dataclass(frozen=True, slots=True)
class Node:
    """A scalar, a list or a mapping of one file, with its line (from 1)."""

    file: str
    line: int
    scalar: str | int | float | bool | None = None
    entries: tuple[Node, ...] | None = None
    mapping: dict[str, Node] | None = None

    def fail(self, reason: str) -> NoReturn:
        """Raise LayoutError for this place."""
        raise LayoutError(f"{self.file}:{self.line}: {reason}")

    def keys(self, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Node]:
        """Read a mapping that has all required keys and no unknown one."""
        if self.mapping is None:
            self.fail(f"expected a mapping with {', '.join(sorted(required))}")
        for key, node in self.mapping.items():
            if key not in required and key not in optional:
                node.fail(f"unknown key {key}; known are {', '.join(sorted({*required, *optional}))}")
        missing = sorted(set(required) - set(self.mapping))
        if missing:
            self.fail(f"missing key {', '.join(missing)}")
        return self.mapping

    def items(self) -> tuple[Node, ...]:
        """Read a list."""
        if self.entries is None:
            self.fail("expected a list")
        return self.entries

    def integer(self, low: int, high: int) -> int:
        """Read a whole number in [low, high]."""
        if isinstance(self.scalar, bool) or not isinstance(self.scalar, int) or not low <= self.scalar <= high:
            self.fail(f"expected a whole number from {low} to {high}, found {self._found()}")
        return self.scalar

    def text(self, choices: Collection[str] = ()) -> str:
        """Read a text that is not empty, one of `choices` when there are any."""
        if not isinstance(self.scalar, str) or not self.scalar:
            self.fail(f"expected a text, found {self._found()}; numbers and true/false need quotes")
        if choices and self.scalar not in choices:
            self.fail(f"expected one of {', '.join(choices)}, found {self.scalar}")
        return self.scalar

    def boolean(self) -> bool:
        """Read true or false."""
        if not isinstance(self.scalar, bool):
            self.fail(f"expected true or false, found {self._found()}")
        return self.scalar

    def _found(self) -> str:
        if self.mapping is not None:
            return "a mapping"
        return "a list" if self.entries is not None else repr(self.scalar)


def read(text: str, file: str) -> Node:
    """Read YAML text; raises LayoutError for what is not YAML, for repeated keys and for an empty file."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise LayoutError(f"{file}:{line}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise LayoutError(f"{file}:1: not YAML: {error}") from error
    if root is None:
        raise LayoutError(f"{file}:1: the file is empty")
    return _convert(root, file, 0)


def _convert(node: yaml.Node, file: str, depth: int) -> Node:
    line = node.start_mark.line + 1
    if depth > DEPTH_MAX:
        raise LayoutError(f"{file}:{line}: more than {DEPTH_MAX} levels; does an anchor contain itself?")
    if isinstance(node, yaml.SequenceNode):
        return Node(file, line, entries=tuple(_convert(child, file, depth + 1) for child in node.value))
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise LayoutError(f"{file}:{key.start_mark.line + 1}: expected a plain key")
            if key.value in mapping:
                raise LayoutError(f"{file}:{key.start_mark.line + 1}: key {key.value} is written twice")
            mapping[key.value] = _convert(value, file, depth + 1)
        return Node(file, line, mapping=mapping)
    try:
        scalar = yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise LayoutError(f"{file}:{line}: {error}") from error
    return Node(file, line, scalar=scalar if isinstance(scalar, (str, int, float, bool)) else None)
