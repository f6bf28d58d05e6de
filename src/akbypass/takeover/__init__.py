"""A new version of a topology replays beside the old one and takes over where that one stops; see docs/how-to/upgrade.md."""
