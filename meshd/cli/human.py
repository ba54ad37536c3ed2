"""Numbers as people read them: ages, durations, sizes, times of day.

Pure: the caller passes the present time. Every function takes what the API may send,
`None` included, and shows what it cannot read as it came rather than hiding it.
"""

from datetime import UTC, datetime

ABSENT = "-"


def duration(seconds: float | None) -> str:
    """`0.25 -> "250ms"`, `95 -> "1m35s"`, `200000 -> "2d7h"`: at most two units."""
    if seconds is None:
        return ABSENT
    if seconds < 0:
        return "-" + duration(-seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    whole = int(seconds)
    for unit_s, unit, smaller_s, smaller in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= unit_s:
            rest = whole % unit_s // smaller_s
            return f"{whole // unit_s}{unit}" + (f"{rest}{smaller}" if rest else "")
    return f"{whole}s"


def age(seconds: float | None) -> str:
    """An age in seconds; what lies in the future by skewed clocks is "now"."""
    if seconds is not None and seconds < 0.05:
        return "now"
    return duration(seconds)


def instant(text: object) -> datetime | None:
    """An RFC 3339 time as an aware datetime, `None` where it is not one."""
    if not isinstance(text, str):
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def age_since(text: object, now: float) -> str:
    """How long ago an RFC 3339 time was; `now` is Unix time in seconds."""
    when = instant(text)
    if when is None:
        return ABSENT if text in (None, "") else str(text)
    return age(now - when.timestamp())


def milliseconds(value: float | None) -> str:
    """A round trip: `0.21 -> "0.2ms"`, `1520 -> "1.5s"`."""
    if value is None:
        return ABSENT
    return f"{value:.1f}ms" if value < 1000 else duration(value / 1000)


def count(number: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def short(text: object, length: int = 12) -> str:
    """The start of a long opaque name, such as a digest."""
    return ABSENT if text in (None, "") else str(text)[:length]


def clip(text: str, width: int) -> str:
    """`text` on one line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: max(0, width - 1)] + "…"


def text(value: object) -> str:
    """A cell: nothing is `-`, truth is yes or no, lists are joined by commas."""
    if value is None or value == "":
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ",".join(text(item) for item in value) or ABSENT
    if isinstance(value, dict):
        return ",".join(f"{key}={text(item)}" for key, item in value.items()) or ABSENT
    return str(value)
