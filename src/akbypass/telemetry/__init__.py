"""What a process says about itself: metrics, health, readiness, logs, and how it ends; decides no result.

    metrics    every exported metric, in one registry
    readers    a reader of topics as the metrics see it: what it took, how far it is behind
    health     whether a process moves, and whether it is ready
    probes     threads that ask the broker and the store
    server     /metrics, /healthz and /readyz over HTTP
    logs       lines as text or JSON, without addresses and secrets
    shutdown   the first signal drains, the second one ends
    life       all of these for one process

Hot paths call once a message or batch, never once a row.
"""
