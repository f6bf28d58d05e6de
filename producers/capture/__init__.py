"""Capture: bytes of files and interfaces become frames, frames become packets; gives them no meaning beyond headers."""
