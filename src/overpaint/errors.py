"""The exception tree. Every message is one sentence that names the field, the value and the remedy.

OverpaintError
|- RequestError            a field of a request cannot be used            (also a ValueError)
|  |- RequestTypeError     there is no such field, or its value is of another kind  (also a TypeError)
|  |- MaskTextError        a mask written as text cannot be read, or not drawn on this picture
|  `- SettingError         an option does not exist or has a wrong value  (also a KeyError)
|- PictureError            a picture cannot be decoded or is too large     (also a ValueError)
|  `- PictureTypeError     something was given that is no picture          (also a TypeError)
|- CheckpointError         a model file cannot be used
|- SamplingError           the numbers of a run failed (NaN, schedule)
`- SaveError               a result could not be written; what was finished is kept

What works, but not quite as asked, is an OverpaintWarning.
"""

from __future__ import annotations

import reprlib

_LONGEST = 2000  # characters of a message; of a longer one, the beginning and the end are shown
_BRIEF = 80
_SHOWN_BEFORE = 50  # characters before a mistake in a text


class OverpaintError(Exception):
    """Anything this package raises on purpose. `result` holds the pictures a job finished before it failed, if any."""

    result: object | None = None

    def __init__(self, *args: object) -> None:
        super().__init__(*(_cut(each) if isinstance(each, str) else each for each in args))


class RequestError(OverpaintError, ValueError):
    """A field of a request holds a value that cannot be used."""

    def __init__(self, name: str, value: object, remedy: str) -> None:
        super().__init__(f"{name}={brief(value)}: {remedy}")
        self.field = name
        self.value = value
        self.remedy = remedy

    def __str__(self) -> str:
        return str(self.args[0])


class RequestTypeError(RequestError, TypeError):
    """There is no such field, or it holds a value of another kind than belongs there."""


class MaskTextError(RequestError):
    """A mask written as text has a mistake, at `text[start:end]`; `pointer` shows where."""

    def __init__(self, text: str, start: int, end: int, remedy: str, *, field: str = "mask") -> None:
        super().__init__(field, text[start:end] or "the end", f"{remedy} (at character {start + 1})")
        self.text, self.start, self.end, self._told = text, start, end, remedy
        if hasattr(self, "add_note"):  # Python 3.11 shows it below the message
            self.add_note(self.pointer)

    def of(self, field: str) -> MaskTextError:
        """The same complaint about a mask that was given under another name."""
        return MaskTextError(self.text, self.start, self.end, self._told, field=field)

    @property
    def pointer(self) -> str:
        """The text, and below it a mark under what is wrong; of a long text the part around it."""
        first = max(0, self.start - _SHOWN_BEFORE)
        shown = " ".join(self.text[first : first + 2 * _SHOWN_BEFORE].splitlines() or [""])
        marks = max(1, min(self.end - self.start, len(shown) - (self.start - first)))
        return f"  {shown}\n  {' ' * (self.start - first)}{'^' * marks}"


class SettingError(RequestError, KeyError):
    """An option does not exist or holds a value that cannot be used."""


class PictureError(OverpaintError, ValueError):
    """A picture cannot be decoded, or its header promises more than the limits allow."""


class PictureTypeError(PictureError, TypeError):
    """What was given is nothing that a picture can be read from."""


class CheckpointError(OverpaintError):
    """A model file cannot be used; nothing of it was loaded."""


class SamplingError(OverpaintError, RuntimeError):
    """The numbers of a run failed."""


class SaveError(OverpaintError, OSError):
    """A result could not be written; no partial file is left, and what was painted is in `result`."""


class PaintingCancelled(OverpaintError):  # noqa: N818 (what was asked for, not an error)
    """The run was stopped on request."""


class OverpaintWarning(UserWarning):
    """What to know about a job that works all the same."""


def brief(value: object, limit: int = _BRIEF) -> str:
    """A value as a message shows it. Of a large or deeply nested one no more is looked at than is shown."""
    if isinstance(value, str):
        value = value[: limit + 1]
    try:
        text = _SHORT.repr(value)
    except Exception:  # of an object whose own words fail, or an integer with too many digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _shortener() -> reprlib.Repr:
    short = reprlib.Repr()
    short.maxlevel = 6
    short.maxlist = short.maxtuple = short.maxdict = short.maxset = short.maxfrozenset = 40
    short.maxstring = short.maxlong = short.maxother = 1000
    return short


_SHORT = _shortener()


def _cut(message: str) -> str:
    """NOTE: the end is kept, for there the remedy is."""
    if len(message) <= _LONGEST:
        return message
    return f"{message[: _LONGEST * 3 // 4]} ... {message[-_LONGEST // 5 :]}"
