"""Which VAE goes with a checkpoint, and what a VAE file must hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from overpaint.errors import CheckpointError
from overpaint.models.files import write_safetensors
from overpaint.models.vae_names import VaeChoice, choose_vae, list_vaes
from overpaint.models.vaes import open_vae
from overpaint.settings import Settings

CANDIDATES = {name: Path("vaes") / name for name in ("a.vae.pt", "model.vae.safetensors", "other.safetensors")}


def test_list_of_candidates(tmp_path: Path) -> None:  # VAE-1
    for name in ("models/a.vae.ckpt", "models/sub/b.vae.pt", "models/c.ckpt", "vae/d.pt", "vae/e.txt", "vae/x10.ckpt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list_vaes(Settings(models_dir=str(tmp_path / "models"), vae_dir=str(tmp_path / "vae")))
    assert list(found) == ["a.vae.ckpt", "b.vae.pt", "d.pt", "x10.ckpt"]


@pytest.mark.parametrize(
    ("setting", "first", "wanted"),
    [
        ("Automatic", True, "model.vae.safetensors"),
        ("auto", True, "model.vae.safetensors"),
        ("other.safetensors", True, "other.safetensors"),
        ("None", True, None),
        ("other.safetensors", False, "model.vae.safetensors"),
        ("None", False, "model.vae.safetensors"),
    ],
)
def test_choice(setting: str, first: bool, wanted: str | None) -> None:  # VAE-2
    choice = choose_vae(Path("model.safetensors"), CANDIDATES, setting=setting, setting_first=first)
    assert choice == VaeChoice(CANDIDATES[wanted] if wanted else None)


def test_choice_for_a_checkpoint_that_has_none_of_its_own() -> None:  # VAE-2
    checkpoint = Path("plain.safetensors")
    assert choose_vae(checkpoint, CANDIDATES).path is None
    choice = choose_vae(checkpoint, CANDIDATES, setting="other.safetensors", setting_first=False)
    assert choice.path == CANDIDATES["other.safetensors"]
    unknown = choose_vae(checkpoint, CANDIDATES, setting="gone.pt")
    assert unknown.path is None
    assert "gone.pt" in unknown.message


@pytest.mark.parametrize(
    ("said", "wanted"),
    [({"vae": "a.vae.pt"}, "a.vae.pt"), ({"vae": "None"}, None), ({"vae": "Automatic"}, "model.vae.safetensors")],
)
def test_what_the_user_wrote_about_the_model(said: dict[str, str], wanted: str | None, tmp_path: Path) -> None:  # VAE-2
    (tmp_path / "model.json").write_text(json.dumps(said))
    choice = choose_vae(tmp_path / "model.safetensors", CANDIDATES)
    assert choice.path == (CANDIDATES[wanted] if wanted else None)


def write_vae(path: Path, latent: int = 4, **extra: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Path:
    def zeros(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.zeros(shape, dtype=np.float32)

    tensors = {
        "encoder.conv_in.weight": zeros(32, 3, 3, 3),
        "decoder.conv_in.weight": zeros(64, latent, 3, 3),
        "decoder.up.0.block.0.conv1.weight": zeros(32, 64, 3, 3),
        "decoder.up.1.block.0.conv1.weight": zeros(64, 64, 3, 3),
        "loss.logvar": zeros(1),
        "model_ema.decay": zeros(1),
    }
    write_safetensors(path, {**tensors, **extra}, {})
    return path


def test_training_state_is_dropped(tmp_path: Path) -> None:  # VAE-4
    vae = open_vae(write_vae(tmp_path / "x.safetensors"))
    assert (vae.spec.channels, vae.spec.channel_mult, vae.spec.num_res_blocks) == (32, (1, 2), 0)
    assert len(vae.keys) == 4


def test_vae_of_another_family(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"x\.safetensors: its latents have 16 channels, the model's 4"):
        open_vae(write_vae(tmp_path / "x.safetensors", latent=16))


def test_file_that_is_no_vae(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x.safetensors", {"a": np.zeros(3, dtype=np.float32)}, {})
    with pytest.raises(CheckpointError, match=r"x\.safetensors: .*encoder\.conv_in\.weight"):
        open_vae(tmp_path / "x.safetensors")
