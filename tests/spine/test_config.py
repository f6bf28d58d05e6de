"""The configuration: what is wrong is named with its place, what is right is kept."""

from __future__ import annotations

import pytest

from akbypass import config, config_reference
from akbypass.config import Config, FilterAction
from akbypass.errors import ConfigError
from tests.support import ROOT

EXAMPLE = """
exchanges:
  - {name: XNAS, ip_address: 198.51.100.10, ports: [4001], protocol: FIX/TCP, latency_target_us: 500}
feeds:
  - {name: XNAS, venue: XNAS, protocol: itch-5.0/moldudp64, lines: {A: "233.54.12.1:26477", B: "233.54.12.129:26477"}}
rules:
  - {name: Block_Unauthorized_Trading, protocol: tcp, dst_port: 4001, src_ip: "!192.168.1.0/24", action: BLOCK, priority: 1}
"""


def test_example_of_the_design_is_read() -> None:
    """The example of the design page gives typed values."""
    found = config.parse(EXAMPLE)
    assert found.rules[0].action is FilterAction.BLOCK
    assert found.venue_of("198.51.100.10", 4001) == "XNAS"
    assert found.venue_of("198.51.100.10", 4002) is None
    assert found.feeds[0].lines["B"] == "233.54.12.129:26477"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rulez: []", "rulez: unknown key"),
        ("rules: [{name: a, src_ip: x}]", "rules.0.src_ip"),
        ("rules: [{name: a}, {name: a}]", "rule"),
        ("exchanges: [{name: a, ip_address: 1.2.3.4, ports: [70000]}]", "exchanges.0.ports.0"),
        ("thresholds: {scan_theta0: 0.1}", "thresholds"),
        ("feeds: [{name: a, lines: {A: nonsense}}]", "feeds.0.lines"),
        ("[1, 2]", "expected a mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_wrong_configuration_is_named(text: str, said: str) -> None:
    """Each mistake names its key."""
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        config.parse(text)


def test_dump_reads_back() -> None:
    """The printed tree is a configuration."""
    assert config.parse(config.dump(config.parse(EXAMPLE))) == config.parse(EXAMPLE)


def test_every_setting_has_a_sentence() -> None:
    """No setting without its meaning, and the reference page has them all."""

    def walk(model: type, path: str) -> list[str]:
        bare = []
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            if not field.description:
                bare.append(f"{path}{name}")
            default = field.get_default(call_default_factory=True)
            if hasattr(default, "model_fields"):
                bare += walk(type(default), f"{path}{name}.")
        return bare

    assert walk(Config, "") == []
    assert (ROOT / "docs" / "reference" / "configuration.md").read_text() == config_reference.page()


def test_digest_follows_meaning() -> None:
    """What decides results changes the digest; where results go does not."""
    base = config.parse(EXAMPLE)
    assert config.parse(EXAMPLE + "store: {raw: true}").meaning_digest == base.meaning_digest
    assert config.parse(EXAMPLE + "thresholds: {window_ms: 500}").meaning_digest != base.meaning_digest
    assert config.parse(EXAMPLE + "kafka: {partitions: 8}").meaning_digest != base.meaning_digest
