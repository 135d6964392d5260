"""`overpaint doctor`: what this machine has, what was chosen and why, and what would be faster."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from overpaint.cli.arguments import AsJson
from overpaint.cli.options import JOB_OPTIONS, GivenOptions, takes
from overpaint.cli.output import say, say_json, table

if TYPE_CHECKING:
    from overpaint.backends.advice import Decision, DeviceFacts, TorchFacts
    from overpaint.machine import MachineFacts

_OPTIONS = tuple(each for each in JOB_OPTIONS if each.name in ("device", "dtype", "backend"))
_GIB = 2**30


@takes(*_OPTIONS)
def doctor(*, as_json: AsJson = False, asked: GivenOptions) -> int:
    """Say what this machine has, and what painting makes of it.

    It tells which device, number format and backend are used and why, which extras are installed, and what would be
    faster. No model is read.
    """
    from overpaint.machine import extras, machine_facts
    from overpaint.models.find import check_backend, check_machine

    device, dtype = check_machine(asked.text("device", "auto"), asked.text("dtype", "auto"), dashes="--")
    backend = asked.settings().backend
    check_backend(backend)
    from overpaint.backends.advice import decisions, faster, torch_facts  # which loads torch

    machine, build, installed = machine_facts(), torch_facts(), extras()
    chosen = decisions(device, dtype, backend)
    used = {each.name: each.chosen for each in chosen}
    tips = tuple(faster(machine, used["device"], used["dtype"], installed["openvino"] is not None))
    if as_json:
        say_json(
            {
                "machine": asdict(machine),
                "torch": asdict(build),
                "extras": installed,
                "chosen": [asdict(each) for each in chosen],
                "faster": tips,
            }
        )
    else:
        _say(machine, build, installed, chosen, tips)
    return 0


def _say(
    machine: MachineFacts,
    build: TorchFacts,
    installed: dict[str, str | None],
    chosen: tuple[Decision, ...],
    tips: tuple[str, ...],
) -> None:
    rows: list[tuple[str, str]] = [
        ("system", machine.system),
        ("Python", machine.python),
        ("processor", f"{machine.processor}, {machine.cores} cores for this process"),
        ("it has", " ".join(machine.features) or "no features that the system tells"),
    ]
    _section("machine", rows)
    kernels = "oneDNN's packed kernels" if build.packs else "no packed kernels"
    devices = [(each.name, _device(each)) for each in build.devices]
    _section("torch", [("version", f"{build.version}, {build.threads} threads, {kernels}"), *devices])
    _section("extras", [(name, _extra(name, version)) for name, version in installed.items()])
    _section("in use", [(each.name, _decision(each)) for each in chosen])
    say("would be faster")
    for tip in tips:
        say(f"  - {tip}")


def _section(title: str, rows: list[tuple[str, str]]) -> None:
    say(title)
    say("\n".join(f"  {line}" for line in table(rows).splitlines()))
    say("")


def _device(found: DeviceFacts) -> str:
    free = "" if found.free is None else f", {found.free / _GIB:.1f} free"
    return f"{found.title}: {found.memory / _GIB:.1f} GiB{free}"


def _extra(name: str, version: str | None) -> str:
    from overpaint.machine import EXTRAS

    return version or f"not installed: pip install 'overpaint[{name}]' ({EXTRAS[name][1]})"


def _decision(found: Decision) -> str:
    asked = "" if found.asked == found.chosen else f" (for {found.asked})"
    return f"{found.chosen}{asked}: {found.why}"
