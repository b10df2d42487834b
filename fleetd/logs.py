"""Structured logs: one event a line with a stable name and ids. The only place that knows structlog."""

import logging
import sys
from typing import Any, Literal, TextIO, cast

import structlog

TEXT_LIMIT = 2000
_SECRET_WORDS = ("password", "secret", "token", "authorization", "private")


class _Stderr:
    """Standard error as it is at the moment of writing: whoever replaces it, gets what is written from then on."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def get_logger(name: str) -> Any:
    """A logger whose calls are `log.info("event_name", camera="cam-7", ...)`."""
    return structlog.get_logger(name)


def configure(*, level: str = "info", style: Literal["text", "json"] = "text") -> None:
    """Sets up logging once, to standard error. `json` is one object a line, for machines."""
    renderer: Any
    if style == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        # Plain tracebacks: the rich ones print local variables, and those hold secrets.
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), pad_event_to=24, exception_formatter=structlog.dev.plain_traceback
        )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _hide_secrets,
        _escape,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=cast("TextIO", _Stderr())),
        cache_logger_on_first_use=False,
    )
    # Libraries that use the standard library's logging share the same shape.
    handler = logging.StreamHandler(_Stderr())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)


def _hide_secrets(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    for key in event:
        if any(word in key.lower() for word in _SECRET_WORDS):
            event[key] = "[hidden]"
    return event


def _escape(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Keeps what cameras and people wrote on one line, without terminal control characters."""
    for key, value in event.items():
        if isinstance(value, str):
            kept = "\n" if key == "exception" else ""  # a traceback has lines of its own
            limit = 8 * TEXT_LIMIT if kept else TEXT_LIMIT
            event[key] = "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in value[:limit])
    return event
