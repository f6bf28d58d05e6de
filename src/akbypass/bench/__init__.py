"""What this machine does with simulated days: offline, through the whole pipeline, paced, and by workers; judges nothing."""
