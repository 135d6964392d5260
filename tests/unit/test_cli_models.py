"""`overpaint models` and `overpaint info`: what folders hold, and what a model file is that is no checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from overpaint.cli import main
from overpaint.cli.models import KINDS
from overpaint.models.other_kinds import account_of_other
from overpaint.settings import OPTION_NAMES
from tests.conftest import recorded as recorded_file
from tests.unit.command import Capture, adapter, header_only, painter
from tests.unit.fake_painter import FakePainter

__all__ = ["painter"]


@pytest.fixture(autouse=True)
def here(painter: FakePainter) -> None:
    """An empty folder to stand in."""


@pytest.fixture
def recorded(parity: Path) -> Path:
    """Small networks of every kind."""
    files = parity / "extra" / "files"
    if not files.is_dir():
        pytest.skip("these recordings are not here")
    return files


def told_as_json(capsys: Capture, *line: str, code: int = 0) -> dict[str, Any]:
    assert main([*line, "--json"]) == code
    account: dict[str, Any] = json.loads(capsys.readouterr().out)
    return account


class TestModels:
    def test_every_kind_has_its_option(self) -> None:
        assert {each.option for each in KINDS.values()} < OPTION_NAMES

    @pytest.mark.parametrize("kind", KINDS)
    def test_an_empty_folder(self, capsys: Capture, kind: str) -> None:
        Path("empty").mkdir()
        assert main(["models", "empty", "--kind", kind]) == 0
        assert capsys.readouterr().out == f"no {KINDS[kind].what} in empty\n"

    @pytest.mark.parametrize("kind", sorted(set(KINDS) - {"checkpoint"}))
    def test_without_a_folder(self, capsys: Capture, kind: str) -> None:
        assert main(["models", "--kind", kind]) == 2
        assert f"--set {KINDS[kind].option}=..." in capsys.readouterr().err

    def test_the_configured_folder(self, capsys: Capture) -> None:
        adapter("ink", folder=Path("models/Lora/new"))
        for line in (["--models", "."], ["--set", "lora_dir=models/Lora"], ["models/Lora"]):
            told = told_as_json(capsys, "models", "--kind", "lora", *line)
            assert [each["use_as"] for each in told["models"]] == ["<lora:ink:1>"]

    def test_checkpoints_of_the_configured_folder(self, capsys: Capture) -> None:
        Path("sd").mkdir()
        header_only("tiny-sd15", Path("sd/m.safetensors"))
        adapter("ink", folder=Path("sd"))
        told = told_as_json(capsys, "models", "--models", "sd")
        built_in, *_, ink, model = told["models"]
        assert (built_in["name"], built_in["family"]) == ("overpaint-mini", "Stable Diffusion 1")
        assert (model["name"], model["family"], model["problem"]) == ("m.safetensors", "Stable Diffusion 1", None)
        assert ink["family"] is None
        assert main(["models", "sd"]) == 0
        assert "it looks like a LoRA" in capsys.readouterr().out

    def test_a_folder_of_diffusers_is_a_checkpoint(self, capsys: Capture) -> None:
        Path("sd/mine/unet").mkdir(parents=True)
        Path("sd/mine/model_index.json").write_text("{}")
        (entry,) = told_as_json(capsys, "models", "sd")["models"]
        assert entry["name"] == "mine"
        assert "unet" in entry["problem"]

    def test_names_as_they_are_written(self, capsys: Capture) -> None:
        adapter("my canny", folder=Path("files"))
        for kind, expected in (
            ("controlnet", "--control 'my canny=PICTURE'"),
            ("upscaler", "--hires-upscaler 'my canny'"),
            ("vae", "--vae 'my canny.safetensors'"),
            ("hypernet", "<hypernet:my canny:1>"),
        ):
            assert main(["models", "files", "--kind", kind]) == 0
            assert expected in capsys.readouterr().out

    def test_recorded_embeddings(self, capsys: Capture, recorded: Path) -> None:
        shutil.copytree(recorded / "embeddings", "embeddings")
        Path("embeddings/broken.pt").write_bytes(b"nothing")
        told = told_as_json(capsys, "models", "embeddings", "--kind", "embedding")["models"]
        by_name = {each["name"]: each for each in told}
        assert {"tione", "tixl", "weird-toy 2", "pngword"} < set(by_name)
        assert by_name["broken"]["use_as"] is None
        assert "broken.pt" in by_name["broken"]["problem"]

    def test_an_alias_is_told(self, capsys: Capture, recorded: Path) -> None:
        assert main(["models", str(recorded / "Lora"), "--kind", "lora"]) == 0
        assert "also xlora_alias" in capsys.readouterr().out


class TestInfo:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("Lora/xlora.safetensors", {"kinds": ["LoRA"], "layers": 52, "ranks": [4], "trained as": "xlora_alias"}),
            ("Lora/xlorab.safetensors", {"kinds": ["LoRA"], "layers": 21, "hash": "0123456789ab"}),
            ("Lora/xloraboth.pt", {"kinds": ["LoRA"], "layers": 11}),
            ("Lora/xdora.safetensors", {"kinds": ["LoRA"], "dora": True}),
            ("Lora/xloha.safetensors", {"kinds": ["LoHa"], "ranks": [4]}),
            ("Lora/xlokr.safetensors", {"kinds": ["LoKr"]}),
            ("Lora/xglora.safetensors", {"kinds": ["GLoRA"], "layers": 15}),
            ("Lora/xboft.safetensors", {"kinds": ["OFT"], "layers": 17}),
            ("Lora/xia3.safetensors", {"kinds": ["IA3"], "layers": 17}),
            ("Lora/xfull.safetensors", {"kinds": ["whole differences"], "layers": 11}),
            ("Lora/xnorm.safetensors", {"kinds": ["norms"]}),
            ("Lora/xbundle.safetensors", {"embeddings": ["bundleword"], "layers": 5}),
            ("Lora/xloraxl.safetensors", {"base model": "sdxl_base_v1-0"}),
            ("VAE/tiny-sd21-v_altvae.safetensors", {"kind": "vae", "latent_channels": 4, "layout": "original"}),
            ("embeddings/tione.pt", {"kind": "embedding", "vectors": 1, "widths": [64]}),
            ("embeddings/tithree.safetensors", {"kind": "embedding", "vectors": 3}),
            ("embeddings/tixl.safetensors", {"kind": "embedding", "widths": [64, 128]}),
            ("embeddings/weird-toy 2.bin", {"kind": "embedding", "vectors": 1}),
            ("hypernetworks/xhyper.pt", {"kind": "hypernet", "widths": [64], "use_as": "<hypernet:xhyper:1>"}),
        ],
    )
    def test_recorded_files(self, capsys: Capture, recorded: Path, name: str, expected: dict[str, Any]) -> None:
        file = recorded_file(recorded / name)
        account = told_as_json(capsys, "info", str(file))
        wanted = {"kind": "lora", "problems": [], **expected}
        assert {each: account.get(each) for each in wanted} == wanted
        assert main(["info", str(file)]) == 0
        assert f"kind  {wanted['kind']}".split() == capsys.readouterr().out.splitlines()[0].split()

    @pytest.mark.parametrize(
        ("shapes", "expected"),
        [
            (
                {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (8, 768)},
                "SD 1.x",
            ),
            ({"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (8, 2048)}, "SDXL"),
            ({"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora.down.weight": (8, 1024)}, "SD 2.x"),
            ({"lora_unet_x.lora_down.weight": (8, 2048)}, None),
            ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (8, 3072)}, "Flux.1"),
            ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (8, 3072)}, "Flux.1"),
            ({"lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight": (8, 1536)}, "SD 3"),
        ],
    )
    def test_what_a_lora_is_made_for(self, shapes: dict[str, tuple[int, ...]], expected: str | None) -> None:
        path = adapter("any")
        account = account_of_other(path, shapes, {})
        assert account is not None
        assert (account["kind"], account["made_for"], account["ranks"]) == ("lora", expected, [8])

    @pytest.mark.parametrize(
        ("shapes", "expected"),
        [
            ({"clip_l": (4, 768), "clip_g": (4, 1280)}, "SDXL"),
            ({"emb_params": (2, 768)}, "SD 1.x"),
            ({"emb_params": (2, 77)}, None),
        ],
    )
    def test_what_an_embedding_is_made_for(self, shapes: dict[str, tuple[int, ...]], expected: str | None) -> None:
        account = account_of_other(Path("x.safetensors"), shapes, {})
        assert account is not None
        assert (account["kind"], account["made_for"]) == ("embedding", expected)

    def test_a_small_autoencoder(self, capsys: Capture) -> None:
        save_file({"3.conv.0.weight": np.zeros((1, 1, 1, 1), np.float32)}, "taesdxl_decoder.safetensors")
        account = told_as_json(capsys, "info", "taesdxl_decoder.safetensors")
        assert (account["kind"], account["made_for"]) == ("taesd", "SDXL")

    def test_a_controlnet_that_cannot_be_used(self, capsys: Capture) -> None:
        save_file({"control_model.x": np.zeros(1, np.float32)}, "c.safetensors")
        account = told_as_json(capsys, "info", "c.safetensors", code=3)
        assert account["kind"] == "controlnet"
        assert account["problems"]

    @pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.gguf", "x.bin"])
    def test_what_is_no_model(self, capsys: Capture, name: str) -> None:
        Path(name).write_bytes(b"this is a text")
        account = told_as_json(capsys, "info", name, code=3)
        assert account["kind"] == "model"
        assert name in account["problems"][0]

    def test_tensors_that_nobody_knows(self, capsys: Capture) -> None:
        save_file({"something": np.zeros(1, np.float32)}, "x.safetensors")
        account = told_as_json(capsys, "info", "x.safetensors", code=3)
        assert "missing" in account["problems"][0]

    def test_an_empty_folder(self, capsys: Capture) -> None:
        Path("sd").mkdir()
        assert told_as_json(capsys, "info", "sd", code=3)["problems"]
