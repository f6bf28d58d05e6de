"""AK-Bypass: from a network tap to answers; this root holds the version and imports no stage."""

__version__ = "0.1.0"
