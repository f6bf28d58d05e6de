-- What every stage took and handed on, and what retention took away.
CREATE TABLE IF NOT EXISTS ledger
(
    `run_ns` DateTime64(9, 'UTC') COMMENT 'Order key, part 1: how far the run had come, wall clock for what retention took; ns since the UNIX epoch, UTC.',
    `capture_id` Int32 COMMENT 'Order key, part 2: always 0.',
    `capture_pos` Int64 COMMENT 'Order key, part 3: 1 for a final account, else 0.',
    `sub` Int32 COMMENT 'Order key, part 4: n-th row of one statement, from 0.',
    `id` String COMMENT 'Identity: 16 hexadecimal digits derived from topology, version, run and cause; the same cause gives the same id.',
    `revision` UInt32 COMMENT 'Version of this row, rising; the highest is the current one. Of an account: minutes since the UNIX epoch up to until_ns, 1 more for the final one.',
    `stage` LowCardinality(String) COMMENT 'Whose account it is: capture, a topology, or sink. and the sink.',
    `number` Int32 COMMENT 'Which part of the stage: the capture in its run, else the partition.',
    `direction` LowCardinality(String) COMMENT 'out: rows handed on to the topic; in: rows taken from it.',
    `topic` LowCardinality(String) COMMENT 'Topic, without prefix and version.',
    `source` Int32 COMMENT 'Writer of the rows: the capture in its run, or the partition of the topology; -1 for all of them.',
    `rows` Int64 COMMENT 'Rows of the run so far (count).',
    `lost` Int64 COMMENT 'Rows that their writer numbered and that never came, before the last one that did or the end (count).',
    `lost_from_ns` Nullable(DateTime64(9, 'UTC')) COMMENT 'The lost rows lie not before this; ns since the UNIX epoch, UTC.',
    `lost_to_ns` Nullable(DateTime64(9, 'UTC')) COMMENT 'The lost rows lie not behind this; ns since the UNIX epoch, UTC.',
    `until_ns` DateTime64(9, 'UTC') COMMENT 'Every row with run_ns below it is in the account; ns since the UNIX epoch, UTC.',
    `ended` Bool COMMENT 'Whether the run has ended here, so that the account is final.',
    `messages_lost` Int64 COMMENT 'Messages that retention took away before they were read, of all runs; 0 in an account (count).',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `_topic` LowCardinality(String) COMMENT 'Topic that the row came from, without prefix and version.',
    `_partition` Int32 COMMENT 'Kafka partition that the row came from.',
    `_offset` Int64 COMMENT 'Kafka offset of the message that the row came from.',
    `_source` Int32 COMMENT 'Writer of the row: the capture in its run, or the partition of the topology.'
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (stage, topic, id)
COMMENT 'What one part of a stage has taken from, or handed on to, one topic in one run; or what retention took away from it.';
