"""What a job would do, planned in the web process; another one is asked of checkpoints that take torch to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from overpaint.errors import CheckpointError
from overpaint.models.built_in import words_of
from overpaint.models.families import SD1_SPEC, ModelSpec
from overpaint.models.spec_json import spec_from_json
from overpaint.models.what_is import spec_of
from overpaint.planning.plan import plan as make_plan
from overpaint.planning.preflight import account_of, stand_in_upscalers, surroundings_of
from overpaint.request import PaintRequest
from overpaint.sequences.story import PaintingSequence
from overpaint.service.config import ServeConfig
from overpaint.service.doors.native.answers import BODY, NativeRoute, errors
from overpaint.service.guard.budgets import at_work
from overpaint.service.guard.places import placeless
from overpaint.service.intake.bodies import json_body
from overpaint.service.jobs import Json
from overpaint.service.known_models import KnownModels, served_checkpoint
from overpaint.service.ports import Desk
from overpaint.service.problems import ApiError
from overpaint.service.request_limits import job_settings
from overpaint.service.requests import judged_request, judged_sequence, reader_for
from overpaint.service.schema import plan_schema
from overpaint.service.sequence_orders import is_sequence
from overpaint.service.workers.port import WorkerRefused
from overpaint.settings import Settings

_PATIENCE = 20.0  # seconds, with who is asked what a file is

Ask = Callable[[Mapping[str, Any]], Coroutine[Any, Any, Any]]


class PlanView(BaseModel):
    """What a job would do."""

    model: str = Field(description="The family of the checkpoint.")
    source: list[int] | None
    size: list[int]
    network_size: list[int]
    crop: list[int] | None = Field(description="[left, top, right, bottom] of what is painted of the source.")
    repainted: float | None = Field(description="Percent of the picture that may change.")
    strengths: list[dict[str, Any]] = Field(
        description="Of a strength map: each strength, how many steps act there, and on which part in percent."
    )
    sampler: str
    scheduler: str
    steps: int
    start: float | None = Field(description="The noise, as a sigma, that painting starts from.")
    network_calls: int | None
    memory: dict[str, int] | None = Field(description="Bytes of a flow model's weights in 16 bits, by network.")
    placement: dict[str, Any] | None = Field(
        default=None,
        description="What is done with a flow model's weights on a device of the size that the option `device_memory` "
        "says: bytes in their files, of the work beside them and in all; whether weights stay as stored, text encoders "
        "leave and blocks are streamed; and why.",
    )
    hires: dict[str, Any] | None
    refiner: dict[str, Any] | None
    networks: list[dict[str, Any]]
    controls: list[dict[str, Any]]
    pictures: list[dict[str, Any]]
    batches: int
    unchanged: str | None = Field(description="Why nothing would be painted.")
    comments: list[str]
    warnings: list[str]


class StepPlan(PlanView):
    """What one step of a sequence would do."""

    step: str = Field(description="What the step is called on a sheet, such as the values of a grid's cell.")


class SequencePlanView(BaseModel):
    """What a tool that paints more than once would do."""

    kind: str
    plans: list[StepPlan] = Field(description="Of each step, in the order in which they are painted.")
    warnings: list[str] = Field(description="Those of all steps, each once.")


def plan_routes(desk: Desk, config: ServeConfig) -> APIRouter:
    """The one route that plans."""
    routes = APIRouter(route_class=NativeRoute)
    body = {"required": True, "content": {"application/json": {"schema": plan_schema(config.limits)}}}

    @routes.post("/v1/plan", tags=["jobs"], responses=errors(*BODY, 422, 429), openapi_extra={"requestBody": body})
    async def plan(request: Request) -> PlanView | SequencePlanView:
        """What a job would do: sizes, steps, seeds, files, warnings. Nothing is painted or kept.

        Of a tool that paints more than once it is told step by step.
        """
        specs = _Specs(config, asyncio.get_running_loop(), lambda values: desk.ask("recognise", values))
        return await at_work(planned, await json_body(request), specs)

    def planned(values: Json, specs: _Specs) -> PlanView | SequencePlanView:
        settings = job_settings(config.settings, config.limits)
        with ExitStack() as held:
            how: dict[str, Any] = {"settings": settings, "read": reader_for(config), "held": held}
            if is_sequence(values):
                sequence = judged_sequence(values, desk.store, config.limits, **how)
                return _steps_planned(sequence, settings, specs)
            request = judged_request(values, desk.store, config.limits, **how)
            return PlanView(**_account(request, settings, specs))

    return routes


def _account(request: PaintRequest, settings: Settings, specs: _Specs) -> dict[str, Any]:
    """A plan in plain values, without places on this machine."""
    path = specs.path_of(request.checkpoint)
    known = replace(surroundings_of(request, settings, specs.of_file), words=words_of(path))
    account = account_of(make_plan(request, settings, specs.of_checkpoint(path), known))
    told = {name: _named(account[name]) for name in ("networks", "controls")}
    return {**account, **told, "warnings": [placeless(each) for each in account["warnings"]]}


def _steps_planned(sequence: PaintingSequence, settings: Settings, specs: _Specs) -> SequencePlanView:
    """As far as it is known before anything is painted: a step that goes on from another has a stand-in for it."""
    plans: list[StepPlan] = []
    for step in sequence.prepared(settings, stand_in_upscalers(settings)).outline():
        account = _account(step.request, step.room(settings), specs)
        plans.append(StepPlan(step=step.label, **account))
    warnings = dict.fromkeys(text for each in plans for text in each.warnings)
    return SequencePlanView(kind=sequence.kind, plans=plans, warnings=list(warnings))


@dataclass(frozen=True)
class _Specs:
    """What checkpoints are: by their headers, or by what the examiner says of them. Belongs in a thread."""

    config: ServeConfig
    loop: asyncio.AbstractEventLoop
    ask: Ask

    def path_of(self, name: str | None) -> Path:
        """Of what would be painted with."""
        if name is not None:
            return KnownModels.of(self.config).named("checkpoint", name).path
        return served_checkpoint(self.config)

    def of_checkpoint(self, path: Path) -> ModelSpec:
        """The built-in checkpoint may not be made yet."""
        return self.of_file(path) if path.exists() else SD1_SPEC

    def of_file(self, path: Path) -> ModelSpec:
        try:
            return spec_of(path, self.config.settings.text_encoder_files, header_only=True)
        except CheckpointError:
            return self._told(path)

    def _told(self, path: Path) -> ModelSpec:
        asked = asyncio.run_coroutine_threadsafe(self.ask({"path": str(path)}), self.loop)
        try:
            return spec_from_json(asked.result(_PATIENCE))
        except WorkerRefused as error:
            raise CheckpointError(str(error)) from None
        except (TookTooLong, asyncio.TimeoutError):
            asked.cancel()
            said = f"{path.name}: there was no time to look at this file yet; ask again later"
            raise ApiError("unavailable", said) from None


def _named(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where files lie is no client's business."""
    return [{**each, "path": Path(each["path"]).name} for each in files]
