"""Broker and store of one laptop: real servers as children that die with their parent; nothing else knows about them."""
