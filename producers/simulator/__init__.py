"""A simulated trading day with its truth: what a tap would have captured, and what there is to find in it.

Nothing here was traded or recorded; every output says so. It imports no decoder and no processor, so that a fault in
one of them cannot hide behind the same fault here.
"""

from akbypass.producers.simulator.run import SimulatedDay, simulate

__all__ = ["SimulatedDay", "simulate"]
