"""Protocols as data: every .yaml of this folder is a framing or a message layout; `docs/how-to/add-a-protocol.md`.

Reads the files once and hands out checked layouts; compiles nothing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from akbypass.errors import LayoutError
from akbypass.producers.protocols.field import Field
from akbypass.producers.protocols.layout import Framing, Layout, Message, check_pair, parse


@dataclass(frozen=True)
class Protocols:
    """All framings, and all layouts sorted by name: the order in which protocols are tried."""

    framings: tuple[Framing, ...]
    layouts: tuple[Layout, ...]

    def framing_of(self, layout: Layout) -> Framing:
        """Framing that a layout is over."""
        return next(f for f in self.framings if f.name == layout.over)

    @property
    def names(self) -> tuple[str, ...]:
        """Protocols as feeds name them: itch-5.0/moldudp64."""
        return tuple(layout.protocol for layout in self.layouts)


def load(folder: Traversable) -> Protocols:
    """Read every .yaml file of a folder; raises LayoutError with file, line and reason."""
    framings: dict[str, Framing] = {}
    layouts: dict[str, tuple[Layout, str]] = {}
    for entry in sorted((e for e in folder.iterdir() if e.name.endswith(".yaml")), key=lambda e: e.name):
        try:
            made = parse(entry.read_text(encoding="utf-8"), entry.name)
        except UnicodeDecodeError as error:
            raise LayoutError(f"{entry.name}:1: not UTF-8: {error}") from error
        for item in [made] if isinstance(made, Framing) else made:
            if item.name in (framings if isinstance(item, Framing) else layouts):
                raise LayoutError(f"{entry.name}:1: {item.name} is already described in another file")
            if isinstance(item, Framing):
                framings[item.name] = item
            else:
                layouts[item.name] = item, entry.name
    for layout, file in layouts.values():
        if layout.over not in framings:
            raise LayoutError(f"{file}:1: unknown framing {layout.over}; known are {', '.join(sorted(framings))}")
        check_pair(layout, framings[layout.over], file)
        twin = next((o for o, _ in layouts.values() if o is not layout and _same_id(o, layout)), None)
        if twin is not None:
            raise LayoutError(f"{file}:1: {layout.name} and {twin.name} have the same protocol_id over {layout.over}")
    return Protocols(
        tuple(framings[k] for k in sorted(framings)), tuple(layouts[k][0] for k in sorted(layouts))
    )  # fmt: skip


def _same_id(one: Layout, other: Layout) -> bool:
    return one.over == other.over and one.protocol_id == other.protocol_id >= 0


@functools.cache
def builtin() -> Protocols:
    """Return the protocols of this folder."""
    return load(resources.files(__package__))


__all__ = ["Field", "Framing", "Layout", "Message", "Protocols", "builtin", "load", "parse"]
