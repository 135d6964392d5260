"""What an engine works with: models and all that a job may name beside them, looked up, loaded and kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from PIL import Image
from torch import Tensor, nn

from overpaint.adapters.control import ControlPicture
from overpaint.adapters.embeddings import EmbeddingShelf
from overpaint.adapters.wear import adapted
from overpaint.backends.port import Backend
from overpaint.errors import CheckpointError
from overpaint.models.built_in import words_of
from overpaint.models.catalog import HYPERNETWORK, LORA, files_of, find_controlnet
from overpaint.models.checkpoint import LoadedModel
from overpaint.models.control_files import LoadedControl, load_controlnet
from overpaint.models.control_spec import check_fits
from overpaint.models.families import LatentSpec, ModelSpec
from overpaint.models.find import find_checkpoint, find_refiner, find_vae, model_folders
from overpaint.models.hashes import CheckpointFile, Stamp, checkpoint_file, sha256_of, stamp_of, user_hash_cache
from overpaint.models.memory import GIB
from overpaint.models.residents import Resident, Residents
from overpaint.models.taesd_files import Half, Taesd, find_taesd, load_taesd
from overpaint.models.upscaler_names import list_upscalers, upscaler_files
from overpaint.outcome import ModelIdentity
from overpaint.painting.conditioning import Conditioner
from overpaint.painting.encodings import (
    EncodingsCount,
    KeptEncodings,
    RememberingTexts,
    remembering_backend,
    remembering_taesd,
    remembering_upscaler,
)
from overpaint.painting.latents import Codec, decode
from overpaint.painting.preview import fit_preview, preview_picture
from overpaint.painting.upscaling import known_upscalers
from overpaint.painting.worn_adapters import AdaptersInPlace, ModelAdapters
from overpaint.pixels.resize import UPSCALERS, Upscaler
from overpaint.planning.hires import LATENT_UPSCALES
from overpaint.planning.images import names_networks
from overpaint.planning.plans import ImagePlan, OtherModel, Plan, Surroundings
from overpaint.request import PaintRequest, Picture
from overpaint.settings import Settings
from overpaint.text.styles import load_styles

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ReadyModel:
    """A plan's model with the adapters of one batch in place."""

    model: LoadedModel
    conditioner: Conditioner
    worn: AdaptersInPlace
    tiling: bool = False

    @property
    def backend(self) -> Backend:
        return self.model.backend

    @property
    def key(self) -> Hashable:
        """Jobs may share a call of the denoiser where this is equal."""
        return self.backend.networks.denoiser, self.worn.adapters.key, self.tiling

    def put_in_place(self) -> None:
        """Have the model as it was made ready, after other jobs used it."""
        self.backend.set_tiling(self.tiling)
        self.worn.adapters.put_on(self.backend)

    def notes(self, batch: Sequence[ImagePlan]) -> dict[str, object]:
        """Infotext fields of what the texts go through: LoRAs (LORA-10), editing, embeddings, emphasis."""
        notes: dict[str, object] = {}
        if self.worn.hashes and self.conditioner.settings.lora_add_hashes_to_infotext:
            notes["Lora hashes"] = ", ".join(f"{name}: {value}" for name, value in self.worn.hashes.items())
        return {**notes, **self.conditioner.plan.text_notes, **self.conditioner.notes(batch)}

    def warnings(self, batch: Sequence[ImagePlan]) -> tuple[str, ...]:
        return (
            *self.backend.remarks,
            *self._slower(),
            *self.worn.warnings(),
            *self.conditioner.warnings(batch),
        )

    def _slower(self) -> tuple[str, ...]:
        if self.backend.abilities.shortcuts or not self.conditioner.plan.shortcuts.any:
            return ()
        names = "token_merging_ratio, deepcache_interval"
        return (f"{names}: this backend makes whole steps only, so torch computed them; choose the backend torch",)


@dataclass(frozen=True)
class _Made:
    plan: Plan
    batch: Sequence[ImagePlan]
    forgiving: bool
    ready: ReadyModel

    def is_for(self, plan: Plan, batch: Sequence[ImagePlan], forgiving: bool) -> bool:
        return self.plan is plan and self.batch is batch and self.forgiving == forgiving


class ModelCache:
    """Models in memory and everything read from a site's folders. One thread owns it."""

    def __init__(self, device: str, dtype: str, default: Path, backend: str = "auto") -> None:
        self.device = device
        self._default = default
        self._residents = Residents(device, dtype, backend=backend, is_bare=lambda each: adapted(each).is_bare)
        # By what all VAEs that a checkpoint is used with leave the same; as long as it is in memory.
        self._adapters: WeakKeyDictionary[nn.Module, ModelAdapters] = WeakKeyDictionary()
        self.encodings = KeptEncodings()
        self._counts: dict[int, EncodingsCount] = {}  # of each pass, of the plans that are running
        self._running: dict[int, ExitStack] = {}
        self._held: dict[tuple[int, Path], Resident] = {}
        self._embeddings = EmbeddingShelf()
        self._controls: dict[Hashable, LoadedControl] = {}
        self._taesd: dict[tuple[Path | None, Stamp, LatentSpec, Half], Taesd] = {}
        self._upscalers: tuple[object, Mapping[str, Upscaler]] | None = None
        self._last: _Made | None = None  # what was made ready last, and so still is
        self._made: dict[tuple[int, bool], _Made] = {}  # the latest of each pass, of the plans that are running

    def close(self) -> None:
        self._residents.clear()
        self._controls.clear()
        self._taesd.clear()
        self._made.clear()
        self.encodings.clear()
        self._upscalers = self._last = None

    def paths(self) -> tuple[Path, ...]:
        """The files of models in memory."""
        return self._residents.paths()

    # -- before a plan -------------------------------------------------------------------------------------------

    def model_for(self, request: PaintRequest, settings: Settings) -> Path:
        """The checkpoint a job names, else the engine's own. The reference drops a name it does not know (JOB-1)."""
        name = request.checkpoint or request.overrides.get("sd_model_checkpoint")
        if name is None or str(name) in checkpoint_file(self._default, model_folders(settings)).aliases():
            return self._default
        try:
            return find_checkpoint(str(name), settings)
        except CheckpointError:
            if settings.quirks.unknown_names_fall_back:
                return self._default
            raise

    def spec_of(self, path: Path, settings: Settings) -> ModelSpec:
        """What a checkpoint is. Most say so in their headers; one that has to be asked is loaded."""
        spec = self._residents.recognise(path, settings)
        needs_probe = spec.family == "sd2" and spec.facts.get("prediction") == "family default"
        return self.have(path, settings).model.spec if needs_probe else spec

    def surroundings(
        self, request: PaintRequest, settings: Settings, checkpoint: Path, tables_in_force: Settings
    ) -> Surroundings:
        """What a request may name, as far as it names any."""
        hires = request.hires
        wants_networks = names_networks(request, settings)
        wants_upscaler = {settings.upscaler_for_img2img, hires.upscaler if hires else None}
        wants_upscaler -= {None, *UPSCALERS, *LATENT_UPSCALES}
        return Surroundings(
            styles=load_styles(settings.styles_file) if request.styles and settings.styles_file else (),
            loras=files_of(settings.lora_dir, LORA) if wants_networks else (),
            hypernets=files_of(settings.hypernetwork_dir, HYPERNETWORK) if wants_networks else (),
            upscalers=self.upscalers(settings) if wants_upscaler else {},
            refiner=self._other("refiner", request.refiner, settings) if request.refiner else None,
            hires_model=self._other("hires.checkpoint", hires.checkpoint, settings)
            if hires and hires.checkpoint
            else None,
            checkpoint=checkpoint,
            words=words_of(checkpoint),
            tables_in_force=tables_in_force,
        )

    def upscalers(self, settings: Settings) -> Mapping[str, Upscaler]:
        """The upscalers of this site; their networks are loaded when they are first used."""
        files = tuple((each.name, each.path, stamp_of(each.path)) for each in list_upscalers(settings) if each.path)
        key = (files, settings.ESRGAN_tile, settings.ESRGAN_tile_overlap)
        if self._upscalers is None or self._upscalers[0] != key:
            known, tiles = known_upscalers(settings, self.device), key[1:]
            remembering = self._remembering(settings), EncodingsCount()  # a plan is made before its job is counted
            named = {name: (path, stamp_of(path), *tiles) for name, path in upscaler_files(settings).items()}
            self._upscalers = (
                key,
                {name: remembering_upscaler(file, known[name], *remembering) for name, file in named.items()},
            )
        self._remembering(settings)
        return self._upscalers[1]

    def _other(self, argument: str, name: str, settings: Settings) -> OtherModel:
        path = find_refiner(name, settings, argument=argument)
        return OtherModel(path, _file(path, settings).short_title, self.spec_of(path, settings))

    # -- for a plan ----------------------------------------------------------------------------------------------

    def have(self, path: Path, settings: Settings, progress: Progress | None = None) -> Resident:
        """A checkpoint in memory, with the VAE that these options choose for it."""
        return self._residents.have(path, find_vae(path, settings).path, settings, progress)

    def resident(self, plan: Plan) -> Resident:
        """The model of a pass. While the job runs it stays the same one, even if its file changes."""
        path = plan.checkpoint or self._default
        key = (id(plan.images), path)
        if key in self._held:
            return self._held[key]
        resident = self.have(path, plan.settings)
        running = self._running.get(id(plan.images))
        if running is not None:
            running.enter_context(resident.held())
            self._held[key] = resident
        return resident

    @contextmanager
    def holding(self, plan: Plan) -> Iterator[None]:
        """Keep the models that this plan uses in memory while it runs. Calls may be nested."""
        passes = {id(each.images) for each in (plan, plan.hires.plan if plan.hires else plan)} - self._running.keys()
        with ExitStack() as held:
            self._running.update(dict.fromkeys(passes, held))
            self._counts.update(dict.fromkeys(passes, EncodingsCount()))
            try:
                yield
            finally:
                for each in passes:
                    self._running.pop(each, None)
                    self._counts.pop(each, None)
                self._held = {key: kept for key, kept in self._held.items() if key[0] not in passes}
                self._made = {key: made for key, made in self._made.items() if id(made.plan.images) not in passes}
                self._last = None  # between jobs a file may change

    def ready(self, plan: Plan, batch: Sequence[ImagePlan], *, forgiving: bool = False) -> ReadyModel:
        """Have the plan's model in place with the adapters of this batch. If it is in place already, nothing happens.

        While a job runs no file is looked at twice: a batch ends with the files that it began with.
        """
        if self._last is not None and self._last.is_for(plan, batch, forgiving):
            return self._last.ready
        self._last = None  # if this fails half-way, nothing is in place
        made = self._made.get((id(plan), forgiving))
        if made is not None and made.is_for(plan, batch, forgiving):
            made.ready.put_in_place()
        else:
            made = _Made(plan, batch, forgiving, self._make_ready(plan, batch, forgiving=forgiving))
            if id(plan.images) in self._running:
                self._made[id(plan), forgiving] = made
        self._last = made
        return made.ready

    def _make_ready(self, plan: Plan, batch: Sequence[ImagePlan], *, forgiving: bool) -> ReadyModel:
        resident = self.resident(plan)
        model, adapters, settings = resident.model, self._adapters_of(resident.model), plan.settings
        model.backend.set_tiling(settings.tiling)
        worn = adapters.wear(model.backend, batch[0].networks if batch else (), settings, forgiving=forgiving)
        table = self._embeddings.table(settings.embeddings_dir, plan.spec)
        bundled = worn.embeddings(settings)
        if bundled:
            table = table.with_bundled(bundled)
        texts = RememberingTexts(model.backend, self._remembering(settings), self.count(plan))
        conditioner = Conditioner(plan.spec, texts, plan, table)
        return ReadyModel(model, conditioner, worn, bool(settings.tiling))

    def _adapters_of(self, model: LoadedModel) -> ModelAdapters:
        denoiser = model.backend.networks.denoiser
        if denoiser not in self._adapters:
            self._adapters[denoiser] = ModelAdapters(model)
        return self._adapters[denoiser]

    def encoder(self, plan: Plan) -> Codec:
        """What turns pictures into latents, none of them twice."""
        tiling, remembering = bool(plan.settings.tiling), (self._remembering(plan.settings), self.count(plan))
        if plan.settings.sd_vae_encode_method == "TAESD":
            return remembering_taesd(self._small(plan, "encoder"), *remembering, tiling)
        return remembering_backend(self._full(plan), *remembering, tiling)

    def decoder(self, plan: Plan) -> Codec:
        """What turns latents into pictures."""
        small = plan.settings.sd_vae_decode_method == "TAESD"
        return self._small(plan, "decoder") if small else self._full(plan)

    def preview(self, plan: Plan, latent: Tensor) -> Picture:
        """A look at an unfinished latent (4, h/8, w/8)."""
        if plan.settings.show_progress_type in ("TAESD", "Full"):
            small = plan.settings.show_progress_type == "TAESD"
            decoder = self._small(plan, "decoder") if small else self._full(plan)
            return Image.fromarray(decode(plan, decoder, latent[None])[0])
        resident = self.resident(plan)
        maps, vae = self._adapters_of(resident.model).previews, resident.model.backend.codec
        if vae not in maps:
            maps[vae] = fit_preview(resident.model.backend, plan.spec.latent)
        return preview_picture(maps[vae], latent)

    def count(self, plan: Plan) -> EncodingsCount:
        """What was encoded for a plan that is running, and what was known already."""
        return self._counts.get(id(plan.images)) or EncodingsCount()

    def _remembering(self, settings: Settings) -> KeptEncodings:
        """What is kept, as far as the job that comes now allows it."""
        self.encodings.set_bound(int(settings.encodings_memory * GIB))
        return self.encodings

    def _full(self, plan: Plan) -> Backend:
        """The model's own. NOTE: a refiner's is not made ready, and jobs that share it may have tiled it since."""
        backend = self.resident(plan).model.backend
        backend.codec.set_tiling(plan.settings.tiling)
        return backend

    def _small(self, plan: Plan, half: Half) -> Taesd:
        settings, latent = plan.settings, plan.spec.latent
        spec = plan.spec
        files = find_taesd(
            settings.taesd_dir, is_sdxl=spec.is_sdxl, channels=latent.channels, family=spec.family, halves=(half,)
        )
        path = files.encoder or files.decoder
        key = (path, stamp_of(path) if path else (), latent, half)
        if key not in self._taesd:
            self._taesd = {known: kept for known, kept in self._taesd.items() if known[0] != path or known[3] != half}
            self._taesd[key] = load_taesd(files, latent=latent, device=self.device)
        self._taesd[key].set_tiling(settings.tiling)
        return self._taesd[key]

    def control_pictures(self, plan: Plan) -> tuple[ControlPicture, ...]:
        """The ControlNets of a pass, with the pictures they follow."""
        folder = plan.settings.controlnet_dir
        named = [(i, each, each.model) for i, each in enumerate(plan.controls) if each.model is not None]
        paths = [find_controlnet(model, folder, f"controls[{i}].model") for i, _, model in named]
        # Files that do not say how many heads they have are read as the model's.
        heads = (plan.spec.unet.heads, plan.spec.unet.head_dim) if plan.controls else ()
        keys = [(path, stamp_of(path), heads) for path in paths]
        self._controls = {key: kept for key, kept in self._controls.items() if key in keys}
        made: list[ControlPicture] = []
        for key, path, (i, each, model) in zip(keys, paths, named, strict=True):
            said = f"controls[{i}].model={model!r}"
            if key not in self._controls:
                dtype = self._dtype_of_controls(plan, said)
                self._controls[key] = load_controlnet(path, device=self.device, dtype=dtype, model=plan.spec, said=said)
            loaded = self._controls[key]
            check_fits(loaded.spec, plan.spec, said)
            made.append(
                ControlPicture(
                    loaded,
                    each.hint,
                    each.region,
                    weight=each.weight,
                    start=each.start,
                    end=each.end,
                    tiling=plan.settings.tiling,
                    mode=each.mode,
                )
            )
        return tuple(made)

    def _dtype_of_controls(self, plan: Plan, said: str) -> torch.dtype:
        dtype = self.resident(plan).model.backend.abilities.controls
        if dtype is None:
            remedy = f"models on {self.device} take no ControlNets; leave it out, or choose another device"
            raise CheckpointError(f"{said}: {remedy}")
        return dtype


def identity_of(model: LoadedModel) -> ModelIdentity:
    """How a model is named in infotexts."""
    vae = model.vae
    vae_hash = vae.sha256[:10] if vae is not None and vae.sha256 else None
    return ModelIdentity(model.name, model.shorthash or "", vae.name if vae else None, vae_hash)


def _file(path: Path, settings: Settings) -> CheckpointFile:
    digest = sha256_of(path, user_hash_cache()) if path.is_file() else None
    return checkpoint_file(path, model_folders(settings), digest)
