"""Judges sources by their contacts."""
