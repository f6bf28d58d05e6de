"""The one configuration tree: typed, every key with a default and a sentence; reads one YAML file and nothing else."""

from __future__ import annotations

import hashlib
import ipaddress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from akbypass.errors import ConfigError

VENUE_BYTES = 16  # longest name of a venue


class Part(BaseModel):
    """A part of the tree: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FilterAction(StrEnum):
    """What a rule asks for when it matches."""

    ALLOW = "ALLOW"
    LOG = "LOG"
    ALERT = "ALERT"
    BLOCK = "BLOCK"


Port = Annotated[int, Field(ge=0, le=65_535)]


def _network(value: str | None) -> str | None:
    if value is not None:
        ipaddress.ip_network(value.removeprefix("!"), strict=False)
    return value


def _address(value: str) -> str:
    return str(ipaddress.ip_address(value))


class ExchangeConnection(Part):
    """An order gateway of a venue: a connection that ends here belongs to the venue.

    >>> ExchangeConnection(name="NYSE", ip_address="198.51.100.10", ports=[4001, 9001]).protocol
    'FIX/TCP'
    """

    name: str = Field(min_length=1, max_length=16, description="Venue, as a MIC or a name of your own.")
    ip_address: str = Field(description="Address of the gateway.")
    ports: list[Port] = Field(min_length=1, description="Ports of the gateway.")
    protocol: str = Field("FIX/TCP", description="What is spoken there.")
    latency_target_us: float | None = Field(None, gt=0, description="Order-to-acknowledgement target; microseconds.")

    _check_address = field_validator("ip_address")(_address)


class Feed(Part):
    """A market-data feed: one sequence domain over one or more lines."""

    name: str = Field(min_length=1, max_length=32, description="Feed.")
    venue: str = Field("", max_length=16, description="Venue; the feed's name when empty.")
    protocol: str = Field(
        "", description="Layout and framing, as itch-5.0/moldudp64; recognised by structure when empty."
    )
    lines: dict[str, str] = Field(default_factory=dict, description="Line name to `address:port` that it is sent to.")

    @field_validator("lines")
    @classmethod
    def _check_lines(cls, value: dict[str, str]) -> dict[str, str]:
        for line, target in value.items():
            address, _, port = target.rpartition(":")
            ipaddress.ip_address(address.strip("[]"))
            if not 0 < int(port) < 65_536 or not 0 < len(line) <= 8 or line == "feed":
                raise ValueError(f"expected a line name of 1 to 8 letters with address:port, found {line}: {target}")
        return value

    @property
    def venue_name(self) -> str:
        """Venue, by default the feed's name."""
        return self.venue or self.name[:16]


class FilterRule(Part):
    """One rule; rules are asked by priority, 1 first, and the first that matches decides.

    A part that is not given matches everything; `!` in front of an address or network turns it round.
    """

    name: str = Field(min_length=1, max_length=64, description="Rule.")
    protocol: Literal["tcp", "udp", "icmp", "any"] | None = Field(None, description="Transport protocol.")
    src_ip: str | None = Field(None, description="Source address or network, `!` for all others.")
    dst_ip: str | None = Field(None, description="Destination address or network, `!` for all others.")
    src_port: Port | None = Field(None, description="Source port.")
    dst_port: Port | None = Field(None, description="Destination port.")
    action: FilterAction = Field(FilterAction.LOG, description="What a match asks for.")
    priority: int = Field(
        100, ge=1, le=1_000_000, description="1 is asked first; equal priorities in the order written."
    )
    description: str = Field("", description="Why the rule is there.")

    _check_src = field_validator("src_ip")(_network)
    _check_dst = field_validator("dst_ip")(_network)

    @field_validator("protocol", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value


class Session(Part):
    """Who may open order sessions with a venue."""

    venue: str = Field(description="Venue.")
    sources: list[str] = Field(
        default_factory=list, description="Addresses or networks that they may come from; any when empty."
    )


class Instrument(Part):
    """A group of symbols that are one instrument under several names."""

    name: str = Field(min_length=1, max_length=24, description="Group.")
    symbols: dict[str, str] = Field(description="Venue to the symbol there.")


class Point(Part):
    """A place where packets are captured."""

    name: str = Field("tap", max_length=32, description="Capture point.")
    interfaces: list[str] = Field(default_factory=list, description="Network interfaces.")
    clock: str = Field("file", max_length=16, description="Clock that stamps its frames: file, kernel, hardware, ptp.")
    duplicate_window_us: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="A frame with the same bytes again within this time is a copy by the mirror port: counted and dropped; 0 for never; µs.",
    )


class Thresholds(Part):
    """Windows, limits and named formulas of the topologies."""

    window_ms: int = Field(1_000, ge=1, le=3_600_000, description="Length of a statistics window, event time; ms.")
    score_model: Literal["simple"] = Field("simple", description="simple: max(0, 100 − 10·gaps − 5·large packets).")
    score_alert: float = Field(95, ge=0, le=100, description="Alert when a feed's score falls below this.")
    large_packet_bytes: int = Field(1_500, ge=64, description="A frame above this is a large packet; bytes.")
    reorder_window_us: int = Field(
        10_000,
        ge=0,
        description="How long a line that is behind may still deliver before a message counts as lost on all lines; µs.",
    )
    gap_settle_ms: int = Field(
        5_000, ge=1, description="How long a gap waits for a late delivery before its fate is settled; ms."
    )
    gaps_open_max: int = Field(4_096, ge=16, description="Open gaps kept per line; the oldest is settled first.")
    held_messages_max: int = Field(65_536, ge=16, description="Messages held back per feed while a gap may still fill.")
    latency_model: Literal["order_ack_median"] = Field(
        "order_ack_median", description="order_ack_median: median order→ack of the last window, else TCP RTT."
    )
    syn_timeout_ms: int = Field(3_000, ge=1, description="A SYN without answer for this long is unanswered; ms.")
    flows_max: int = Field(
        1_000_000, ge=1_000, description="TCP flows followed per partition; the oldest is dropped first."
    )
    orders_max: int = Field(
        100_000, ge=1_000, description="Open requests followed per partition; the oldest is dropped first."
    )
    reassembly_bytes_max: int = Field(
        64 * 1024**2, ge=64, description="Bytes of order messages and holes that TCP reassembly keeps per capture."
    )
    reassembly_flows_max: int = Field(
        100_000, ge=1, description="Order connections, and SYNs without data, that reassembly follows per capture."
    )
    scan_theta0: float = Field(
        0.8, gt=0, lt=1, description="Probability that a benign source's first contact succeeds."
    )
    scan_theta1: float = Field(0.2, gt=0, lt=1, description="Probability that a scanner's first contact succeeds.")
    scan_alpha: float = Field(0.01, gt=0, lt=1, description="Accepted probability of a false alarm.")
    scan_beta: float = Field(0.99, gt=0, lt=1, description="Wanted probability of detection.")
    books_max: int = Field(
        65_536,
        ge=16,
        description="Order books, and instrument groups of arbitrage, kept per partition; further symbols are ignored and counted.",
    )
    book_orders_max: int = Field(
        2_000_000, ge=1_024, description="Live orders kept per partition; a further one makes its book suspect."
    )
    edge_model: Literal["simple"] = Field(
        "simple", description="simple: best bid on one venue − best ask on another, before costs."
    )
    edge_min_nanos: int = Field(
        20_000_000, ge=0, description="An opportunity is an edge above this; 1e-9 currency units."
    )
    edge_cost_nanos: int = Field(
        10_000_000, ge=0, description="Cost per unit that profit subtracts; 1e-9 currency units."
    )
    quote_age_ms: int = Field(0, ge=0, description="A quote older than this counts as stale; 0 for no limit; ms.")

    @model_validator(mode="after")
    def _check(self) -> Thresholds:
        if self.scan_theta1 >= self.scan_theta0:
            raise ValueError("expected scan_theta1 below scan_theta0")
        return self


class Kafka(Part):
    """The broker."""

    bootstrap_servers: str = Field("", description="Cluster, as host:port; empty for the embedded broker.")
    prefix: str = Field("akbypass.", description="First part of every topic, group and transactional name.")
    partitions: int = Field(
        2,
        ge=1,
        le=1_024,
        description="Partitions of every topic, fixed for a run: as many workers can share it. Twice as many cost a worker up to a half more.",
    )
    replication_factor: int = Field(1, ge=1, le=10, description="Copies of every partition.")
    batch_rows_max: int = Field(4_096, ge=1, le=4_096, description="Rows in one message.")
    batch_bytes_max: int = Field(768 * 1024, ge=65_536, le=768 * 1024, description="Bytes in one message.")
    queue_bytes_max: int = Field(
        32 * 1024 * 1024, ge=1 << 20, description="Bytes that wait in a producer before it blocks."
    )
    delivery_timeout_s: int = Field(
        120, ge=1, description="How long a producer waits for an absent broker before it gives up; s."
    )
    options: dict[str, str] = Field(
        default_factory=dict, description="Further librdkafka options, as security.protocol."
    )


class ClickHouse(Part):
    """The store."""

    url: str = Field("", description="HTTP address as http://user@host:8123/database; empty for the embedded store.")
    database: str = Field("akbypass", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$", description="Database.")
    password_env: str = Field(
        "AKBYPASS_CLICKHOUSE_PASSWORD", description="Environment variable that holds the password."
    )


class Store(Part):
    """What is written to the store."""

    raw: bool = Field(False, description="Also store packets, feed_frames and market_data rows.")
    rows_max: int = Field(50_000, ge=1, description="Rows in one insert.")
    bytes_max: int = Field(16 * 1024 * 1024, ge=1 << 16, description="Bytes that a table buffers before it is written.")
    age_max_ms: int = Field(
        1_000,
        ge=1,
        description="How long a row waits for company before it is written, and up to 5 s while inserts take long; ms.",
    )
    retry_s: float = Field(
        600, ge=1, description="How long a sink waits for an absent or busy store before it ends; s."
    )


class Buffers(Part):
    """What may lie between two stages in memory; more makes the reader pause, and the broker keeps it."""

    fetch_bytes_max: int = Field(
        1024**2, ge=1 << 20, description="Bytes of one partition that a worker or sink asks the broker for at once."
    )
    stream_messages_max: int = Field(
        4, ge=1, le=1_000, description="Messages that wait in front of one topology of a worker."
    )
    poll_messages_max: int = Field(
        8,
        ge=1,
        le=1_000,
        description="Messages that a topology takes from its client at once; the rest stays compressed.",
    )
    decoded_messages_max: int = Field(
        24, ge=0, le=1_000, description="Decoded messages of a worker that wait for a second topology."
    )
    pending_rows_max: int = Field(
        40_000,
        ge=100,
        description="Rows of one input and partition that wait for the other inputs before the input is paused.",
    )
    checkpoint_bytes_max: int = Field(
        32 * 1024**2, ge=1 << 20, description="Bytes of checkpoints that wait in a worker before saving waits."
    )
    sink_queue_bytes_max: int = Field(
        8 * 1024**2, ge=1 << 20, description="Bytes that a sink's client fetches ahead of the sink."
    )
    sink_messages_max: int = Field(64, ge=1, le=10_000, description="Messages that a sink takes at once.")


class Checkpoint(Part):
    """How often the state of topologies is saved, and how long a start may wait for it."""

    interval_s: float = Field(5.0, gt=0, le=600, description="How often each partition's state is saved at best; s.")
    interval_max_s: float = Field(
        30.0, gt=0, le=3_600, description="How often at worst, which bounds what a restart repeats; s."
    )
    share_max: float = Field(
        0.05,
        gt=0,
        le=1,
        description="Part of one core that saving may take; state that costs more is saved less often.",
    )
    load_timeout_s: float = Field(
        60.0, gt=0, le=3_600, description="How long a start may read checkpoints before it fails; s."
    )

    @model_validator(mode="after")
    def _check(self) -> Checkpoint:
        if self.interval_max_s < self.interval_s:
            raise ValueError("expected interval_max_s not below interval_s")
        return self


class Spool(Part):
    """Where a live or paced capture keeps what an absent or slow broker does not take, and what goes first when it is full."""

    directory: str = Field("", description="Directory; empty for `spool` beside the embedded servers' data.")
    bytes_max: int = Field(8 * 1024**3, ge=1 << 20, description="Bytes on disk, of one capture process.")
    segment_bytes: int = Field(
        64 * 1024**2, ge=1 << 16, description="Bytes of one file; a file is deleted when the broker has all of it."
    )
    reserve_market_bytes: int = Field(
        1024**3, ge=0, description="Part of bytes_max that packets do not get: for market data and orders."
    )
    reserve_orders_bytes: int = Field(
        512 * 1024**2, ge=0, description="Part of bytes_max that neither packets nor market data get: for orders."
    )
    reserve_accounts_bytes: int = Field(
        64 * 1024**2, ge=0, description="Part of bytes_max for captures rows, watermarks and ends alone."
    )
    after_ms: int = Field(
        1_000, ge=10, description="A broker that has not acknowledged a message for this long counts as away; ms."
    )

    @property
    def details_bytes_max(self) -> int:
        """Bytes up to which packets are taken: what is left besides all reserves."""
        return self.bytes_max - self.reserve_market_bytes - self.reserve_orders_bytes - self.reserve_accounts_bytes


class Retention(Part):
    """How long things are kept."""

    topics_hours: int = Field(24, ge=1, description="Topics on the broker; hours.")


class Telemetry(Part):
    """Metrics and health of a process."""

    host: str = Field("127.0.0.1", description="Address that /metrics, /healthz and /readyz of a process listen on.")
    port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Port of these pages; 0 for none. Each process of `up` takes a free one instead.",
    )
    stalled_s: float = Field(
        180, ge=1, description="A process is unhealthy when nothing moves for this long although something is left; s."
    )


class Silence(Part):
    """When a capture of several is not waited for any more."""

    after_s: float = Field(
        10,
        ge=1,
        description="How long the others of a run wait for a capture that says nothing; what it brings later is late; s.",
    )
    end_after_s: float = Field(
        300,
        ge=1,
        description="How long a silent capture's run stays open when all others have ended; s.",
    )


class Rejects(Part):
    """When rows are set aside."""

    core_tries: int = Field(
        3,
        ge=2,
        le=100,
        description="Times that a core may fail at the same rows before they are set aside; the first failure ends the worker.",
    )
    core_rows_max: int = Field(
        100,
        ge=0,
        description="Rows of a run and partition that are set aside because a core fails; with more to blame, the run is given up there.",
    )
    store_rows_max: int = Field(
        100,
        ge=0,
        description="Rows of one block that are set aside because the store refuses them; with more the sink ends, as it is not their fault.",
    )
    careful_s: float = Field(
        60,
        ge=1,
        description="How long after a core's failure its worker copies the state before every step and need not end again; s.",
    )


class Shutdown(Part):
    """How processes end."""

    drain_s: float = Field(
        20,
        gt=0,
        le=600,
        description="How long a process may deliver and commit after SIGTERM before it ends at once; s.",
    )


class Config(Part):
    """The whole tree."""

    points: list[Point] = Field(default_factory=lambda: [Point()], description="Capture points.")
    exchanges: list[ExchangeConnection] = Field(default_factory=list, description="Order gateways.")
    feeds: list[Feed] = Field(default_factory=list, description="Market-data feeds.")
    sessions: list[Session] = Field(
        default_factory=list, description="Who may trade with which venue; a venue without an entry is not checked."
    )
    instruments: list[Instrument] = Field(default_factory=list, description="Instrument groups.")
    rules: list[FilterRule] = Field(default_factory=list, description="Filter rules.")
    thresholds: Thresholds = Field(default_factory=Thresholds, description="Windows, limits, formulas.")
    kafka: Kafka = Field(default_factory=Kafka, description="Broker.")
    clickhouse: ClickHouse = Field(default_factory=ClickHouse, description="Store.")
    store: Store = Field(default_factory=Store, description="What is stored.")
    buffers: Buffers = Field(default_factory=Buffers, description="Memory between the stages.")
    checkpoint: Checkpoint = Field(default_factory=Checkpoint, description="Saving of state.")
    spool: Spool = Field(default_factory=Spool, description="Disk of a capture while the broker is away.")
    retention: Retention = Field(default_factory=Retention, description="How long things are kept.")
    telemetry: Telemetry = Field(default_factory=Telemetry, description="Metrics and health.")
    silence: Silence = Field(default_factory=Silence, description="Captures that others wait for.")
    rejects: Rejects = Field(default_factory=Rejects, description="When rows are set aside.")
    shutdown: Shutdown = Field(default_factory=Shutdown, description="How processes end.")

    @model_validator(mode="after")
    def _unique(self) -> Config:
        for what, names in (("rule", [r.name for r in self.rules]), ("feed", [f.name for f in self.feeds])):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"expected each {what} once, found {', '.join(twice)} more than once")
        return self

    @model_validator(mode="after")
    def _spool_takes_the_queue(self) -> Config:
        room, queue = self.spool.details_bytes_max, self.kafka.queue_bytes_max
        if room < queue:
            raise ValueError(
                f"expected spool.bytes_max to hold kafka.queue_bytes_max = {queue} besides its reserves, found room for {room}"
            )
        return self

    @property
    def meaning_digest(self) -> str:
        """Hash of what decides results (not of where they go): two configurations with one digest give one answer."""
        elsewhere = {
            "buffers",
            "kafka",
            "clickhouse",
            "store",
            "checkpoint",
            "spool",
            "retention",
            "telemetry",
            "silence",
            "rejects",
            "shutdown",
        }
        meaning = self.model_dump_json(exclude=elsewhere)
        return hashlib.blake2b(f"{meaning}|{self.kafka.partitions}".encode(), digest_size=8).hexdigest()

    def venue_of(self, address: str, port: int) -> str | None:
        """Venue whose gateway is at this address and port."""
        return next((e.name for e in self.exchanges if e.ip_address == address and port in e.ports), None)

    def group_of(self, venue: str, symbol: str) -> str:
        """Instrument group of a symbol on a venue, by default the symbol."""
        return next((i.name for i in self.instruments if i.symbols.get(venue) == symbol), symbol)


def venue_text(packed: bytes) -> bytes:
    """Name a venue without configuration by its address (16 bytes); IPv6 as ip6: and twelve digits of its hash.

    >>> venue_text(bytes(10) + bytes([255, 255, 198, 51, 100, 10]))
    b'198.51.100.10'
    """
    address = ipaddress.IPv6Address(packed)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped).encode()
    text = str(address).encode()
    return text if len(text) <= VENUE_BYTES else b"ip6:" + hashlib.blake2b(packed, digest_size=6).hexdigest().encode()


def parse(text: str, where: str = "configuration") -> Config:
    """Read a configuration from YAML text; raises ConfigError that names each wrong key and what was expected."""
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected a mapping of keys, found {type(tree).__name__}")
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        lines = []
        for e in error.errors():
            path = ".".join(str(p) for p in e["loc"]) or "(root)"
            what = "unknown key" if e["type"] == "extra_forbidden" else f"{e['msg']}, found {e['input']!r:.120}"
            lines.append(f"  {path}: {what}")
        raise ConfigError(f"{where}:\n" + "\n".join(lines)) from error


def load(path: str | Path | None) -> Config:
    """Read a configuration file; the defaults for None; raises ConfigError."""
    if path is None:
        return Config()
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse(text, str(path))


def dump(config: Config) -> str:
    """Write the whole tree with every default as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
