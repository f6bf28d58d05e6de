"""Chaos: a whole pipeline is hurt at seeded points, and what it stored must equal the offline result."""
