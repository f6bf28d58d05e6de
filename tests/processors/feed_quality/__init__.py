"""Tests of the feed_quality topology."""
