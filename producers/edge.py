"""The edge: captures in, rows by topic with watermarks out (to be completed by the capture work)."""
