"""The adapters of one model: LoRAs in its weights, hypernetworks in its attention, and the files they came from.

To ask for adapters that are in place already costs nothing. So they are asked for before every network call, and jobs
that take turns on one model never see each other's adapters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from overpaint.adapters.embedding_files import EmbeddingData, bundled_embeddings
from overpaint.adapters.hypernet import Hypernet, read_hypernet
from overpaint.adapters.lora import LoraFile, read_lora
from overpaint.adapters.wanted import HypernetUse, LoraUse
from overpaint.adapters.wear import WornLora
from overpaint.backends.port import Backend
from overpaint.backends.torch_backend import SharedAutoencoder
from overpaint.errors import CheckpointError
from overpaint.models.catalog import ModelFile
from overpaint.models.checkpoint import LoadedModel
from overpaint.models.hashes import Stamp, stamp_of
from overpaint.painting.preview import PreviewMap
from overpaint.planning.plans import NetworkPlan
from overpaint.settings import Quirks, Settings

FILES_KEPT = 8  # parsed files of the latest jobs, of each kind
_File = TypeVar("_File")


@dataclass(frozen=True)
class Adapters:
    """The adapters that a backend is asked to have in its networks."""

    loras: tuple[WornLora, ...] = ()
    hypernets: tuple[tuple[Hypernet, float], ...] = ()
    quirks: Quirks = field(default_factory=Quirks)
    functional: bool = False

    @property
    def key(self) -> Hashable:
        """Equal keys mean equal networks. Without adapters, how they are applied does not matter."""
        return self if self.loras or self.hypernets else None

    def put_on(self, backend: Backend) -> tuple[int, ...]:
        """Have exactly these. Returns for each LoRA how many layers it does not fit. Reads no file."""
        return backend.wear(self.loras, self.hypernets, self.quirks, functional=self.functional)


@dataclass(frozen=True)
class AdaptersInPlace:
    """The adapters that a model has now, and the comments and warnings about them."""

    loras: tuple[tuple[str, LoraFile], ...] = ()  # by the names that asked for them
    misfits: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # name -> layers left out
    adapters: Adapters = field(default_factory=Adapters)

    @property
    def hashes(self) -> dict[str, str]:
        """Name -> hash, as the infotext has them (LORA-10)."""
        return {name.replace(":", "").replace(",", ""): file.hash12 for name, file in self.loras}

    def comments(self) -> tuple[str, ...]:
        """LORA-6: what the reference says of layers that do not fit."""
        names = ", ".join(f"{name} ({count})" for name, count in self.misfits.items() if count)
        return (f"Networks with errors: {names}",) if names else ()

    def warnings(self) -> tuple[str, ...]:
        """Parts of a file that are for nothing in this model."""
        return tuple(
            f"lora {name}: {len(file.unmatched)} of its keys name no layer of this model, such as {file.unmatched[0]}"
            for name, file in self.loras
            if file.unmatched
        )

    def embeddings(self, settings: Settings) -> tuple[EmbeddingData, ...]:
        """LORA-9: the embeddings that the files bring."""
        shown = settings.lora_bundled_ti_to_infotext
        return tuple(
            each
            for name, file in self.loras
            if file.embeddings
            for each in bundled_embeddings(name if shown else "", file.embeddings)
        )


class ModelAdapters:
    """The adapters of one model in memory, the files they came from, and its previews."""

    def __init__(self, model: LoadedModel) -> None:
        self.previews: WeakKeyDictionary[SharedAutoencoder, PreviewMap] = (
            WeakKeyDictionary()
        )  # of each VAE that it was used with
        self._spec = model.spec
        self._loras: _Files[LoraFile] = _Files()
        self._hypernets: _Files[Hypernet] = _Files()

    def wear(
        self, backend: Backend, networks: Sequence[NetworkPlan], settings: Settings, *, forgiving: bool = False
    ) -> AdaptersInPlace:
        """Have exactly these. With `forgiving`, for a model such as a refiner, what does not fit is left out.

        NOTE: the backend is not kept, because it holds one of the autoencoders that the model is used with.
        """
        quirks = settings.quirks
        if networks and not backend.abilities.adapters:
            name = networks[0].use.name
            remedy = f"models on {backend.device} take no adapters; leave it out, or choose another device"
            raise CheckpointError(f"{name}: {remedy}")
        if forgiving:
            quirks = replace(quirks, ill_fitting_networks_pass=True)
        found = [(each.use, self._lora(each.file, quirks)) for each in networks if isinstance(each.use, LoraUse)]
        loras = [(use, file) for use, file in found if file is not None]
        worn = tuple(WornLora(file, use.unet, use.te, use.dyn) for use, file in loras)
        hypernets = tuple(
            (self._hypernets.get(each.file.path, read_hypernet), each.use.multiplier)
            for each in networks
            if isinstance(each.use, HypernetUse)
        )
        adapters = Adapters(worn, hypernets, quirks, settings.lora_functional)
        counts = adapters.put_on(backend)
        return AdaptersInPlace(
            tuple((use.name, file) for use, file in loras),
            {use.name: count for (use, _), count in zip(loras, counts, strict=True)},
            adapters,
        )

    def _lora(self, file: ModelFile, quirks: Quirks) -> LoraFile | None:
        """LORA-4: a file that cannot be read is an error. The reference goes on without it and says nothing."""
        try:
            passing = quirks.ill_fitting_networks_pass  # what may fit nothing then has to fit where it may not
            return self._loras.get(file.path, lambda path: read_lora(file, self._spec, quirks), passing)
        except CheckpointError:
            if quirks.ill_fitting_networks_pass:
                return None
            raise


class _Files(Generic[_File]):
    """Files as they were read, until they change on disk."""

    def __init__(self) -> None:
        self._read: OrderedDict[tuple[Path, Stamp, Hashable], _File] = OrderedDict()

    def get(self, path: Path, read: Callable[[Path], _File], manner: Hashable = None) -> _File:
        """The file, read once. Files that are read in different ways have a different `manner`."""
        key = (path, stamp_of(path), manner)
        if key not in self._read:
            self._read[key] = read(path)
        self._read.move_to_end(key)
        while len(self._read) > FILES_KEPT:
            self._read.popitem(last=False)
        return self._read[key]
