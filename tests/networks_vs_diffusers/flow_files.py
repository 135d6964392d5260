"""Narrow flow models of diffusers and transformers with random weights, and their files as people have them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import models, pre_tokenizers
from torch import Tensor, nn

from tests.networks_vs_diffusers.original_layout import vae_tensors

ENDS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
WIDTH, WORDS = 32, 24  # of the transformers' heads together, and of what they read


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def with_random_weights(network: nn.Module) -> nn.Module:
    """None of them is zero or one by design, so that none can be left out unnoticed."""
    for name, parameter in network.named_parameters():
        spread = 0.1 if parameter.dim() == 1 else 0.7 / parameter[0].numel() ** 0.5
        noise = torch.randn_like(parameter) * spread
        is_norm = parameter.dim() == 1 and name.endswith("weight")
        parameter.data = noise + 1 if is_norm else noise
    return network.eval().requires_grad_(False)


def small_vae(still: bool = False) -> Any:
    """A codec of 16 shifted channels without convolutions beside the latents, as Flux.1 and Z-Image have it.

    Pipelines draw from its posterior; a `still` one has no width.
    """
    import diffusers

    with seeded(3):
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(32, 32, 32, 32),
            layers_per_block=1,
            latent_channels=16,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        with_random_weights(vae)
    if still:
        vae.encoder.conv_out.weight.data[16:] = 0
        vae.encoder.conv_out.bias.data[16:] = -30
    return vae


def small_vocabulary(path: Path, *marks: str) -> Path:
    """A `tokenizer.json` of Qwen's kind that knows letters, a few merges, and what else is wanted."""
    merges = [("c", "a"), ("ca", "t"), ("Ġ", "a"), ("r", "e"), ("re", "d")]
    entries = [*_LETTERS, *map("".join, merges), *ENDS, *marks]
    made = tokenizers.Tokenizer(models.BPE(vocab={each: i for i, each in enumerate(entries)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens([*ENDS, *marks])
    made.save(str(path))
    return path


def small_qwen3() -> Any:
    import transformers

    config = transformers.Qwen3Config(
        vocab_size=len(_LETTERS) + 8,
        hidden_size=WORDS,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
    )
    with seeded(2):
        return with_random_weights(transformers.Qwen3Model(config))


def small_zimage() -> Any:
    import diffusers

    with seeded(1):
        network = diffusers.ZImageTransformer2DModel(
            dim=WIDTH,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=WORDS,
            axes_dims=[4, 6, 6],
            axes_lens=[256, 64, 64],
        )
        return with_random_weights(network)


def zimage_tensors(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of the published file: queries, keys and values in one."""
    named = {}
    for key, tensor in theirs.items():
        if ".to_k." in key or ".to_v." in key:
            continue
        if ".to_q." in key:
            tensor = torch.cat([theirs[key.replace(".to_q.", f".to_{each}.")] for each in "qkv"])
        for new, old in _ZIMAGE_NAMES:
            key = key.replace(old, new)
        named[key] = tensor.contiguous()
    return named


_ZIMAGE_NAMES = (
    ("final_layer.", "all_final_layer.2-1."),
    ("x_embedder.", "all_x_embedder.2-1."),
    (".out.", ".to_out.0."),
    (".qkv.", ".to_q."),
    (".q_norm.", ".norm_q."),
    (".k_norm.", ".norm_k."),
)


@dataclass(frozen=True)
class ZImageParts:
    """Both sides: their networks, and files in which other programs keep them."""

    transformer: Any
    text: Any
    vae: Any
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "z_image_turbo_bf16.safetensors"

    @property
    def text_path(self) -> Path:
        return self.folder / "qwen_3_small.safetensors"

    @property
    def vae_path(self) -> Path:
        return self.folder / "ae.safetensors"


def zimage_parts(folder: Path, dtype: torch.dtype = torch.float32, *, still: bool = False) -> ZImageParts:
    """Write the three files, and the text encoder's vocabulary beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = ZImageParts(small_zimage(), small_qwen3(), small_vae(still), folder)
    save(zimage_tensors(parts.transformer.state_dict()), parts.path, dtype)
    save({f"model.{key}": each for key, each in parts.text.state_dict().items()}, parts.text_path, dtype)
    save(vae_tensors(parts.vae), parts.vae_path, dtype)
    small_vocabulary(folder / "tokenizer.json")
    return parts


def their_tokenizer(folder: Path) -> Any:
    """The same vocabulary with the talk around a text, as pipelines want it."""
    import transformers

    talk = (
        "{% for each in messages %}<|im_start|>{{ each.role }}\n{{ each.content }}<|im_end|>\n{% endfor %}"
        "{{ '<|im_start|>assistant\n' }}"
    )
    file = str(folder / "tokenizer.json")
    return transformers.PreTrainedTokenizerFast(tokenizer_file=file, pad_token=ENDS[0], chat_template=talk)


def save(tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype = torch.float32, **metadata: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: each.to(dtype).contiguous() for key, each in tensors.items()}, path, metadata or None)


def save_folder(parts: ZImageParts, folder: Path, *, shift: float = 3.0) -> Path:
    """The same as diffusers lays it out."""
    for name, network in (("transformer", parts.transformer), ("text_encoder", parts.text), ("vae", parts.vae)):
        network.save_pretrained(folder / name)
    (folder / "scheduler").mkdir(parents=True)
    said = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": shift, "use_dynamic_shifting": False}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(said), encoding="utf-8")
    (folder / "tokenizer").mkdir()
    small_vocabulary(folder / "tokenizer" / "tokenizer.json")
    index = {"_class_name": "ZImagePipeline", "transformer": ["diffusers", "ZImageTransformer2DModel"]}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
