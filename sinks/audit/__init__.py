"""The audit trail: one line per order message and per rule that matched."""
