"""Decoders: bytes in, columns out; no I/O."""
