-- Every table, as derived from the schemas (python -m akbypass.sinks.clickhouse.tables).
CREATE TABLE IF NOT EXISTS alerts
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Count of earlier versions of this row; the highest revision is the current one.',
    `ts_capture_ns` DateTime64(9, 'UTC') COMMENT 'Capture time at the tap; ns since the UNIX epoch, UTC.',
    `topology` LowCardinality(String) COMMENT 'Who raised it.',
    `kind` LowCardinality(String) COMMENT 'What happened: port_scan, unauthorised_trading, latency_target, feed_score, …',
    `entity` LowCardinality(String) COMMENT 'Whom it concerns: address, venue, feed, symbol.',
    `severity` LowCardinality(String) COMMENT 'How bad it is.',
    `state` LowCardinality(String) COMMENT 'Whether it still holds.',
    `value` Float64 COMMENT 'Measured value, in `unit`.',
    `threshold` Float64 COMMENT 'Threshold that it crossed, in `unit`.',
    `unit` LowCardinality(String) COMMENT 'Unit of value and threshold.',
    `description` String COMMENT 'One sentence for a person.',
    `evidence` Array(String) COMMENT 'Ids of the rows behind it, at most 16.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (kind, entity, id)
COMMENT 'Something that someone should know.';

CREATE TABLE IF NOT EXISTS arbitrage
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Count of earlier versions of this row; the highest revision is the current one.',
    `symbol` LowCardinality(String) COMMENT 'Instrument group (by default the symbol).',
    `buy_venue` LowCardinality(String) COMMENT 'Venue of the best ask.',
    `sell_venue` LowCardinality(String) COMMENT 'Venue of the best bid.',
    `opened_ns` DateTime64(9, 'UTC') COMMENT 'Capture time at which the edge appeared; ns since the UNIX epoch, UTC.',
    `closed_ns` Nullable(DateTime64(9, 'UTC')) COMMENT 'Capture time at which it ended; ns since the UNIX epoch, UTC.',
    `duration_ns` Nullable(Int64) COMMENT 'closed_ns − opened_ns; ns.',
    `closed_by` LowCardinality(String) COMMENT 'Why it ended: the prices, a suspect or stale book, the end of the run.',
    `edge_nanos` Int64 COMMENT 'Best bid − best ask when it opened, before costs; 1e-9 currency units.',
    `edge_max_nanos` Int64 COMMENT 'Largest edge in its life; 1e-9 currency units.',
    `quantity_nanos` Int64 COMMENT 'Smaller of both quantities when it opened; 1e-9 units.',
    `profit_nanos` Int64 COMMENT 'edge_nanos − configured cost, per unit; 1e-9 currency units.',
    `buy_price_nanos` Int64 COMMENT 'Ask when it opened; 1e-9 currency units.',
    `sell_price_nanos` Int64 COMMENT 'Bid when it opened; 1e-9 currency units.',
    `buy_quote_id` String COMMENT 'Quote behind the buy leg.',
    `sell_quote_id` String COMMENT 'Quote behind the sell leg.',
    `u_ns` Int64 COMMENT 'Half-width of uncertainty of duration_ns; ns.',
    `n` Int64 COMMENT 'Samples behind the value (count).',
    `lost_n` Int64 COMMENT 'Samples known to be missing (count).',
    `clock_source` LowCardinality(String) COMMENT 'Clock that stamped the samples: file, kernel, hardware, ptp.',
    `decoder_version` LowCardinality(String) COMMENT 'Version of the software that decoded the samples.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (symbol, id)
COMMENT 'An opportunity: buy on one venue, sell on another.';

CREATE TABLE IF NOT EXISTS audit
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Count of earlier versions of this row; the highest revision is the current one.',
    `ts_capture_ns` DateTime64(9, 'UTC') COMMENT 'Capture time at the tap; ns since the UNIX epoch, UTC.',
    `record` LowCardinality(String) COMMENT 'What the line is: order or verdict.',
    `src_ip` IPv6 COMMENT 'Source address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `dst_ip` IPv6 COMMENT 'Destination address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `src_port` Int32 COMMENT 'Source port; 0 without one.',
    `dst_port` Int32 COMMENT 'Destination port; 0 without one.',
    `protocol` LowCardinality(String) COMMENT 'TCP, UDP, ICMP, or the order protocol as FIX.4.2.',
    `action` LowCardinality(String) COMMENT 'What was done or asked for: the order message\'s kind, or the rule\'s action.',
    `rule` LowCardinality(Nullable(String)) COMMENT 'Rule that matched.',
    `rule_version` LowCardinality(Nullable(String)) COMMENT 'Hash of the rule set that was in force.',
    `session` LowCardinality(Nullable(String)) COMMENT 'Order session.',
    `venue` LowCardinality(Nullable(String)) COMMENT 'Venue.',
    `direction` LowCardinality(String) COMMENT 'Which way the message went.',
    `msg_seq_num` Nullable(Int64) COMMENT 'Sequence number in the session.',
    `cl_ord_id` Nullable(String) COMMENT 'Client order id.',
    `orig_cl_ord_id` Nullable(String) COMMENT 'Client order id that is replaced or cancelled.',
    `order_id` Nullable(String) COMMENT 'Venue\'s order id.',
    `exec_id` Nullable(String) COMMENT 'Execution id.',
    `symbol` LowCardinality(Nullable(String)) COMMENT 'Symbol.',
    `side` LowCardinality(String) COMMENT 'Side.',
    `price_nanos` Nullable(Int64) COMMENT 'Limit price; 1e-9 currency units.',
    `quantity_nanos` Nullable(Int64) COMMENT 'Quantity; 1e-9 units.',
    `last_price_nanos` Nullable(Int64) COMMENT 'Price of the fill; 1e-9 currency units.',
    `last_quantity_nanos` Nullable(Int64) COMMENT 'Quantity of the fill; 1e-9 units.',
    `account` LowCardinality(Nullable(String)) COMMENT 'Account.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(run_ns)
ORDER BY (record, run_ns, id)
COMMENT 'One line of the audit trail: an order message, or a rule that matched. Not a topic: the audit sink makes it from orders and verdicts.';

CREATE TABLE IF NOT EXISTS captures
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Count of earlier versions of this row; the highest revision is the current one.',
    `ts_start_ns` DateTime64(9, 'UTC') COMMENT 'Start of the range; ns since the UNIX epoch, UTC.',
    `ts_end_ns` DateTime64(9, 'UTC') COMMENT 'End of the range, exclusive; ns since the UNIX epoch, UTC.',
    `ts_resolution_ns` Int32 COMMENT 'Granularity of ts_capture_ns; ns.',
    `point` LowCardinality(String) COMMENT 'Capture point.',
    `source` String COMMENT 'File or interface.',
    `clock_source` LowCardinality(String) COMMENT 'Clock that stamped the frames: file, kernel, hardware, ptp.',
    `clock_offset_ns` Nullable(Int64) COMMENT 'Offset of that clock to UTC; ns.',
    `packets` Int64 COMMENT 'Frames seen (count).',
    `bytes` Int64 COMMENT 'Bytes of those frames on the wire.',
    `captured_bytes` Int64 COMMENT 'Bytes of those frames that were captured.',
    `published` Int64 COMMENT 'Frames that became packets rows (count).',
    `dropped_not_ip` Int64 COMMENT 'Frames that carry no IP, dropped by intention (count).',
    `dropped_malformed` Int64 COMMENT 'Frames whose headers contradict their length (count).',
    `dropped_link` Int64 COMMENT 'Frames of a link type that is not supported (count).',
    `dropped_kernel` Int64 COMMENT 'Frames that the kernel or the capture tool dropped (count).',
    `truncated` Int64 COMMENT 'Frames captured shorter than on the wire (count).',
    `fragments` Int64 COMMENT 'IP fragments recognised (count).',
    `feed_messages` Int64 COMMENT 'market_data rows (count).',
    `order_messages` Int64 COMMENT 'orders rows (count).',
    `rejected` Int64 COMMENT 'rejected rows (count).',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(run_ns)
ORDER BY (point, run_ns, id)
COMMENT 'A time range at a capture point: what arrived and what was dropped there.';

CREATE TABLE IF NOT EXISTS contacts
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Count of earlier versions of this row; the highest revision is the current one.',
    `ts_capture_ns` DateTime64(9, 'UTC') COMMENT 'Capture time at the tap; ns since the UNIX epoch, UTC.',
    `ts_start_ns` DateTime64(9, 'UTC') COMMENT 'First packet of the attempt; ns since the UNIX epoch, UTC.',
    `src_ip` IPv6 COMMENT 'Source address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `dst_ip` IPv6 COMMENT 'Destination address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `src_port` Int32 COMMENT 'Source port; 0 without one.',
    `dst_port` Int32 COMMENT 'Destination port; 0 without one.',
    `outcome` LowCardinality(String) COMMENT 'established: SYN-ACK; refused: RST; unanswered: time-out; midstream: the start was not captured; open: undecided when the capture ended.',
    `duration_ns` Int64 COMMENT 'From the attempt to its outcome; ns.',
    `rule` LowCardinality(Nullable(String)) COMMENT 'Rule that matched the first packet.',
    `action` LowCardinality(String) COMMENT 'Action of that rule.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(run_ns)
ORDER BY (src_ip, run_ns, id)
COMMENT 'A connection attempt and how it ended; source is the initiator.';

CREATE TABLE IF NOT EXISTS control
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Count of earlier versions of this row; the highest revision is the current one.',
    `ts_capture_ns` DateTime64(9, 'UTC') COMMENT 'Capture time at the tap; ns since the UNIX epoch, UTC.',
    `kind` LowCardinality(String) COMMENT 'rules_reloaded, point_silent, operator.',
    `entity` LowCardinality(String) COMMENT 'Whom it concerns.',
    `detail` String COMMENT 'What was decided.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(run_ns)
ORDER BY (kind, run_ns, id)
COMMENT 'What only a wall clock or an operator decides, given an event time.';

CREATE TABLE IF NOT EXISTS executions
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Count of earlier versions of this row; the highest revision is the current one.',
    `order_key` String COMMENT 'Identity of the order: 16 hexadecimal digits.',
    `session` LowCardinality(String) COMMENT 'Order session.',
    `venue` LowCardinality(String) COMMENT 'Venue.',
    `cl_ord_id` String COMMENT 'First client order id.',
    `symbol` LowCardinality(String) COMMENT 'Symbol.',
    `side` LowCardinality(String) COMMENT 'Side.',
    `opened_ns` DateTime64(9, 'UTC') COMMENT 'Capture time of the order; ns since the UNIX epoch, UTC.',
    `closed_ns` Nullable(DateTime64(9, 'UTC')) COMMENT 'Capture time of its last event; ns since the UNIX epoch, UTC.',
    `state` LowCardinality(String) COMMENT 'State.',
    `quantity_nanos` Int64 COMMENT 'Ordered; 1e-9 units.',
    `filled_quantity_nanos` Int64 COMMENT 'Filled; 1e-9 units.',
    `fill_price_nanos` Nullable(Int64) COMMENT 'Volume-weighted fill price; 1e-9 currency units.',
    `arrival_mid_nanos` Nullable(Int64) COMMENT 'Mid price at arrival; 1e-9 currency units.',
    `slippage_bps` Nullable(Float64) COMMENT 'Slippage against the arrival mid; basis points, positive is a cost.',
    `u_ns` Int64 COMMENT 'Half-width of uncertainty of its times; ns.',
    `n` Int64 COMMENT 'Samples behind the value (count).',
    `lost_n` Int64 COMMENT 'Samples known to be missing (count).',
    `clock_source` LowCardinality(String) COMMENT 'Clock that stamped the samples: file, kernel, hardware, ptp.',
    `decoder_version` LowCardinality(String) COMMENT 'Version of the software that decoded the samples.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (symbol, session, id)
COMMENT 'An order\'s life and costs.';

CREATE TABLE IF NOT EXISTS feed_frames
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `ts_capture_ns` DateTime64(9, 'UTC') COMMENT 'Capture time at the tap; ns since the UNIX epoch, UTC.',
    `ts_resolution_ns` Int32 COMMENT 'Granularity of ts_capture_ns; ns.',
    `feed` LowCardinality(String) COMMENT 'Feed: one sequence domain.',
    `venue` LowCardinality(String) COMMENT 'Venue (MIC, or the configured name, or the address).',
    `line` LowCardinality(String) COMMENT 'Line of the feed: A, B, …; `feed` for all lines together.',
    `session` LowCardinality(String) COMMENT 'Feed session as the framing gives it.',
    `protocol` LowCardinality(String) COMMENT 'Layout and framing, as itch-5.0/moldudp64.',
    `kind` LowCardinality(String) COMMENT 'What the packet is.',
    `first_seq` Int64 COMMENT 'Sequence number of the first message, or the next expected one when there is none.',
    `count` Int32 COMMENT 'Messages in the packet (count).',
    `ts_send_ns` Nullable(DateTime64(9, 'UTC')) COMMENT 'Send time in the framing; ns since the UNIX epoch, UTC.',
    `stream_offset` Nullable(Int64) COMMENT 'Byte offset in the stream as the framing gives it (IEX-TP); bytes.',
    `wire_length` Int32 COMMENT 'Length of the frame on the wire; bytes.',
    `payload_length` Int32 COMMENT 'UDP payload; bytes.',
    `payload_hash` Int64 COMMENT '64-bit FNV-1a hash of the message bytes after the framing header, as a signed number.',
    `src_ip` IPv6 COMMENT 'Source address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `dst_ip` IPv6 COMMENT 'Destination address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `src_port` Int32 COMMENT 'Source port; 0 without one.',
    `dst_port` Int32 COMMENT 'Destination port; 0 without one.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree()
PARTITION BY toYYYYMM(run_ns)
ORDER BY (feed, run_id, run_ns, capture_id, capture_pos, sub)
COMMENT 'A market-data packet: its place in the feed\'s sequence.';

CREATE TABLE IF NOT EXISTS feed_gaps
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Count of earlier versions of this row; the highest revision is the current one.',
    `feed` LowCardinality(String) COMMENT 'Feed: one sequence domain.',
    `venue` LowCardinality(String) COMMENT 'Venue (MIC, or the configured name, or the address).',
    `line` LowCardinality(String) COMMENT 'Line of the feed: A, B, …; `feed` for all lines together.',
    `session` LowCardinality(String) COMMENT 'Feed session as the framing gives it.',
    `first_seq` Int64 COMMENT 'First missing sequence number.',
    `last_seq` Int64 COMMENT 'Last missing sequence number.',
    `messages` Int64 COMMENT 'last_seq − first_seq + 1 (count).',
    `fate` LowCardinality(String) COMMENT 'open while undecided; recovered_other_line: another line had it; filled_late: the same line delivered it later; lost: nothing delivered it.',
    `opened_ns` DateTime64(9, 'UTC') COMMENT 'Capture time of the packet that revealed the gap; ns since the UNIX epoch, UTC.',
    `closed_ns` Nullable(DateTime64(9, 'UTC')) COMMENT 'Capture time at which the fate was known; ns since the UNIX epoch, UTC.',
    `fill_delay_ns` Nullable(Int64) COMMENT 'From opening to the late or other line\'s delivery of the last missing message; ns.',
    `u_ns` Nullable(Int64) COMMENT 'Half-width of uncertainty of the delay; ns.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (feed, line, id)
COMMENT 'A maximal run of missing sequence numbers of one fate.';

CREATE TABLE IF NOT EXISTS feed_quality
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Count of earlier versions of this row; the highest revision is the current one.',
    `window_start_ns` DateTime64(9, 'UTC') COMMENT 'Start of the window; ns since the UNIX epoch, UTC.',
    `window_end_ns` DateTime64(9, 'UTC') COMMENT 'End of the window, exclusive; ns since the UNIX epoch, UTC.',
    `feed` LowCardinality(String) COMMENT 'Feed: one sequence domain.',
    `venue` LowCardinality(String) COMMENT 'Venue (MIC, or the configured name, or the address).',
    `line` LowCardinality(String) COMMENT 'Line of the feed: A, B, …; `feed` for all lines together.',
    `session` LowCardinality(String) COMMENT 'Feed session as the framing gives it.',
    `score_model` LowCardinality(String) COMMENT 'Name of the formula behind score.',
    `score` Float64 COMMENT 'Quality, 0 to 100.',
    `packets` Int64 COMMENT 'Packets (count).',
    `messages` Int64 COMMENT 'Messages, duplicates included (count).',
    `bytes` Int64 COMMENT 'Bytes on the wire.',
    `gaps` Int64 COMMENT 'Gaps that opened in the window (count); for line `feed` those on all lines.',
    `missing` Int64 COMMENT 'Messages missing when those gaps opened (count).',
    `recovered` Int64 COMMENT 'Missing messages that another line delivered (count).',
    `filled_late` Int64 COMMENT 'Missing messages that the line delivered later (count).',
    `lost` Int64 COMMENT 'Messages whose loss was settled in the window (count).',
    `duplicates` Int64 COMMENT 'Messages repeated on the line (count); for line `feed`: later copies on any line.',
    `first_arrivals` Int64 COMMENT 'Messages that this line delivered first (count).',
    `heartbeats` Int64 COMMENT 'Heartbeats (count).',
    `resets` Int64 COMMENT 'Session changes (count).',
    `large_packets` Int64 COMMENT 'Frames above thresholds.large_packet_bytes (count).',
    `lead_p50_ns` Nullable(Int64) COMMENT 'Median lead of this line over the other on messages that both delivered; ns, negative when it was later.',
    `u_ns` Nullable(Int64) COMMENT 'Half-width of uncertainty of the lead; ns.',
    `n` Int64 COMMENT 'Samples behind the value (count).',
    `lost_n` Int64 COMMENT 'Samples known to be missing (count).',
    `clock_source` LowCardinality(String) COMMENT 'Clock that stamped the samples: file, kernel, hardware, ptp.',
    `decoder_version` LowCardinality(String) COMMENT 'Version of the software that decoded the samples.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (feed, line, id)
COMMENT 'A window of a feed and line: its score and what it is made of.';

CREATE TABLE IF NOT EXISTS latency
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Count of earlier versions of this row; the highest revision is the current one.',
    `ts_capture_ns` DateTime64(9, 'UTC') COMMENT 'Capture time at the tap; ns since the UNIX epoch, UTC.',
    `ts_start_ns` DateTime64(9, 'UTC') COMMENT 'Capture time at which the measured interval begins; ts_capture_ns is its end; ns since the UNIX epoch, UTC.',
    `kind` LowCardinality(String) COMMENT 'What was measured.',
    `leg` LowCardinality(String) COMMENT 'For TCP: which way the measured data went, so which side of the tap answered.',
    `venue` LowCardinality(String) COMMENT 'Venue (configured name, or the address).',
    `session` LowCardinality(Nullable(String)) COMMENT 'Order session, or client address and port for TCP.',
    `cl_ord_id` Nullable(String) COMMENT 'Client order id.',
    `symbol` LowCardinality(Nullable(String)) COMMENT 'Symbol.',
    `outcome` LowCardinality(String) COMMENT 'What the answer said.',
    `value_ns` Int64 COMMENT 'The delay; ns.',
    `u_ns` Int64 COMMENT 'Half-width of the interval that holds the true value; ns.',
    `n` Int64 COMMENT 'Samples behind the value (count).',
    `lost_n` Int64 COMMENT 'Samples known to be missing (count).',
    `clock_source` LowCardinality(String) COMMENT 'Clock that stamped the samples: file, kernel, hardware, ptp.',
    `decoder_version` LowCardinality(String) COMMENT 'Version of the software that decoded the samples.',
    `src_ip` IPv6 COMMENT 'Source address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `dst_ip` IPv6 COMMENT 'Destination address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `src_port` Int32 COMMENT 'Source port; 0 without one.',
    `dst_port` Int32 COMMENT 'Destination port; 0 without one.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(run_ns)
ORDER BY (venue, kind, run_ns, id)
COMMENT 'One measured delay.';

CREATE TABLE IF NOT EXISTS latency_windows
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Count of earlier versions of this row; the highest revision is the current one.',
    `window_start_ns` DateTime64(9, 'UTC') COMMENT 'Start of the window; ns since the UNIX epoch, UTC.',
    `window_end_ns` DateTime64(9, 'UTC') COMMENT 'End of the window, exclusive; ns since the UNIX epoch, UTC.',
    `venue` LowCardinality(String) COMMENT 'Venue (configured name, or the address).',
    `session` LowCardinality(Nullable(String)) COMMENT 'Session; absent for all sessions of the venue.',
    `kind` LowCardinality(String) COMMENT 'What was measured.',
    `min_ns` Int64 COMMENT 'Minimum; ns.',
    `p50_ns` Int64 COMMENT 'Median (nearest rank); ns.',
    `p90_ns` Int64 COMMENT '90th percentile (nearest rank); ns.',
    `p99_ns` Int64 COMMENT '99th percentile (nearest rank); ns.',
    `p999_ns` Int64 COMMENT '99.9th percentile (nearest rank); ns.',
    `max_ns` Int64 COMMENT 'Maximum; ns.',
    `jitter_ns` Float64 COMMENT 'RFC 3550 section 6.4.1 smoothing of the absolute differences of consecutive delays; ns.',
    `u_ns` Int64 COMMENT 'Largest half-width of uncertainty among the samples; ns.',
    `target_ns` Nullable(Int64) COMMENT 'Configured target of the venue; ns.',
    `over_target_n` Int64 COMMENT 'Samples above the target by more than their uncertainty (count).',
    `n` Int64 COMMENT 'Samples behind the value (count).',
    `lost_n` Int64 COMMENT 'Samples known to be missing (count).',
    `clock_source` LowCardinality(String) COMMENT 'Clock that stamped the samples: file, kernel, hardware, ptp.',
    `decoder_version` LowCardinality(String) COMMENT 'Version of the software that decoded the samples.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(run_ns)
ORDER BY (venue, kind, run_ns, id)
COMMENT 'A window\'s latencies of a venue, session and kind.';

CREATE TABLE IF NOT EXISTS market_data
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `ts_capture_ns` DateTime64(9, 'UTC') COMMENT 'Capture time at the tap; ns since the UNIX epoch, UTC.',
    `feed` LowCardinality(String) COMMENT 'Feed: one sequence domain.',
    `venue` LowCardinality(String) COMMENT 'Venue (MIC, or the configured name, or the address).',
    `line` LowCardinality(String) COMMENT 'Line of the feed: A, B, …; `feed` for all lines together.',
    `session` LowCardinality(String) COMMENT 'Feed session as the framing gives it.',
    `sequence` Int64 COMMENT 'Sequence number of the message in its feed session.',
    `ts_wire_ns` Nullable(DateTime64(9, 'UTC')) COMMENT 'The exchange\'s stamp in the message; ns since the UNIX epoch, UTC.',
    `kind` LowCardinality(String) COMMENT 'Canonical kind; `other` keeps its message_type.',
    `message_type` LowCardinality(String) COMMENT 'Message type as the protocol names it.',
    `symbol` LowCardinality(Nullable(String)) COMMENT 'Symbol as the feed spells it, without padding.',
    `instrument_id` Nullable(Int64) COMMENT 'The feed\'s number of the instrument (ITCH stock locate).',
    `order_ref` Nullable(Int64) COMMENT 'Order reference.',
    `new_order_ref` Nullable(Int64) COMMENT 'Order reference that replaces order_ref.',
    `match_number` Nullable(Int64) COMMENT 'Trade or match identifier.',
    `side` LowCardinality(String) COMMENT 'Side of the order or level.',
    `price_nanos` Nullable(Int64) COMMENT 'Price; 1e-9 currency units.',
    `quantity_nanos` Nullable(Int64) COMMENT 'Quantity: added, executed, cancelled, or resting at the level; 1e-9 units.',
    `bid_price_nanos` Nullable(Int64) COMMENT 'Bid of a quote; 1e-9 currency units.',
    `bid_quantity_nanos` Nullable(Int64) COMMENT 'Bid quantity of a quote; 1e-9 units.',
    `ask_price_nanos` Nullable(Int64) COMMENT 'Ask of a quote; 1e-9 currency units.',
    `ask_quantity_nanos` Nullable(Int64) COMMENT 'Ask quantity of a quote; 1e-9 units.',
    `attribution` LowCardinality(Nullable(String)) COMMENT 'Market participant.',
    `condition` LowCardinality(Nullable(String)) COMMENT 'State, event or reason code as the protocol gives it.',
    `flags` Int32 COMMENT 'Flag byte as the protocol gives it (IEX event or sale flags).',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree()
PARTITION BY toYYYYMM(run_ns)
ORDER BY (feed, run_id, run_ns, capture_id, capture_pos, sub)
COMMENT 'A market-data message.';

CREATE TABLE IF NOT EXISTS order_events
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Count of earlier versions of this row; the highest revision is the current one.',
    `ts_capture_ns` DateTime64(9, 'UTC') COMMENT 'Capture time at the tap; ns since the UNIX epoch, UTC.',
    `session` LowCardinality(String) COMMENT 'Order session.',
    `venue` LowCardinality(String) COMMENT 'Venue.',
    `direction` LowCardinality(String) COMMENT 'Which way the message went.',
    `kind` LowCardinality(String) COMMENT 'Kind of the message.',
    `order_key` String COMMENT 'Identity of the order over all its client order ids: 16 hexadecimal digits.',
    `cl_ord_id` String COMMENT 'Client order id of the message.',
    `orig_cl_ord_id` Nullable(String) COMMENT 'Client order id that it changes.',
    `symbol` LowCardinality(Nullable(String)) COMMENT 'Symbol.',
    `side` LowCardinality(String) COMMENT 'Side.',
    `state` LowCardinality(String) COMMENT 'State of the order after the message.',
    `price_nanos` Nullable(Int64) COMMENT 'Limit price of the order; 1e-9 currency units.',
    `quantity_nanos` Nullable(Int64) COMMENT 'Quantity of the order; 1e-9 units.',
    `filled_quantity_nanos` Int64 COMMENT 'Quantity filled so far; 1e-9 units.',
    `last_price_nanos` Nullable(Int64) COMMENT 'Price of this fill; 1e-9 currency units.',
    `last_quantity_nanos` Nullable(Int64) COMMENT 'Quantity of this fill; 1e-9 units.',
    `delay_ns` Nullable(Int64) COMMENT 'From the request to this answer; ns.',
    `u_ns` Nullable(Int64) COMMENT 'Half-width of uncertainty of the delay; ns.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(run_ns)
ORDER BY (session, cl_ord_id, run_ns, id)
COMMENT 'An order message with the order\'s state after it and its delay.';

CREATE TABLE IF NOT EXISTS orders
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `ts_capture_ns` DateTime64(9, 'UTC') COMMENT 'Capture time at the tap; ns since the UNIX epoch, UTC.',
    `ts_resolution_ns` Int32 COMMENT 'Granularity of ts_capture_ns; ns.',
    `ts_first_ns` DateTime64(9, 'UTC') COMMENT 'Capture time of the packet with the message\'s first byte; ts_capture_ns is that of the packet that completes it; ns since the UNIX epoch, UTC.',
    `capture_pos_first` Int64 COMMENT 'Byte offset of the record with the first byte of the message; capture_pos is that of the record that completes it.',
    `segments` Int32 COMMENT 'TCP segments that carry the message (count).',
    `retransmitted` Bool COMMENT 'A segment of the message was seen more than once.',
    `session` LowCardinality(String) COMMENT 'venue/client/venue side, normalised by direction; survives reconnects.',
    `venue` LowCardinality(String) COMMENT 'Venue (configured name, or the address).',
    `direction` LowCardinality(String) COMMENT 'Which way the message went.',
    `protocol` LowCardinality(String) COMMENT 'Protocol and version, as FIX.4.2.',
    `kind` LowCardinality(String) COMMENT 'Canonical kind; `other` keeps its message_type.',
    `message_type` LowCardinality(String) COMMENT 'Message type as the protocol names it (FIX tag 35).',
    `msg_seq_num` Nullable(Int64) COMMENT 'Sequence number in the session (FIX tag 34).',
    `poss_dup` Bool COMMENT 'Possible duplicate (FIX tag 43=Y).',
    `cl_ord_id` Nullable(String) COMMENT 'Client order id (FIX tag 11).',
    `orig_cl_ord_id` Nullable(String) COMMENT 'Client order id that is replaced or cancelled (FIX tag 41).',
    `order_id` Nullable(String) COMMENT 'Venue\'s order id (FIX tag 37).',
    `exec_id` Nullable(String) COMMENT 'Execution id (FIX tag 17).',
    `exec_type` LowCardinality(Nullable(String)) COMMENT 'Execution type (FIX tag 150).',
    `ord_status` LowCardinality(Nullable(String)) COMMENT 'Order status (FIX tag 39).',
    `symbol` LowCardinality(Nullable(String)) COMMENT 'Symbol (FIX tag 55).',
    `side` LowCardinality(String) COMMENT 'Side (FIX tag 54; sell short counts as sell).',
    `ord_type` LowCardinality(Nullable(String)) COMMENT 'Order type (FIX tag 40).',
    `time_in_force` LowCardinality(Nullable(String)) COMMENT 'Time in force (FIX tag 59).',
    `price_nanos` Nullable(Int64) COMMENT 'Limit price (FIX tag 44); 1e-9 currency units.',
    `quantity_nanos` Nullable(Int64) COMMENT 'Order quantity (FIX tag 38); 1e-9 units.',
    `last_price_nanos` Nullable(Int64) COMMENT 'Price of this fill (FIX tag 31); 1e-9 currency units.',
    `last_quantity_nanos` Nullable(Int64) COMMENT 'Quantity of this fill (FIX tag 32); 1e-9 units.',
    `leaves_quantity_nanos` Nullable(Int64) COMMENT 'Quantity still open (FIX tag 151); 1e-9 units.',
    `cum_quantity_nanos` Nullable(Int64) COMMENT 'Quantity filled so far (FIX tag 14); 1e-9 units.',
    `ts_wire_ns` Nullable(DateTime64(9, 'UTC')) COMMENT 'Sending time in the message (FIX tag 52); ns since the UNIX epoch, UTC.',
    `ts_transact_ns` Nullable(DateTime64(9, 'UTC')) COMMENT 'Transaction time in the message (FIX tag 60); ns since the UNIX epoch, UTC.',
    `account` LowCardinality(Nullable(String)) COMMENT 'Account (FIX tag 1).',
    `sender_comp_id` LowCardinality(Nullable(String)) COMMENT 'Sender (FIX tag 49).',
    `target_comp_id` LowCardinality(Nullable(String)) COMMENT 'Target (FIX tag 56).',
    `src_ip` IPv6 COMMENT 'Source address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `dst_ip` IPv6 COMMENT 'Destination address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `src_port` Int32 COMMENT 'Source port; 0 without one.',
    `dst_port` Int32 COMMENT 'Destination port; 0 without one.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree()
PARTITION BY toYYYYMM(run_ns)
ORDER BY (session, run_id, run_ns, capture_id, capture_pos, sub)
COMMENT 'An order-entry message.';

CREATE TABLE IF NOT EXISTS packets
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `ts_capture_ns` DateTime64(9, 'UTC') COMMENT 'Capture time at the tap; ns since the UNIX epoch, UTC.',
    `ts_resolution_ns` Int32 COMMENT 'Granularity of ts_capture_ns; ns.',
    `src_ip` IPv6 COMMENT 'Source address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `dst_ip` IPv6 COMMENT 'Destination address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `src_port` Int32 COMMENT 'Source port; 0 without one.',
    `dst_port` Int32 COMMENT 'Destination port; 0 without one.',
    `protocol` Int32 COMMENT 'IP protocol number (IANA): 6 TCP, 17 UDP.',
    `ip_version` Int32 COMMENT '4 or 6.',
    `vlan_id` Nullable(Int32) COMMENT 'Outer VLAN identifier (IEEE 802.1Q).',
    `vlan_inner_id` Nullable(Int32) COMMENT 'Inner VLAN identifier.',
    `wire_length` Int32 COMMENT 'Length of the frame on the wire; bytes.',
    `captured_length` Int32 COMMENT 'Bytes of the frame that were captured.',
    `ip_id` Nullable(Int32) COMMENT 'IPv4 identification.',
    `ip_ttl` Int32 COMMENT 'IPv4 time to live or IPv6 hop limit; hops.',
    `ip_fragment_offset` Int32 COMMENT 'Offset of this fragment in its datagram; bytes.',
    `ip_more_fragments` Bool COMMENT 'More fragments follow.',
    `tcp_seq` Nullable(Int64) COMMENT 'TCP sequence number.',
    `tcp_ack` Nullable(Int64) COMMENT 'TCP acknowledgement number; absent without the ACK flag.',
    `tcp_flags` Int32 COMMENT 'TCP flags, low to high bit: FIN SYN RST PSH ACK URG ECE CWR; 0 without TCP.',
    `tcp_window` Nullable(Int32) COMMENT 'TCP window as sent, unscaled; bytes.',
    `tcp_mss` Nullable(Int32) COMMENT 'TCP maximum segment size option; bytes.',
    `tcp_window_scale` Nullable(Int32) COMMENT 'TCP window scale option; bits to shift.',
    `tcp_sack_permitted` Bool COMMENT 'TCP SACK-permitted option was present.',
    `tcp_sack_left` Nullable(Int64) COMMENT 'Left edge of the first SACK block; sequence number.',
    `tcp_sack_right` Nullable(Int64) COMMENT 'Right edge of the first SACK block; sequence number.',
    `tcp_ts_val` Nullable(Int64) COMMENT 'TCP timestamp option, TSval; ticks of the sender.',
    `tcp_ts_ecr` Nullable(Int64) COMMENT 'TCP timestamp option, TSecr; ticks of the receiver.',
    `payload_length` Int32 COMMENT 'Transport payload on the wire, by the IP header; bytes.',
    `payload_captured` Int32 COMMENT 'Transport payload that was captured; bytes.',
    `payload_hash` Int64 COMMENT '64-bit FNV-1a hash of the captured transport payload, as a signed number.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree()
PARTITION BY toYYYYMM(run_ns)
ORDER BY (src_ip, dst_ip, run_id, run_ns, capture_id, capture_pos, sub)
COMMENT 'A captured frame that carries IP.';

CREATE TABLE IF NOT EXISTS quotes
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Count of earlier versions of this row; the highest revision is the current one.',
    `ts_capture_ns` DateTime64(9, 'UTC') COMMENT 'Capture time at the tap; ns since the UNIX epoch, UTC.',
    `ts_wire_ns` Nullable(DateTime64(9, 'UTC')) COMMENT 'The exchange\'s stamp of the causing message; ns since the UNIX epoch, UTC.',
    `symbol` LowCardinality(String) COMMENT 'Instrument group (by default the symbol).',
    `venue` LowCardinality(String) COMMENT 'Venue.',
    `feed` LowCardinality(String) COMMENT 'Feed.',
    `sequence` Int64 COMMENT 'Sequence number of the causing message.',
    `state` LowCardinality(String) COMMENT 'good until a message is lost on all lines.',
    `bid_price_nanos` Nullable(Int64) COMMENT 'Best bid; 1e-9 currency units.',
    `bid_quantity_nanos` Nullable(Int64) COMMENT 'Quantity at the best bid; 1e-9 units.',
    `ask_price_nanos` Nullable(Int64) COMMENT 'Best ask; 1e-9 currency units.',
    `ask_quantity_nanos` Nullable(Int64) COMMENT 'Quantity at the best ask; 1e-9 units.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(run_ns)
ORDER BY (symbol, venue, run_ns, id)
COMMENT 'Best bid and offer of a symbol on a venue.';

CREATE TABLE IF NOT EXISTS rejected
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Count of earlier versions of this row; the highest revision is the current one.',
    `ts_capture_ns` DateTime64(9, 'UTC') COMMENT 'Capture time at the tap; ns since the UNIX epoch, UTC.',
    `stage` LowCardinality(String) COMMENT 'Who rejected it: capture, decode, or a topology or sink by name.',
    `topic` LowCardinality(Nullable(String)) COMMENT 'Topic it was meant for.',
    `reason` LowCardinality(String) COMMENT 'Reason, one word per cause.',
    `detail` String COMMENT 'What was expected, what was found, where.',
    `partition` Nullable(Int32) COMMENT 'Kafka partition of the message, when it came from Kafka.',
    `offset` Nullable(Int64) COMMENT 'Kafka offset of the message, when it came from Kafka.',
    `src_ip` IPv6 COMMENT 'Source address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `dst_ip` IPv6 COMMENT 'Destination address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `src_port` Int32 COMMENT 'Source port; 0 without one.',
    `dst_port` Int32 COMMENT 'Destination port; 0 without one.',
    `bytes` String COMMENT 'The bytes, at most 1,024 of them.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(run_ns)
ORDER BY (reason, run_ns, id)
COMMENT 'What could not be decoded, with the reason and the bytes.';

CREATE TABLE IF NOT EXISTS verdicts
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: running maximum of ts_capture_ns in the capture; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: ordinal of the capture in its run, from 0; the captures rows name its file or interface.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: byte offset of the causing frame\'s record in the (decompressed) capture.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of that frame, or of that cause, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Count of earlier versions of this row; the highest revision is the current one.',
    `ts_capture_ns` DateTime64(9, 'UTC') COMMENT 'Capture time at the tap; ns since the UNIX epoch, UTC.',
    `src_ip` IPv6 COMMENT 'Source address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `dst_ip` IPv6 COMMENT 'Destination address (IPv6, or IPv4 mapped into ::ffff:0:0/96; RFC 4291 section 2.5.5.2)',
    `src_port` Int32 COMMENT 'Source port; 0 without one.',
    `dst_port` Int32 COMMENT 'Destination port; 0 without one.',
    `protocol` Int32 COMMENT 'IP protocol number (IANA).',
    `rule` LowCardinality(String) COMMENT 'Name of the rule.',
    `rule_version` LowCardinality(String) COMMENT 'Hash of the rule set that was in force.',
    `action` LowCardinality(String) COMMENT 'What the rule asks for.',
    `priority` Int32 COMMENT 'Priority of the rule; 1 is asked first.',
    `wire_length` Int32 COMMENT 'Length of the frame; bytes.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(run_ns)
ORDER BY (rule, src_ip, run_ns, id)
COMMENT 'A rule that matched a packet.';

CREATE TABLE IF NOT EXISTS run_ends
(
    `sink` LowCardinality(String) COMMENT 'Sink that has written everything up to the end.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `topic` LowCardinality(String) COMMENT 'Topic, without prefix and version.',
    `partition` Int32 COMMENT 'Kafka partition.',
    `source` Int32 COMMENT 'Writer that has ended.',
    `sources` Int32 COMMENT 'Writers of the topic in this run (count).',
    `end_ns` Int64 COMMENT 'End of the run; ns since the UNIX epoch.'
)
ENGINE = ReplacingMergeTree
ORDER BY (sink, run_id, topic, partition, source)
COMMENT 'Which writers of a run have ended, so that a reader knows when results are complete.';
