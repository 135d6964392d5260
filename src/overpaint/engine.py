"""`Engine`: weights on a device, and the numbered story of a job.

    1 plan   2 prepare   3 texts   4 start   5 tick   6 decode and finish   7 account

One thread owns an engine. Everyone else puts messages into a `Control`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from overpaint.backends.torch_backend import TorchBackend
from overpaint.conditioning import Conditioner, TextCache
from overpaint.denoise import ImageCond
from overpaint.drive import Run, tick
from overpaint.errors import CheckpointError, OverpaintError, SamplingError
from overpaint.events import Cancelled, Control, Event, Finished, Preview, Progress, Started, Stop
from overpaint.finish import FinishedPicture, SoftLatents, finish, unchanged
from overpaint.latents import Prepared, batch_latents, decode, prepare
from overpaint.models.checkpoint import LoadedModel, load_checkpoint, load_vae_into, recognise
from overpaint.models.families import ModelSpec
from overpaint.models.find import choose_device, find_checkpoint, find_vae, model_folders
from overpaint.outcome import FinishedBatch, ModelIdentity, Processed, account
from overpaint.planning import ImagePlan, Plan, effective_settings
from overpaint.planning import plan as make_plan
from overpaint.preview import PreviewMap, fit_preview, preview_picture
from overpaint.request import Img2ImgRequest
from overpaint.sampling import BatchTensors, Streams, final_latents, start_runs
from overpaint.settings import Settings
from overpaint.styles import load_styles


@dataclass(frozen=True)
class Sampled:
    """The latents of one batch, and what sampling adds to the infotext."""

    latents: Tensor  # (batch, 4, h/8, w/8)
    complete: bool
    notes: Mapping[str, object]


class Engine:
    """A loaded model. Use it as a context manager, or call `close`."""

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
        settings: Settings | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self._device, self._dtype = choose_device(device), dtype
        self._text_cache = TextCache()
        self._tables_in_force = self.settings  # SIG-11: what the job before left in the model
        self._preview: PreviewMap | None = None
        self._running = 0  # stories begun and not ended; they may take turns, with one checkpoint
        self._own = find_checkpoint(checkpoint, self.settings)
        self._loaded: LoadedModel | None = None
        self._vae_path: Path | None = None
        self._load(self._own, self.settings, progress)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the weights and everything remembered."""
        self._text_cache.clear()
        self._loaded = self._preview = None

    @property
    def loaded(self) -> LoadedModel:
        """The model in place."""
        if self._loaded is None:
            raise OverpaintError("this engine is closed; make a new one")
        return self._loaded

    @property
    def spec(self) -> ModelSpec:
        return self.loaded.spec

    @property
    def model(self) -> ModelIdentity:
        vae = self.loaded.vae
        vae_hash = vae.sha256[:10] if vae is not None and vae.sha256 else None
        return ModelIdentity(self.loaded.name, self.loaded.shorthash or "", vae.name if vae else None, vae_hash)

    @property
    def backend(self) -> TorchBackend:
        """The networks."""
        return self.loaded.backend

    # -- the story -----------------------------------------------------------------------------------------------

    def paint(self, request: Img2ImgRequest, settings: Settings | None = None) -> Processed:
        """Run a request to its end."""
        *_, last = self.run(request, settings)
        assert isinstance(last, Finished)  # nobody holds the control that could stop it
        return last.result

    def run(
        self, request: Img2ImgRequest, settings: Settings | None = None, control: Control | None = None
    ) -> Iterator[Event]:
        """Tell the story as events; the last one is `Finished` or `Cancelled`."""
        control = control or Control()
        plan = self.plan(request, settings)
        yield Started(len(plan.images), _steps(plan), plan.warnings)
        done: list[FinishedBatch] = []
        self._running += 1
        try:
            yield from self._batches(plan, control, done)
        except (OverpaintError, RuntimeError, MemoryError) as error:
            told = explained(error)
            told.result = account(plan, self.model, done) if done else None
            raise told from error.__cause__ if told is error else error
        finally:
            self._running -= 1
        if control.message is Stop.CANCEL and len(done) < len(plan.batches):
            yield Cancelled(account(plan, self.model, done) if done else None)
        else:
            yield Finished(account(plan, self.model, done))

    def _batches(self, plan: Plan, control: Control, done: list[FinishedBatch]) -> Iterator[Event]:
        """Batch after batch into `done`, until all are made or somebody stops it."""
        prepared = None if plan.unchanged else self.prepare(plan)
        for number, batch in enumerate(plan.batches):
            control.take_skip()  # one that came between two batches was meant for neither (INT-3)
            if control.message in (Stop.CANCEL, Stop.FINISH_EARLY, Stop.AFTER_BATCH):
                return
            if prepared is None:
                done.append(FinishedBatch(batch, tuple(unchanged(plan, i) for i in range(len(batch)))))
                continue
            sampled = yield from self.sample(plan, prepared, batch, control=control, number=number)
            if sampled is None:
                return
            done.append(self.finish(plan, prepared, batch, sampled))

    # -- its stages, which the contract's door calls one by one --------------------------------------------------

    def plan(self, request: Img2ImgRequest, settings: Settings | None = None) -> Plan:
        """1. Decide everything. Nothing is loaded and nothing changes."""
        settings = settings or self.settings
        styles = load_styles(settings.styles_file) if settings.styles_file else ()
        wanted = self._wanted(request, effective_settings(request, settings))
        spec = self.spec if wanted == self.loaded.file.path else recognise(wanted)
        return make_plan(request, settings, spec, styles=styles, tables_in_force=self._tables_in_force)

    @torch.no_grad()
    def prepare(self, plan: Plan) -> Prepared:
        """2. Have the job's model in place, and encode the sources."""
        self._use(plan)
        self._tables_in_force = plan.settings
        return prepare(plan, self._networks(plan))

    def conditioner(self, plan: Plan) -> Conditioner:
        """3. Texts."""
        return Conditioner(self.spec, self.backend, plan, self._text_cache)

    @torch.no_grad()
    def texts(self, plan: Plan, batch: Sequence[ImagePlan]) -> tuple[ImageCond, ...]:
        """What each picture of a batch is guided by."""
        return self.conditioner(plan).images(batch)

    @torch.no_grad()
    def tensors(
        self, plan: Plan, prepared: Prepared, batch: Sequence[ImagePlan], texts: tuple[ImageCond, ...]
    ) -> BatchTensors:
        """Everything one batch starts from."""
        image = prepared.image_conditioning
        return BatchTensors(
            init=batch_latents(plan, prepared, batch),
            nmask=prepared.nmask,
            image_conditioning=None if image is None else image[: len(batch)],
            texts=texts,
            empty_text=self.conditioner(plan).empty() if plan.settings.pad_cond_uncond else None,
        )

    def sample(
        self,
        plan: Plan,
        prepared: Prepared,
        batch: Sequence[ImagePlan],
        *,
        control: Control,
        number: int = 0,
    ) -> Generator[Event, None, Sampled | None]:
        """3 to 5 for a batch of the plan, with its own seeds."""
        tensors = self.tensors(plan, prepared, batch, self.texts(plan, batch))
        streams = Streams(
            tuple(each.seed for each in batch),
            tuple(each.subseed for each in batch),
            plan.request.variation_strength,
        )
        sampled = yield from self.sample_tensors(plan, tensors, streams, control=control, number=number)
        if sampled is None:
            return None
        notes = {**self.conditioner(plan).notes(batch), **sampled.notes}
        return Sampled(sampled.latents, sampled.complete, notes)

    @torch.no_grad()
    def sample_tensors(
        self, plan: Plan, tensors: BatchTensors, streams: Streams, *, control: Control, number: int = 0
    ) -> Generator[Event, None, Sampled | None]:
        """4 and 5. Start the samplers and answer their questions; None when cancelled."""
        runs = start_runs(plan, tensors, streams)
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
            batched = plan.settings.batch_cond_uncond
            tick(runs, self._networks(plan).unet, share=not plan.request.exact, batched=batched)
            yield from self._progress(plan, runs, number)
        latents = final_latents(plan, tensors, runs)
        if bool(torch.isnan(latents).any()):
            remedy = "use dtype='float32', a lower cfg_scale or another sampler"
            raise SamplingError(f"sampler={plan.sampler.spec.name!r}: the network produced NaN; {remedy}")
        notes = {name: value for run in runs for name, value in run.notes.items()}
        return Sampled(latents, complete, {**plan.sampling_notes, **notes})

    @torch.no_grad()
    def finish(self, plan: Plan, prepared: Prepared, batch: Sequence[ImagePlan], sampled: Sampled) -> FinishedBatch:
        """6. Decode each latent alone and composite it over its source."""
        pictures: list[FinishedPicture] = []
        init = batch_latents(plan, prepared, batch)
        for i, pixels in enumerate(decode(plan, self._networks(plan), sampled.latents)):
            soft = None
            if plan.request.soft_inpainting is not None and prepared.nmask is not None:
                arrays = (sampled.latents[i], init[i], prepared.nmask)
                soft = SoftLatents(*(each.float().cpu().numpy() for each in arrays))
            pictures.append(finish(plan, i, pixels, soft))
        return FinishedBatch(tuple(batch), tuple(pictures), sampled.notes, sampled.complete)

    def _wanted(self, request: Img2ImgRequest, settings: Settings) -> Path:
        """The checkpoint a job names, else this engine's own. The reference drops a name it does not know (JOB-1)."""
        name = request.checkpoint or request.overrides.get("sd_model_checkpoint")
        if name is None:
            return self._own
        if str(name) in self.loaded.file.aliases():
            return self.loaded.file.path
        try:
            return find_checkpoint(name, settings)
        except CheckpointError:
            if settings.quirks.unknown_names_fall_back:
                return self._own
            raise

    def _use(self, plan: Plan) -> None:
        """Have the checkpoint and the VAE of a job in place."""
        path = self._wanted(plan.request, plan.settings)
        vae = find_vae(path, plan.settings)
        changes = path != self.loaded.file.path or vae.path != self._vae_path
        if changes and self._running > 1:
            remedy = "finish it first, or give this one an engine of its own"
            raise OverpaintError(f"checkpoint={path.name!r}: another job runs on {self.loaded.name!r}; {remedy}")
        if path != self.loaded.file.path:
            self._load(path, plan.settings)
        elif vae.path != self._vae_path:
            self._loaded, self._vae_path = load_vae_into(self.loaded, vae.path), vae.path

    def _load(self, path: Path, settings: Settings, progress: Callable[[int, int], None] | None = None) -> None:
        vae = find_vae(path, settings).path
        self._loaded = load_checkpoint(
            path,
            device=self._device,
            dtype=self._dtype,
            vae_path=vae,
            folders=model_folders(settings),
            progress=progress,
        )
        self._vae_path = vae
        self._text_cache.clear()
        self._preview = None

    def _networks(self, plan: Plan) -> TorchBackend:
        """The networks as this job wants them; jobs of one engine may take turns between ticks."""
        self.backend.set_tiling(plan.settings.tiling)
        return self.backend

    def _progress(self, plan: Plan, runs: Sequence[Run], number: int) -> Iterator[Event]:
        step = min(run.step for run in runs)
        sigma = next((run.query.sigma for run in runs if run.query is not None), 0.0)
        done = number * plan.sampler.evaluations + step
        yield Progress(done, _steps(plan), sigma, number)
        every = plan.settings.show_progress_every_n_steps
        if plan.settings.live_previews_enable and every > 0 and step and step % every == 0:
            if self._preview is None:
                self._preview = fit_preview(self.backend, self.spec.scale_factor)
            yield Preview(done, preview_picture(self._preview, runs[0].preview()[0]))


def explained(error: Exception) -> OverpaintError:
    """A failure of torch as one of ours, if it is about memory; anything else is not for us to explain."""
    if isinstance(error, OverpaintError):
        return error
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
        return SamplingError(f"memory: there is not enough of it ({error}); ask for a smaller size or batch")
    raise error


def _steps(plan: Plan) -> int:
    """Sampler iterations of the whole job; what progress counts to."""
    return 0 if plan.unchanged else plan.sampler.evaluations * len(plan.batches)
