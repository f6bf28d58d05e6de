-- What a dead letter says of its message, duplicates at a capture point, and the kinds of control records.
ALTER TABLE rejected ADD COLUMN IF NOT EXISTS `message_run` LowCardinality(Nullable(String)) COMMENT 'Run of the Kafka message, when it could be told.' AFTER `bytes`;
ALTER TABLE rejected ADD COLUMN IF NOT EXISTS `message_rows` Nullable(Int64) COMMENT 'Rows of the Kafka message that were set aside with it (count).' AFTER `message_run`;
ALTER TABLE rejected COMMENT COLUMN `stage` 'Who rejected it: capture, decode, merge, or a topology or sink by name.';
ALTER TABLE captures ADD COLUMN IF NOT EXISTS `dropped_duplicate` Nullable(Int64) COMMENT 'Frames seen before at this point within the configured time, dropped by intention (count).' AFTER `dropped_spool_captures`;
ALTER TABLE control COMMENT COLUMN `kind` 'What was decided: point_silent, point_late, point_back, rules_reloaded, operator.';
ALTER TABLE rejected MODIFY COMMENT 'What could not be decoded or processed and was set aside, with the reason and the bytes.';
