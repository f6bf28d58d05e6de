"""Measures delays of connections and orders, and keeps their statistics."""
