"""Errors that users see: each message says what was found, what was expected and what to do."""

from __future__ import annotations

SOME_FAILED = 3
"""Exit code of a batch some of whose scenes failed."""

ALL_FAILED = 4
"""Exit code of a batch none of whose scenes is done."""


class GeosegError(Exception):
    """Anything that geoseg refuses or cannot do; the command line prints it in one line and exits with 1."""


class InputError(GeosegError):
    """A raster, vector file or option that cannot be used as it is."""


class ModelError(GeosegError):
    """A model that is unknown, broken, or does not fit the scene."""


class EngineError(GeosegError):
    """An engine that is missing, unsupported here, or failed while predicting."""


class EngineMemoryError(EngineError):
    """An engine that has too little memory for what it was given: less at a time may do."""


class RunError(GeosegError):
    """An output directory or a run that is not in the state the command needs."""


class ExportError(GeosegError):
    """A result that cannot be written in the wanted format."""


class Interrupted(GeosegError):
    """The run was asked to stop; finished tiles are journaled and the same command resumes."""

    def __init__(self, message: str, *, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code
