"""The reference's `opts`, `cmd_opts` and `state`: what its users read and set while jobs come and go."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from overpaint.errors import SettingError
from overpaint.events import Control, Stop
from overpaint.settings import OPTION_NAMES, Settings, inert_options


class Options:
    """Attribute access to a site's settings, with the reference's behaviour as the default."""

    _first: Settings
    _settings: Settings
    _inert: dict[str, Any]  # options of the reference that change nothing here, kept for those who read them back

    def __init__(self, settings: Settings | None = None) -> None:
        object.__setattr__(self, "_first", settings or Settings.reference())
        object.__setattr__(self, "_settings", self._first)
        object.__setattr__(self, "_inert", {})

    def __getattr__(self, name: str) -> Any:
        if name in OPTION_NAMES or name == "quirks":
            return getattr(self._settings, name)
        if name in inert_options():
            return self._inert.get(name)
        raise AttributeError(f"opts.{name}: there is no such option")

    def __setattr__(self, name: str, value: Any) -> None:
        self.set(name, value)

    def set(self, name: str, value: Any, *_: object, **__: object) -> None:
        """Change one option for all jobs that start later. Further arguments of the reference are accepted."""
        if name in inert_options():
            self._inert[name] = value
            return
        if name == "quirks":
            changed = replace(self._settings, quirks=value)
        else:
            changed = self._settings.with_changes({name: value})
        object.__setattr__(self, "_settings", changed)

    @property
    def data(self) -> MutableMapping[str, Any]:
        """All options with their values; what is set here is set."""
        return _OptionData(self)

    def snapshot(self) -> Settings:
        """The frozen settings a job takes with it."""
        return self._settings

    def replace_all(self, settings: Settings) -> None:
        object.__setattr__(self, "_settings", settings)

    def reset(self, *names: str) -> None:
        """Back to what the options were at first: those named, or all of them with their accidents."""
        changed = self._first if not names else self._settings
        for name in names:
            if name == "quirks":
                changed = replace(changed, quirks=self._first.quirks)
            elif name not in inert_options():
                changed = changed.with_changes({name: getattr(self._first, name, None)})
        for name in names or tuple(self._inert):
            self._inert.pop(name, None)
        object.__setattr__(self, "_settings", changed)


@cache
def reference_tables() -> Mapping[str, Mapping[str, Any]]:
    """The reference's options that change nothing here, and its command-line flags, with their defaults."""
    text = files("overpaint.contract").joinpath("tables.json").read_text("utf-8")
    return MappingProxyType({name: MappingProxyType(table) for name, table in json.loads(text).items()})


FOLDERS = (*sorted(name for name in OPTION_NAMES if name.endswith("_dir")), "styles_file")


class CommandOptions:
    """The reference's `cmd_opts`, as far as they name folders of models and of what hangs on them."""

    def __getattr__(self, name: str) -> Any:
        if name in FOLDERS:
            return None  # not given
        raise AttributeError(f"cmd_opts.{name}: there is no such option; there are {', '.join(FOLDERS)}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in FOLDERS:
            near = get_close_matches(name, FOLDERS, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"give one of {', '.join(FOLDERS)}"
            raise SettingError(f"cmd_opts.{name}", value, remedy)
        if not isinstance(value, str | os.PathLike | None):
            raise SettingError(f"cmd_opts.{name}", value, "give a path")
        object.__setattr__(self, name, None if value is None else os.fspath(value))

    def given(self) -> dict[str, str]:
        """Those that are set, as options."""
        return {name: value for name, value in vars(self).items() if value}


class _OptionData(MutableMapping[str, Any]):
    """The options as the dictionary that the reference keeps them in."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def __getitem__(self, name: str) -> Any:
        if name not in OPTION_NAMES:
            raise KeyError(name)
        return getattr(self._options, name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._options.set(name, value)

    def __delitem__(self, name: str) -> None:
        self._options.set(name, getattr(Settings.reference(), name))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(OPTION_NAMES))

    def __len__(self) -> int:
        return len(OPTION_NAMES)


class State(Control):
    """Where the running job stands, and the flags that stop it (INT-1). The engine looks at it between steps."""

    def __init__(self) -> None:
        super().__init__()
        self.job = ""
        self.job_no = 0
        self.job_count = 0
        self.job_timestamp = "0"
        self.sampling_step = 0
        self.sampling_steps = 0
        self.interrupted = False
        self.skipped = False
        self.stopping_generation = False
        self.current_image: Any = None
        self.textinfo: str | None = None
        self.time_start = 0.0

    @property
    def message(self) -> Stop | None:
        if self.interrupted:
            return Stop.FINISH_EARLY
        if self.skipped:
            return Stop.SKIP
        return Stop.AFTER_BATCH if self.stopping_generation else super().message

    def take_skip(self) -> None:
        self.skipped = False

    def begin(self, job: str = "(unknown)") -> None:
        """A job starts: every flag is cleared, so an interrupt sent while idle has no effect (CTRL-4)."""
        self.__init__()  # type: ignore[misc]
        self.job, self.job_count, self.time_start = job, -1, time.time()
        self.job_timestamp = time.strftime("%Y%m%d%H%M%S")

    def end(self) -> None:
        self.job, self.job_count = "", 0

    def interrupt(self) -> None:
        self.interrupted = True

    def skip(self) -> None:
        self.skipped = True

    def stop_generating(self) -> None:
        self.stopping_generation = True

    def dict(self) -> Mapping[str, Any]:
        """The state as the REST interface shows it (PROG-3)."""
        names = ("skipped", "interrupted", "stopping_generation", "job", "job_count", "job_timestamp", "job_no")
        return {name: getattr(self, name) for name in (*names, "sampling_step", "sampling_steps")}
