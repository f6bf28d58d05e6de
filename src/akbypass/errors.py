"""Every error that a user can meet.

    AkbypassError        exit code 1 unless stated
    ├── ConfigError      the configuration is wrong                                         2
    ├── CaptureError     a capture cannot be read at all                                    3
    ├── MissingError     a program, privilege or extra that this machine lacks              4
    ├── ServiceError     broker or store does not answer, or answers with an error          5
    └── LayoutError      a protocol layout file is wrong                                    2

A damaged capture of which something was read is not an error: it is reported and the exit code is 6.
"""

from __future__ import annotations

EXIT_DAMAGED = 6  # the capture was damaged; everything readable was delivered


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
