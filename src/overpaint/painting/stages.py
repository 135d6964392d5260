"""The stages of a job, one by one. The engine walks through them, and so does the contract's door.

    1 plan   2 prepare   3 texts   4 start   5 tick   6 decode and finish   7 account

A job is a generator of `Step`s. It yields its events, and before every call of a network what it waits for. A caller
that drives several jobs may answer several of them with one call (`together`). A job that gets no answer calls the
network itself.

Jobs may take turns: each stage is given the plan, and has that plan's model in place, with what hangs on it, before it
touches a network.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from overpaint.backends.port import Backend
from overpaint.errors import OverpaintError, SamplingError
from overpaint.events import Control, Event, Painted, Preview, Progress, Stop
from overpaint.finish import FinishedPicture, SoftLatents, finish, unchanged
from overpaint.models.checkpoint import LoadedModel
from overpaint.outcome import EncodingsUsed, FinishedBatch, ModelIdentity, Processed
from overpaint.painting.drive import Run
from overpaint.painting.hires import prepare_second
from overpaint.painting.inversion import mixed, start_inversion
from overpaint.painting.latents import Codec, Prepared, at_places, batch_latents, decode, of_batch, prepare
from overpaint.painting.model_cache import ModelCache, identity_of
from overpaint.painting.pass_networks import PassNetworks, Pending
from overpaint.painting.sampling import BatchTensors, Streams, drawn_noise, final_latents, start_runs
from overpaint.painting.texts import ImageCond, TextCond
from overpaint.painting.tiled import TiledCodec
from overpaint.painting.windowed import WindowedCodec, part_to_decode
from overpaint.planning.plan import effective_settings
from overpaint.planning.plan import plan as make_plan
from overpaint.planning.plans import ImagePlan, NoiseInversion, Plan
from overpaint.request import PaintRequest
from overpaint.settings import Settings

Step: TypeAlias = Event | Pending  # an event, or a wait for the network
Painter: TypeAlias = Generator[Step, None, FinishedBatch | None]


@dataclass(frozen=True)
class Sampled:
    """The latents of one batch, and what sampling adds to the infotext."""

    latents: Tensor  # (batch, 4, h/8, w/8)
    complete: bool
    notes: Mapping[str, object]
    made_by: Plan | None = None  # the pass they come from, where that is not the job's first


class Stages:
    """What an engine does, step by step, with the models of its model_cache."""

    def __init__(self, model_cache: ModelCache, settings: Settings, loaded: LoadedModel) -> None:
        self.model_cache = model_cache
        self.loaded = loaded  # the model of the latest job
        self._tables_in_force = settings  # SIG-11: what the job before left in the model

    @property
    def backend(self) -> Backend:
        """The networks."""
        return self.loaded.backend

    def story(self, plan: Plan) -> AbstractContextManager[None]:
        """While it lasts, the models of this plan stay as they are."""
        return self.model_cache.holding(plan)

    def identity(self, plan: Plan) -> ModelIdentity:
        """The model a plan is painted with."""
        return identity_of(self.model_cache.resident(plan).model)

    def encodings(self, plan: Plan) -> EncodingsUsed:
        """What a running job had to encode up to now."""
        count = self.model_cache.count(plan)
        return EncodingsUsed(count.misses, count.hits, self.model_cache.encodings.size)

    def plan(self, request: PaintRequest, settings: Settings) -> Plan:
        """1. Decide everything. Nothing changes, and only what has to be asked is loaded."""
        model_cache = self.model_cache
        effective = effective_settings(request, settings)
        path = model_cache.model_for(request, effective)
        known = model_cache.surroundings(request, effective, path, self._tables_in_force)
        return make_plan(request, settings, model_cache.spec_of(path, effective), known)

    @torch.no_grad()
    def prepare(self, plan: Plan) -> Prepared:
        """2. Have the job's model in place, and encode the sources."""
        self.loaded = self.model_cache.ready(plan, ()).model
        self._tables_in_force = plan.settings
        return prepare(plan, _in_parts(plan, self.model_cache.encoder(plan)))

    def painter(self, plan: Plan, control: Control) -> Callable[[int, Sequence[ImagePlan]], Painter]:
        """2 to 6 for one batch after the other; the sources are encoded when the first one begins."""
        prepared: Prepared | None = None

        def paint(number: int, batch: Sequence[ImagePlan]) -> Painter:
            nonlocal prepared
            if plan.unchanged:
                return FinishedBatch(tuple(batch), tuple(unchanged(plan, each.place) for each in batch))
            prepared = prepared or self.prepare(plan)
            sampled = yield from self.sample(plan, prepared, batch, control=control, number=number)
            return None if sampled is None else self.finish(plan, prepared, batch, sampled)

        return paint

    @torch.no_grad()
    def texts(self, plan: Plan, batch: Sequence[ImagePlan]) -> tuple[ImageCond, ...]:
        """3. What each picture of a batch is guided by."""
        return self.model_cache.ready(plan, batch).conditioner.images(batch)

    @torch.no_grad()
    def tensors(
        self, plan: Plan, prepared: Prepared, batch: Sequence[ImagePlan], texts: tuple[ImageCond, ...]
    ) -> BatchTensors:
        """Everything one batch starts from."""
        image = prepared.image_conditioning
        return BatchTensors(
            init=batch_latents(plan, prepared, batch),
            nmask=prepared.nmask,
            image_conditioning=None if image is None else at_places(image, batch),
            texts=texts,
            empty_text=self._empty_text(plan, batch),
            references=of_batch(prepared.references, batch),
        )

    def sample(
        self,
        plan: Plan,
        prepared: Prepared,
        batch: Sequence[ImagePlan],
        *,
        control: Control,
        number: int = 0,
    ) -> Generator[Step, None, Sampled | None]:
        """3 to 5 for a batch of the plan, with its own seeds."""
        tensors = self.tensors(plan, prepared, batch, self.texts(plan, batch))
        streams = Streams(
            tuple(each.seed for each in batch),
            tuple(each.subseed for each in batch),
            plan.request.variation_strength,
        )
        return (yield from self.sample_passes(plan, tensors, streams, control=control, number=number))

    def sample_passes(
        self, plan: Plan, tensors: BatchTensors, streams: Streams, *, control: Control, number: int = 0
    ) -> Generator[Step, None, Sampled | None]:
        """4 and 5, and once more where the plan has a second pass; None when cancelled."""
        sampled = yield from self.sample_tensors(plan, tensors, streams, control=control, number=number)
        if sampled is None or plan.hires is None or not sampled.complete:
            return sampled
        second = plan.hires.plan
        prepared = self._prepare_second(plan, sampled)
        if not plan.hires.paints:
            return Sampled(prepared.latents, True, sampled.notes, second)
        texts = self.texts(second, second.batches[number])
        empty = self._empty_text(second, second.batches[number])
        references = of_batch(prepared.references, second.batches[number])
        tensors = BatchTensors(prepared.latents, None, prepared.image_conditioning, texts, empty, references)
        again = yield from self.sample_tensors(second, tensors, streams, control=control, number=number, first=plan)
        if again is None:
            return None
        return Sampled(again.latents, again.complete, _of_both(sampled.notes, again.notes), again.made_by)

    @torch.no_grad()
    def _prepare_second(self, plan: Plan, sampled: Sampled) -> Prepared:
        assert plan.hires is not None
        second = plan.hires.plan
        self.model_cache.ready(second, ())
        return prepare_second(plan, self.model_cache.decoder(plan), self.model_cache.encoder(second), sampled.latents)

    @torch.no_grad()
    def sample_tensors(
        self,
        plan: Plan,
        tensors: BatchTensors,
        streams: Streams,
        *,
        control: Control,
        number: int = 0,
        first: Plan | None = None,
    ) -> Generator[Step, None, Sampled | None]:
        """One pass: start the samplers and see to their questions; None when cancelled. `first` is a pass before it."""
        found = None
        if plan.inversion is not None and first is None:
            found = yield from self._found_noise(plan, plan.inversion, tensors, streams, control=control, number=number)
            if found is None:
                return None
        runs = start_runs(plan, tensors, streams, found)
        networks = PassNetworks(self.model_cache, plan, plan.batches[number], control)
        complete = True
        while any(not run.finished for run in runs):
            if control.message is Stop.CANCEL:
                for run in runs:
                    run.close()
                return None
            if control.message in (Stop.FINISH_EARLY, Stop.SKIP):
                for run in runs:
                    run.stop()
                control.take_skip()
                complete = False
                break
            pending = networks.pending(runs)
            yield pending
            if pending.is_stopped and not pending.is_answered:
                continue
            pending.settle()
            yield from self._progress(plan, runs, number, first)
        latents = final_latents(plan, tensors, runs)
        if bool(torch.isnan(latents).any()):
            remedy = "use dtype='float32', a lower cfg_scale or another sampler"
            raise SamplingError(f"sampler={plan.sampler.spec.name!r}: the network produced NaN; {remedy}")
        notes = {name: value for run in runs for name, value in run.notes.items()}
        made_by = networks.last_plan(runs)
        return Sampled(latents, complete, {**networks.notes(), **plan.sampling_notes, **notes}, made_by)

    def _found_noise(
        self,
        plan: Plan,
        inversion: NoiseInversion,
        tensors: BatchTensors,
        streams: Streams,
        *,
        control: Control,
        number: int,
    ) -> Generator[Step, None, Tensor | None]:
        """The noise that the sources of a batch could have come from; None when cancelled on the way."""
        walk = inversion.plan
        texts = self.texts(walk, walk.batches[number])
        run = start_inversion(inversion, replace(tensors, texts=texts, empty_text=None))
        networks = PassNetworks(self.model_cache, walk, walk.batches[number], control)
        while not run.finished:
            if control.message is Stop.CANCEL:
                run.close()
                return None
            pending = networks.pending([run])
            yield pending
            if not pending.is_stopped or pending.is_answered:
                pending.settle()
        assert run.latent is not None
        return mixed(inversion, plan, run.latent, drawn_noise(plan, tensors, streams), tensors.init)

    @torch.no_grad()
    def finish(self, plan: Plan, prepared: Prepared, batch: Sequence[ImagePlan], sampled: Sampled) -> FinishedBatch:
        """6. Decode each latent alone and composite it over its source."""
        pictures: list[FinishedPicture] = []
        made_by = sampled.made_by or plan
        init = batch_latents(plan, prepared, batch)
        codec = _of_the_part(made_by, _in_parts(plan, self.model_cache.decoder(made_by)))
        for i, pixels in enumerate(decode(made_by, codec, sampled.latents)):
            soft = None
            if plan.request.soft_inpainting is not None and prepared.nmask is not None:
                arrays = (sampled.latents[i], init[i], prepared.nmask)
                soft = SoftLatents(*(each.float().cpu().numpy() for each in arrays))
            pictures.append(finish(made_by, batch[i].place, pixels, soft))
        ready = self.model_cache.ready(plan, batch)
        notes = dict(sampled.notes)
        if plan.settings.sd_vae_decode_method != "Full":
            notes["VAE Decoder"] = plan.settings.sd_vae_decode_method
        return FinishedBatch(
            tuple(batch), tuple(pictures), notes, sampled.complete, ready.worn.comments(), ready.warnings(batch)
        )

    def _empty_text(self, plan: Plan, batch: Sequence[ImagePlan]) -> TextCond | None:
        return self.model_cache.ready(plan, batch).conditioner.empty() if plan.settings.pad_cond_uncond else None

    def _progress(self, plan: Plan, runs: Sequence[Run], number: int, first: Plan | None) -> Iterator[Event]:
        step = min(run.step for run in runs)
        sigma = next((run.query.sigma for run in runs if run.query is not None), 0.0)
        before = number * _steps_of_batch(first or plan) + (first.sampler.evaluations if first is not None else 0)
        yield Progress(before + step, steps_of(first or plan), sigma, number)
        every = plan.settings.show_progress_every_n_steps
        if plan.settings.live_previews_enable and every > 0 and step and step % every == 0:
            yield Preview(before + step, self.model_cache.preview(plan, runs[0].preview()[0]))


def _in_parts(plan: Plan, codec: Codec) -> Codec:
    """The codec as this plan's canvas needs it."""
    return codec if plan.tiles is None else TiledCodec(codec, plan.tiles, plan.spec.latent.factor, codec.device)


def _of_the_part(plan: Plan, codec: Codec) -> Codec:
    """The codec that decodes no more than the result of this pass shows."""
    part = part_to_decode(plan)
    return codec if part is None else WindowedCodec(codec, part, plan.spec.latent.factor)


_LAST = (Stop.CANCEL, Stop.FINISH_EARLY, Stop.AFTER_BATCH)  # messages after which no batch begins
_T = TypeVar("_T")


def batches(
    plan: Plan,
    control: Control,
    done: list[FinishedBatch],
    *,
    paint: Callable[[int, tuple[ImagePlan, ...]], Generator[_T, None, FinishedBatch | None]],
    result: Callable[[], Processed],
) -> Generator[_T | Painted]:
    """Batch after batch into `done`, until all are made or somebody stops it. An error carries what was painted."""
    try:
        for number, batch in list(enumerate(plan.batches))[len(done) :]:
            control.take_skip()  # one that came between two batches was meant for neither (INT-3)
            if control.message in _LAST:
                return
            made = yield from paint(number, batch)
            if made is None:
                return
            done.append(made)
            yield Painted(made)
    except (OverpaintError, RuntimeError, MemoryError) as error:
        known = explained(error)
        known.result = result() if done else None
        raise known from error.__cause__ if known is error else error


def explained(error: Exception) -> OverpaintError:
    """A failure of torch as one of ours, if it is about memory; anything else is not for us to explain."""
    if isinstance(error, OverpaintError):
        return error
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
        return SamplingError(f"memory: there is not enough of it ({error}); ask for a smaller size or batch")
    raise error


def _of_both(first: Mapping[str, object], second: Mapping[str, object]) -> dict[str, object]:
    """Infotext fields of two passes: the LoRAs of both, and otherwise the second's word."""
    notes = {**first, **second}
    hashes = [str(each["Lora hashes"]).split(", ") for each in (first, second) if "Lora hashes" in each]
    if hashes:
        notes["Lora hashes"] = ", ".join(dict.fromkeys(each for part in hashes for each in part))
    return notes


def steps_of(plan: Plan) -> int:
    """Sampler iterations of the whole job; what progress counts to."""
    return 0 if plan.unchanged else _steps_of_batch(plan) * len(plan.batches)


def _steps_of_batch(plan: Plan) -> int:
    hires = plan.hires
    return plan.sampler.evaluations + (hires.plan.sampler.evaluations if hires is not None and hires.paints else 0)
