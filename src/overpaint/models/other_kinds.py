"""What a model file that is no checkpoint is, by its header: one reader for each kind, tried in turn."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from overpaint.errors import CheckpointError
from overpaint.models.transformer_shapes import all_text_parts, text_title, transformer_part

Shapes = Mapping[str, tuple[int, ...]]
Account = dict[str, Any]

_DOWN = re.compile(r"([._]lora(_A|_down|_linear_layer\.down|\.down)|_lora\.down)(\.default)?\.weight$")
# LORA-4: what the keys of a layer end in; a file of several kinds is called by the first.
_LORA_MARKS = (
    ("LoHa", re.compile(r"\.hada_w1_[ab]$")),
    ("LoKr", re.compile(r"\.lokr_w1(_[ab])?$")),
    ("GLoRA", re.compile(r"\.[ab]1\.weight$")),
    ("OFT", re.compile(r"\.oft_(blocks|diag)$")),
    ("LoRA", _DOWN),
    ("IA3", re.compile(r"\.on_input$")),
    ("whole differences", re.compile(r"\.diff$")),
    ("norms", re.compile(r"\.w_norm$")),
)
_OF_LORA = re.compile(r"^(lora_|oft_)(unet|te\d?)_|\.lora_|\.lora\.|_lora\.|^bundle_emb\.")
_READS_TEXT = re.compile(r"attn2[._]to_k[._]")
_TEXT_WIDTHS = {768: "SD 1.x", 1024: "SD 2.x", 1280: "the SDXL refiner", 2048: "SDXL"}
_OF_CHECKPOINTS = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.", "unet.")
_BLOCKS = ((re.compile(r"double_blocks|single_(transformer_)?blocks"), "Flux.1"), (re.compile(r"joint_blocks"), "SD 3"))
_TITLES = {"modelspec.title": "title", "ss_output_name": "trained as", "ss_base_model_version": "base model"}


def account_of_other(path: Path, shapes: Shapes, metadata: Mapping[str, str]) -> Account | None:
    """The account of the first kind that knows the file; None where none does."""
    for read in (_control, _lora, _vae, _taesd, _text_encoder, _embedding):
        if (account := read(path, shapes, metadata)) is not None:
            return account
    return None


def account_of_pickle(path: Path) -> Account | None:
    """Of files that are no plain table of tensors: they are read whole."""
    with suppress(CheckpointError):
        return _hypernet(path)
    with suppress(CheckpointError):
        return _pickled_embedding(path)
    return None


def account_of_upscaler(path: Path) -> Account | None:
    """An upscaler is known by whether its network can be built."""
    from overpaint.models.upscaler_files import load_upscaler

    try:
        loaded = load_upscaler(path)
    except CheckpointError:
        return None
    architecture = type(loaded.network).__name__
    return {"kind": "upscaler", "architecture": architecture, "scale": loaded.scale}


def _control(path: Path, shapes: Shapes, metadata: Mapping[str, str]) -> Account | None:
    if not any("zero_convs." in key or key.startswith(("controlnet_", "control_model.")) for key in shapes):
        return None
    from overpaint.models.control_spec import detect_control

    try:
        spec = detect_control(shapes, metadata)
    except CheckpointError as error:
        return {"kind": "controlnet", "problems": [f"{path.name}: {error}"]}
    return {"kind": "controlnet", "made_for": spec.family}


def _lora(path: Path, shapes: Shapes, metadata: Mapping[str, str]) -> Account | None:
    if not any(_OF_LORA.search(key) for key in shapes):
        return None
    from overpaint.models.hashes import network_hash

    layers = dict(_layers(shapes))
    kinds = sorted(set(layers.values()), key=[name for name, _ in _LORA_MARKS].index)
    account: Account = {"kind": "lora", "kinds": kinds, "layers": len(layers)}
    account["dora"] = any(key.endswith(".dora_scale") for key in shapes)
    account["ranks"] = sorted(set(_ranks(shapes)))
    account["made_for"] = _family_of_lora(shapes)
    account["embeddings"] = sorted({key.split(".")[1] for key in shapes if key.startswith("bundle_emb.")})
    account |= {name: str(metadata[key]) for key, name in _TITLES.items() if metadata.get(key)}
    return {**account, "hash": network_hash(path)}


def _layers(shapes: Shapes) -> Iterator[tuple[str, str]]:
    """Layer -> kind."""
    for kind, mark in reversed(_LORA_MARKS):
        for key in shapes:
            if found := mark.search(key):
                yield key[: found.start()], kind


def _ranks(shapes: Shapes) -> Iterator[int]:
    for key, shape in shapes.items():
        if len(shape) > 1 and (_DOWN.search(key) or key.endswith(".hada_w1_b")):
            yield shape[0]


def _family_of_lora(shapes: Shapes) -> str | None:
    """By its blocks, or by how wide the texts are that its layers read; nothing where it has no such layer."""
    blocks = (title for mark, title in _BLOCKS if any(mark.search(key) for key in shapes))
    if (found := next(blocks, None)) is not None:
        return found
    reading = (shape for key, shape in shapes.items() if _READS_TEXT.search(key) and _DOWN.search(key))
    widths = (shape[1] for shape in reading if len(shape) > 1)
    return _TEXT_WIDTHS.get(next(widths, 0))


def _vae(path: Path, shapes: Shapes, metadata: Mapping[str, str]) -> Account | None:
    first = shapes.get("encoder.conv_out.weight")
    if "decoder.conv_in.weight" not in shapes or first is None:
        return None
    layout = "diffusers" if any(key.startswith("decoder.up_blocks.") for key in shapes) else "original"
    return {"kind": "vae", "latent_channels": first[0] // 2, "layout": layout}


def _taesd(path: Path, shapes: Shapes, metadata: Mapping[str, str]) -> Account | None:
    """Its keys are numbers; what it is made for, only its name says."""
    if not path.stem.startswith("taesd") or not any(re.search(r"(^|\.)\d+\.conv\.0\.weight$", key) for key in shapes):
        return None
    made_for = "SDXL" if path.stem.startswith("taesdxl") else "SD 1.x and 2.x"
    return {"kind": "taesd", "made_for": made_for}


def _text_encoder(path: Path, shapes: Shapes, metadata: Mapping[str, str]) -> Account | None:
    """One in a file of its own."""
    if transformer_part(shapes) is not None or any(key.startswith(_OF_CHECKPOINTS) for key in shapes):
        return None
    found = next(all_text_parts(shapes), None)
    return None if found is None else {"kind": "text_encoder", "encoder": text_title(*found)}


def _embedding(path: Path, shapes: Shapes, metadata: Mapping[str, str]) -> Account | None:
    blocks = {key: shape for key, shape in shapes.items() if key in ("emb_params", "clip_l", "clip_g")}
    if len(blocks) != len(shapes) and not (len(shapes) == 1 and path.suffix in (".pt", ".bin")):
        return None
    return _told_embedding(dict(blocks or shapes)) if shapes else None


def _told_embedding(blocks: Mapping[str, tuple[int, ...]]) -> Account:
    vectors = {shape[0] if len(shape) > 1 else 1 for shape in blocks.values()}
    widths = sorted(shape[-1] for shape in blocks.values() if shape)
    made_for = {(768,): "SD 1.x", (1024,): "SD 2.x", (768, 1280): "SDXL", (1280,): "the SDXL refiner"}
    return {
        "kind": "embedding",
        "vectors": max(vectors),
        "widths": widths,
        "made_for": made_for.get(tuple(widths)),
    }


def _pickled_embedding(path: Path) -> Account | None:
    from overpaint.adapters.embedding_files import read_embedding

    data = read_embedding(path)
    if data is None:
        return None
    return _told_embedding({name: tuple(block.shape) for name, block in data.blocks.items()})


def _hypernet(path: Path) -> Account:
    from overpaint.adapters.hypernet import read_hypernet

    widths = sorted(read_hypernet(path).networks)
    return {"kind": "hypernet", "widths": widths}
