"""Judges packets by ordered rules and follows connection attempts."""
