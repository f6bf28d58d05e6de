"""AK-Bypass: from a network tap to answers. This root holds the version and the small library face; imports no stage.

>>> from akbypass import ExchangeConnection, FilterAction, FilterRule, HFTNetworkAnalyzer
>>> analyzer = HFTNetworkAnalyzer()
>>> analyzer.add_exchange_connection(ExchangeConnection(name="NYSE", ip_address="198.51.100.10", ports=[4001, 9001]))
>>> analyzer.add_filter_rule(FilterRule(name="Watch", dst_port=4001, action=FilterAction.LOG))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from akbypass.analyzer import HFTNetworkAnalyzer
    from akbypass.config import Config, ExchangeConnection, Feed, FilterAction, FilterRule

_HOMES = {
    "Config": "akbypass.config",
    "ExchangeConnection": "akbypass.config",
    "Feed": "akbypass.config",
    "FilterAction": "akbypass.config",
    "FilterRule": "akbypass.config",
    "HFTNetworkAnalyzer": "akbypass.analyzer",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that `import akbypass` stays light."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'akbypass' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


__all__ = ["Config", "ExchangeConnection", "Feed", "FilterAction", "FilterRule", "HFTNetworkAnalyzer", "__version__"]
