"""Messages that a live capture keeps on disk while the broker is away or slow, and what becomes of them when that is full."""
