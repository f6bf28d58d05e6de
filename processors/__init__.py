"""Events to findings: one folder per topology, each a pure core and its declaration; `all_topologies` lists them."""

from __future__ import annotations

from akbypass.errors import ConfigError
from akbypass.topology import Topology


def all_topologies() -> tuple[Topology, ...]:
    """Return every topology, writers before their readers."""
    from akbypass.processors.arbitrage.topology import TOPOLOGY as arbitrage
    from akbypass.processors.books.topology import TOPOLOGY as books
    from akbypass.processors.feed_quality.topology import TOPOLOGY as feed_quality
    from akbypass.processors.filtering.topology import TOPOLOGY as filtering
    from akbypass.processors.latency.topology import LATENCY_WINDOWS as latency_windows
    from akbypass.processors.latency.topology import TOPOLOGY as latency
    from akbypass.processors.security.topology import TOPOLOGY as security

    return (filtering, security, latency, latency_windows, feed_quality, books, arbitrage)


def choose(names: tuple[str, ...]) -> tuple[Topology, ...]:
    """Return the topologies of these names, all for none; raises ConfigError for a name that there is not."""
    known = {t.name: t for t in all_topologies()}
    unknown = [n for n in names if n not in known]
    if unknown:
        raise ConfigError(f"expected topologies of {', '.join(known)}; found {', '.join(unknown)}")
    return tuple(t for t in known.values() if not names or t.name in names)


def marked_topics() -> frozenset[str]:
    """Topics that a topology reads, so that their writers must say how far they have spoken."""
    return frozenset(topic for t in all_topologies() for topic in t.inputs)
