-- Rows that the edge dropped while the broker was away and its spool was full.
ALTER TABLE captures ADD COLUMN IF NOT EXISTS `dropped_spool_packets` Nullable(Int64) COMMENT 'Rows of packets dropped because the broker was away or slow and the spool full (count).' AFTER `rejected`;
ALTER TABLE captures ADD COLUMN IF NOT EXISTS `dropped_spool_feed_frames` Nullable(Int64) COMMENT 'Rows of feed_frames dropped because the broker was away or slow and the spool full (count).' AFTER `dropped_spool_packets`;
ALTER TABLE captures ADD COLUMN IF NOT EXISTS `dropped_spool_market_data` Nullable(Int64) COMMENT 'Rows of market_data dropped because the broker was away or slow and the spool full (count).' AFTER `dropped_spool_feed_frames`;
ALTER TABLE captures ADD COLUMN IF NOT EXISTS `dropped_spool_orders` Nullable(Int64) COMMENT 'Rows of orders dropped because the broker was away or slow and the spool full (count).' AFTER `dropped_spool_market_data`;
ALTER TABLE captures ADD COLUMN IF NOT EXISTS `dropped_spool_rejected` Nullable(Int64) COMMENT 'Rows of rejected dropped because the broker was away or slow and the spool full (count).' AFTER `dropped_spool_orders`;
ALTER TABLE captures ADD COLUMN IF NOT EXISTS `dropped_spool_captures` Nullable(Int64) COMMENT 'Rows of captures dropped because the broker was away or slow and the spool full (count).' AFTER `dropped_spool_rejected`;
