"""The page docs/reference/cli.md, made from the commands themselves: `python -m overpaint.cli.reference > docs/...`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from overpaint.cli import EPILOG, app


def reference_page() -> str:
    """Every command with its arguments and options. Made of their values, so it is alike for every version of typer."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    group: Any = get_command(app)
    yield "# The command `overpaint`"
    yield ""
    yield "Made by `python -m overpaint.cli.reference`; a test compares. `python -m overpaint` is the same command."
    yield ""
    yield EPILOG
    yield ""
    yield "Messages go to stderr as one line, `overpaint: ...`; the environment variable `OVERPAINT_DEBUG=1` shows the"
    yield "traceback. With `--json` stdout holds JSON and nothing else; an error is an object there, too."
    for name, command in group.commands.items():
        yield from ("", f"## overpaint {name}", "")
        yield inspect.cleandoc(command.help or "")
        yield ""
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        yield "    " + " ".join(("overpaint", name, *map(_place, arguments), "[OPTIONS]"))
        yield ""
        yield "| | |"
        yield "|---|---|"
        for each in command.params:
            meaning = (each.help or "Show this help.").replace("|", "\\|")
            yield f"| {_names(each)} | {meaning} |"


def _place(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_place(parameter)}`".replace("|", "\\|")
    return ", ".join(f"`{each}`" for each in (*parameter.opts, *parameter.secondary_opts))


if __name__ == "__main__":
    sys.stdout.write(reference_page())
