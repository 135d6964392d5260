"""Writes the reference pages that follow from the code: settings, quirks, request, samplers, limits.

python docs/generate.py            write them
python docs/generate.py --check    only say which are out of date
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

import service_limits
import typed_fields
import yaml

from overpaint.cli.options import HIRES_OPTIONS, REQUEST_OPTIONS
from overpaint.cli.standing import KEYS, OTHER_VARIABLES
from overpaint.parts import ControlUnit, Hires, Lora, SoftInpainting
from overpaint.planning.plan import _ONLY_OFFERED
from overpaint.request import SOURCE_FIELDS, MaskedContent, PaintRequest, ResizeMode
from overpaint.request_checks import NUMBERS
from overpaint.sampler_table import SAMPLERS, SCHEDULERS
from overpaint.settings import Quirks, Settings

DOCS = Path(__file__).parent
SOURCE = DOCS.parent / "src" / "overpaint"
MEANINGS: dict[str, dict[str, str]] = yaml.safe_load((DOCS / "meanings.yaml").read_text(encoding="utf-8"))

_SECTION = re.compile(r"^    # ([A-Z].*)$")
_FIELD = re.compile(r"^    (\w+): (.+?)(?: = (.+?))?(?:  # (.*))?$")


@dataclass(frozen=True)
class Line:
    """One field of a dataclass, as its source says it."""

    section: str
    name: str
    kind: str
    default: str
    comment: str


def lines_of(cls: type) -> tuple[Line, ...]:
    """The fields of a dataclass with the comments that stand beside and above them."""
    found = own_lines_of(cls)
    names = [each.name for each in fields(cls)]
    if [each.name for each in found] != names:
        raise SystemExit(f"{cls.__name__}: write every field on one line; read {found}, there are {names}")
    return found


def own_lines_of(cls: type) -> tuple[Line, ...]:
    """The fields that stand in the class itself."""
    section, found = "", []
    for text in inspect.getsource(cls).splitlines():
        if match := _SECTION.match(text):
            section = match[1]
        elif match := _FIELD.match(text):
            found.append(Line(section, match[1], match[2], match[3] or "", match[4] or ""))
    return tuple(found)


def meanings(section: str, cls: type, skip: tuple[str, ...] = ()) -> dict[str, str]:
    """What the fields of a class are for; a gap or a leftover is an error."""
    given = MEANINGS[section]
    wanted = {each.name for each in fields(cls)} - set(skip)
    if wrong := wanted.symmetric_difference(given):
        raise SystemExit(f"docs/meanings.yaml, {section}: add or remove {', '.join(sorted(wrong))}")
    return given


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    cells = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(each.replace("|", "\\|") for each in row) + " |" for row in cells) + "\n"


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def settings_page() -> str:
    """Every option of `Settings`."""
    meaning = meanings("settings", Settings, skip=("quirks",))
    parts: dict[str, list[tuple[str, ...]]] = {}
    for line in lines_of(Settings):
        if line.name != "quirks":
            default = code(line.default.replace('"', "").replace("()", "")) or "empty"
            row = (code(line.name), code(choices(line.kind)), default, meaning[line.name])
            parts.setdefault(line.section.split(" (")[0].split(":")[0], []).append(row)
    head = ("option", "holds", "default", "meaning")
    tables = "\n".join(f"## {name}\n\n{table(head, rows)}" for name, rows in parts.items())
    return SETTINGS_TEXT.format(tables=tables, refused=refused(), unread=unread(set(meaning) - set(_ONLY_OFFERED)))


def unread(names: Iterable[str]) -> str:
    """Those of the names that no code looks at."""
    paths = (path for path in SOURCE.rglob("*.py") if path.name != "settings.py")
    everything = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    silent = sorted(name for name in names if not re.search(rf"\.{name}\b", everything))
    text = "Accepted and kept, but no part of this version acts on them: " + ", ".join(map(code, silent))
    return f"\n## Not read yet\n\n{textwrap.fill(text, 120)}.\n" if silent else ""


def refused() -> str:
    """What this version does not offer."""
    return table(("option", "must be"), [(code(name), code(str(value))) for name, value in _ONLY_OFFERED.items()])


def choices(kind: str) -> str:
    """The words of a Literal, or the type."""
    named = {"RandomSource": "GPU, CPU, NV", "Emphasis": "Original, No norm, Ignore, None"}
    if kind.startswith("Literal["):
        return kind[8:-1].replace('"', "")
    return named.get(kind, kind)


SETTINGS_TEXT = """\
# Options

The fields of `overpaint.Settings`, by the names AUTOMATIC1111's webui gives them. Set them for a whole site
(`Engine(settings=Settings(...))`), on `shared.opts` at the contract's door, for one job with a request's `overrides`
(`override_settings` at the contract's door), or with `--set OPTION=VALUE` on the command line. A request's own values
beat options. An unknown option is an error that names the nearest.

`Settings(quirks=...)` holds the accidents of the reference: [quirks.md](quirks.md).

{tables}
## Not offered yet

Other values would change the picture, so they are refused:

{refused}
The reference's other options, of its page, its server and its training, change no picture: `shared.opts` and
`override_settings` take them and give them back.
{unread}"""


def quirks_page() -> str:
    """Every flag of `Quirks`."""
    parts: dict[str, list[tuple[str, ...]]] = {}
    for line in lines_of(Quirks):
        rules, colon, text = line.comment.partition(": ")
        if not colon:
            rules, text = "", line.comment
        accident, _, sane = text.partition("; sane: ")
        parts.setdefault(line.section, []).append((code(line.name), rules, accident, sane))
    head = ("flag", "rule", "what the reference does", "what happens otherwise")
    tables = "\n".join(f"## {name}\n\n{table(head, rows)}" for name, rows in parts.items())
    names = [each.name for each in fields(Quirks)]
    return QUIRKS_TEXT.format(count=len(names), tables=tables, unread=unread(names))


QUIRKS_TEXT = """\
# Quirks

The {count} accidents of the reference (AUTOMATIC1111's webui v1.10.1), one flag each. `Quirks.reference()` sets all of
them, `Quirks.none()` none; any single one is `Quirks(name=True)`. Where the last column is empty, the sane behaviour is
the plain opposite. Why they exist, and which door uses which: [concepts/quirks.md](../concepts/quirks.md).

The rule is the number of the behaviour in the specification that this project was built from; tests cite the same.

{tables}{unread}"""


def request_page() -> str:
    """Every field of a request."""
    meaning = meanings("request", PaintRequest)
    rows = []
    for line in lines_of(PaintRequest):
        text = typed_fields.meaning(line, meaning)
        rows.append(
            (
                code(line.name),
                code(line.kind),
                default_of(line),
                limits_of(line.name),
                code(FLAGS.get(line.name, "")),
                text,
            )
        )
    return REQUEST_TEXT.format(
        fields=table(("field", "type", "default", "from, to", "option", "meaning"), rows),
        resize=table(("name", "number", "meaning"), enum_rows(ResizeMode, RESIZE_MEANINGS)),
        content=table(("name", "number", "meaning"), enum_rows(MaskedContent, CONTENT_MEANINGS)),
        soft=part_table("soft_inpainting", SoftInpainting),
        source=textwrap.fill(", ".join(code(each) for each in sorted(SOURCE_FIELDS)), 120),
        hires=part_table("hires", Hires),
        loras=part_table("loras", Lora),
        controls=part_table("controls", ControlUnit),
    )


FLAGS = {name: each.main_flag for each in (*REQUEST_OPTIONS, *HIRES_OPTIONS) for name in each.fields}


def part_table(name: str, kind: type) -> str:
    """The fields of a value that a request holds."""
    meaning = meanings(name, kind)
    rows = [
        (
            code(line.name),
            code(line.kind),
            code(line.default) or "required",
            code(FLAGS.get(f"{name}.{line.name}", "")),
            typed_fields.meaning(line, meaning),
        )
        for line in lines_of(kind)
    ]
    return table(("field", "type", "default", "option", "meaning"), rows)


RESIZE_MEANINGS = (
    "To the size, whatever the shape.",
    "Cover the size and cut what sticks out.",
    "Fit inside and fill the bars from the picture's edge.",
    "Scale the latent instead of the picture; soft, and strong changes follow.",
)
CONTENT_MEANINGS = (
    "The surroundings' colours, smeared inwards.",
    "What is there now.",
    "Noise of the picture's own seed.",
    "An empty latent.",
)


def enum_rows(kind: type[Enum], texts: tuple[str, ...]) -> list[tuple[str, ...]]:
    pairs = zip(kind, texts, strict=True)
    return [(code(str(each.value)), str(number), text) for number, (each, text) in enumerate(pairs)]


def default_of(line: Line) -> str:
    default = line.default
    if not default:
        return "required"
    if default.startswith("field("):
        return "none"
    return code(default.split(".")[-1].lower() if default[0].isupper() and "." in default else default)


def limits_of(name: str) -> str:
    if name not in NUMBERS:
        return ""
    low, high, _, _ = NUMBERS[name]
    return f"{low:,g} to {high:,g}" if high < 1e6 else f"{low:,g} up"


REQUEST_TEXT = """\
# A request

The fields of `overpaint.PaintRequest`: frozen, checked when it is made, the same for Python, the command line and
JSON (`to_json`, `from_json`; pictures travel as data URLs). `None` means that the site decides: unset values are filled
from the [options](settings.md) once, in `plan`. A request is not changed by running it.

A request with `images` is an `overpaint.Img2ImgRequest`, one without is an `overpaint.Txt2ImgRequest`: `isinstance` and
`request.has_source` say which. `PaintRequest(...)` and `PaintRequest.from_json` make the one that its pictures ask for.
The two other names make their own kind only.

{fields}
## Img2ImgRequest

A job with a source: `images` is required, and `hires` has to stay `None`.

## Txt2ImgRequest

A job without a source, which starts from noise alone. Fields about a source have to stay as they are (`strength` is 1
here):

{source}.

A size of `None` is the one the model was trained at.

## hires

Only without a source: an `overpaint.Hires` asks for a second pass over the enlarged picture.

{hires}
## loras

LoRAs and their kin, beside those that tags in the prompt name: a list of `overpaint.Lora`. On the command line
`--lora NAME`, `--lora NAME:WEIGHT` or `--lora NAME:WEIGHT:TEXT_WEIGHT`.

{loras}
## controls

ControlNets with the pictures they follow: a list of `overpaint.ControlUnit`. On the command line
`--control MODEL=PICTURE`, with `,weight=0.8`, `,start=0.1`, `,end=0.6`, `,pre=canny`, `,low=50` and `,high=150` behind
it as wanted. A picture's own name may hold `=` and `,`: a name that is a file is taken whole.

{controls}
## resize_mode

{resize}
The number is what the contract's door (`resize_mode=`) takes.

## masked_content

{content}
The number is what the contract's door (`inpainting_fill=`) takes.

## soft_inpainting

{soft}"""


def samplers_page() -> str:
    """Every sampler and every schedule."""
    labels = {each.name: each.label for each in SCHEDULERS}
    samplers = [sampler_row(each, labels) for each in SAMPLERS]
    schedules = [
        (each.label, ", ".join(map(code, (each.name, *each.aliases))), f"{each.default_rho or ''}")
        for each in SCHEDULERS
    ]
    return SAMPLERS_TEXT.format(
        samplers=table(("name", "alias", "Automatic means", "calls a step", "noise", "reads"), samplers),
        schedules=table(("label", "names", "rho"), schedules),
    )


def sampler_row(spec: Any, labels: dict[str, str]) -> tuple[str, ...]:
    churn = {"all": ("s_churn", "s_tmin", "s_tmax", "s_noise"), "noise": ("s_noise",), "none": ()}[spec.churn]
    reads = (("eta",) if spec.takes_eta else ()) + churn
    schedule = (
        "its own timesteps" if spec.family == "timestep" else labels.get(spec.default_scheduler or "", "the model's")
    )
    calls = "chooses" if spec.adaptive else "2" if spec.second_order else "1"
    noise = {"stream": "per picture", "brownian": "Brownian", "none": "none"}[spec.noise]
    names = ", ".join(code(each) for each in spec.aliases)
    return spec.name, names, schedule, calls, noise, ", ".join(code(each) for each in reads)


SAMPLERS_TEXT = """\
# Samplers and schedules

Names and aliases are read without regard to case, and a sampler's name may end in a schedule's, as in `Euler Karras`.
An unknown name is an error that names the nearest; with the quirk `unknown_names_fall_back` it silently becomes the
default, as in the reference. `overpaint samplers` prints these tables.

## Samplers

{samplers}
"Reads" are the fields of a request that reach the sampler. The timestep samplers (DDIM, DDIM CFG++, PLMS, UniPC) walk
the model's own timesteps: a schedule has no meaning for them.

## Schedules

{schedules}"""


def limits_page() -> str:
    """What is refused for its size."""
    meaning = meanings("settings", Settings, skip=("quirks",))
    options = [
        (code(each.name), f"{getattr(Settings(), each.name):,}", meaning[each.name])
        for each in fields(Settings)
        if each.name.startswith("max_")
    ]
    numbers = [(code(name), limits_of(name), "whole" if whole else "") for name, (_, _, whole, _) in NUMBERS.items()]
    return LIMITS_TEXT.format(
        options=table(("option", "at most", "of what"), options),
        numbers=table(("field", "from, to", ""), numbers),
        server=service_limits.section(),
    )


LIMITS_TEXT = """\
# Limits

What is too large is refused before work starts, with an error that names the field, the value and the remedy.

## A site may change

{options}
## A request's numbers

NaN is refused everywhere; infinity is refused but in `s_tmax`, where it means no limit.

{numbers}
{server}
## Files

| what | limit |
| --- | --- |
| header of a `.safetensors` file | 100 MiB, and never more than the file |
| sidecar `.yaml` | 1 MiB |
| pickled part of a `.ckpt` or `.pt` file | 100 MiB; its reader can build tensors and nothing else |
| infotext read from a picture | 1 MiB |
| recipe read from a file | 64 MiB |

Elsewhere pictures are decoded only from PNG, JPEG (MPO), WebP, AVIF, GIF, BMP, TIFF, PPM, JPEG 2000, ICO and TGA. A
picture of several frames, and one whose header promises more than `max_source_pixels`, are refused without decoding.
"""


def typed_keywords() -> str:
    """The module that type checkers read."""
    return typed_fields.typed_keywords(own_lines_of, meanings("request", PaintRequest))


def help_texts() -> str:
    """The module that `help()` reads."""
    return typed_fields.help_texts(own_lines_of, meanings("request", PaintRequest))


def meanings_list() -> str:
    """What `overpaint settings` shows: the wheel has no docs."""
    meaning = meanings("settings", Settings, skip=("quirks",))
    return "".join(f"{each.name}: {meaning[each.name]}\n" for each in fields(Settings) if each.name in meaning)


def configuration_page() -> str:
    """What holds for all commands of a user."""
    rows = [
        (code(key), code(f"--{key}"), code(variable), code({bool: "true or false", str: "text"}[kind]), meaning)
        for key, (kind, variable, meaning) in KEYS.items()
    ]
    return CONFIGURATION_TEXT.format(
        keys=table(("in the file", "option", "variable", "holds", "meaning"), rows),
        others=table(("variable", "meaning"), [(code(name), meaning) for name, meaning in OTHER_VARIABLES.items()]),
    )


CONFIGURATION_TEXT = """\
# What holds for all commands: overpaint.toml and environment variables

An option on the command line beats the environment, the environment beats the file, and the file beats the defaults.

The file is `overpaint.toml` in the platform's place for settings: `~/.config/overpaint/` on Linux,
`~/Library/Application Support/overpaint/` on macOS, `%LOCALAPPDATA%\\overpaint\\` on Windows. `OVERPAINT_CONFIG` names
another. An unknown key is an error that names the nearest.

```toml
models = "/data/webui/models"
model = "dreams"
device = "cuda"

[set]
randn_source = "NV"
jpeg_quality = 95
```

{keys}
The table `[set]` holds [options](settings.md), as `--set` does. `again` repeats what a picture was painted with: of all
this only folders, `device` and `dtype` count there.

{others}"""

PAGES: dict[Path, Callable[[], str]] = {
    DOCS / "reference" / "settings.md": settings_page,
    DOCS / "reference" / "quirks.md": quirks_page,
    DOCS / "reference" / "request.md": request_page,
    DOCS / "reference" / "samplers.md": samplers_page,
    DOCS / "reference" / "limits.md": limits_page,
    DOCS / "reference" / "configuration.md": configuration_page,
    SOURCE / "request_fields.py": typed_keywords,
    SOURCE / "request_help.py": help_texts,
    SOURCE / "option_meanings.txt": meanings_list,
}


def main(check: bool) -> int:
    """Write the pages, or say what would change."""
    stale = 0
    for path, page in PAGES.items():
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        new = page()
        if old == new:
            continue
        stale += 1
        if check:
            shown = difflib.unified_diff(old.splitlines(True), new.splitlines(True), str(path), "the code", n=0)
            sys.stdout.writelines(shown)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(new, encoding="utf-8", newline="\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main("--check" in sys.argv[1:]))
