"""Feed quality: gaps with their fate, and a score per window, for each line of a feed and for all together."""
