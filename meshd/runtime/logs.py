"""Where log lines go and what they look like: JSON for machines, colour for a terminal, one line per event.

`setup_logs` is called once per process; the `LogControl` it returns changes the level while running.
Rules: secrets never appear (fields that are named like one are masked), a caller's level test costs next
to nothing when it fails, and lines of libraries that use the standard library's logging come out in the
same form.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

_SECRET_WORDS = ("api_key", "apikey", "token", "secret", "password", "authorization")
_MASK = "***"
#: Libraries that chatter below this level about what we log ourselves.
_LIBRARY_LEVEL = logging.WARNING
LIBRARY_REPEAT_S = 60.0
_LIBRARY_LINES = 1024
"""Different lines of libraries that are remembered as written."""


class LogControl:
    """The level of all loggers of this process: one of LEVELS."""

    def __init__(self, level: str) -> None:
        self.level = level
        self._number = 0
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """Change the level from now on, for loggers that are in use already as well. Raises ValueError."""
        if level not in LEVELS:
            raise ValueError(f"a log level is one of {', '.join(LEVELS)}, not {level!r}")
        self.level = level
        self._number = LEVELS[level]
        logging.getLogger().setLevel(max(self._number, _LIBRARY_LEVEL))

    def filter(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """The first processor: drop what lies below the level, before any work is done for it."""
        if LEVELS.get(method, logging.ERROR) < self._number:
            raise structlog.DropEvent
        return event


def setup_logs(level: str, form: str | None, stream: TextIO | None = None) -> LogControl:
    """Configure structlog and the standard library's logging.

    `form` is "json" or "console"; None takes console if `stream` is a terminal. `stream` defaults to
    standard error. Raises ValueError for another level or form.
    """
    out = sys.stderr if stream is None else stream
    if form is None:
        form = "console" if out.isatty() else "json"
    control = LogControl(level)
    shared: list[Processor] = [
        mask_secrets,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    ending: list[Processor]
    if form == "json":
        ending = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    elif form == "console":
        # The plain traceback: a rich one would print local variables, and with them request bodies.
        plain = structlog.dev.plain_traceback
        ending = [structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=plain)]
    else:
        raise ValueError(f"a log format is json or console, not {form!r}")
    structlog.configure(
        processors=[control.filter, *shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=lambda *_names: _LineLogger(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    handler.addFilter(_OnceInAWhile())
    logging.getLogger().handlers = [handler]
    return control


class _OnceInAWhile(logging.Filter):
    """Lets the same line of a library through once per LIBRARY_REPEAT_S.

    Out of open files, trio complains ten times a second for each listening socket, with a traceback.
    """

    def __init__(self) -> None:
        super().__init__()
        self._again_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the line. Lines are the same if they differ in their arguments alone."""
        now, line = time.monotonic(), (record.name, str(record.msg))
        if now < self._again_at.get(line, now):
            return False
        if len(self._again_at) >= _LIBRARY_LINES:
            self._again_at.clear()
        self._again_at[line] = now + LIBRARY_REPEAT_S
        return True


class _LineLogger:
    """Writes finished lines. A reader of the log who went away is no reason for the daemon to go too."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, message: str) -> None:
        try:
            self._stream.write(message + "\n")
            self._stream.flush()
        except (
            OSError,
            ValueError,
        ):  # a broken pipe, a full disk, a closed file: there is nowhere to tell it
            return

    debug = info = warning = error = critical = exception = log = msg


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the values of fields that are named like secrets."""
    for name in event:
        if any(word in name.lower() for word in _SECRET_WORDS) and event[name]:
            event[name] = _MASK
    return event


def get_logger(name: str, **fields: Any) -> structlog.typing.FilteringBoundLogger:
    """A logger whose lines carry `logger=name` and the given fields."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(logger=name, **fields)
    return logger
