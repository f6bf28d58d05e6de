"""The simulator held against tshark, against a slow reader of its own bytes, and against its plan."""
