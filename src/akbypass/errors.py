"""Every error that a user can meet.

    AkbypassError        exit code 1 unless stated
    ├── ConfigError      the configuration is wrong                                         2
    ├── CaptureError     a capture cannot be read at all                                    3
    ├── MissingError     a program, privilege or extra that this machine lacks              4
    ├── ServiceError     broker or store does not answer, or answers with an error          5
    └── LayoutError      a protocol layout file is wrong                                    2

A damaged capture of which something was read is not an error: it is reported and the exit code is 6.
A capture of files that is asked to stop ends with 7, a process that could not drain in time with 8.
Nor are runs whose rows do not add up: `akbypass reconcile` reports them with the exit code 9.
"""

from __future__ import annotations

EXIT_DAMAGED = 6  # the capture was damaged; everything readable was delivered
EXIT_STOPPED = (
    7  # a capture of files was asked to stop before its end; what was read is delivered, the run goes on when repeated
)
EXIT_FORCED = (
    8  # ended at once, by a second signal or because draining took too long; a restart repeats what was not committed
)
EXIT_UNBALANCED = 9  # rows of a run were lost, or count twice


class AkbypassError(Exception):
    """Base of all errors that name what was expected, what was found, and what to do."""

    exit_code = 1


class ConfigError(AkbypassError):
    """The configuration is wrong."""

    exit_code = 2


class LayoutError(AkbypassError):
    """A protocol layout file is wrong."""

    exit_code = 2


class CaptureError(AkbypassError):
    """A capture cannot be read at all."""

    exit_code = 3


class MissingError(AkbypassError):
    """A program, privilege or extra that this machine lacks."""

    exit_code = 4


class ServiceError(AkbypassError):
    """Broker or store does not answer, or answers with an error."""

    exit_code = 5
