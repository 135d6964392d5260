"""An installation of the reference, used as it lies: folders, options, styles; and nothing is written there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import overpaint
from overpaint.contract.options import reference_tables
from overpaint.errors import RequestError
from overpaint.models.catalog import CONTROLNET, files_of, folders_in
from overpaint.models.families import SD1_SPEC
from overpaint.models.installation import read_installation, webui_settings
from overpaint.models.launch_flags import read_flags
from overpaint.planning.preflight import surroundings_of
from overpaint.settings import OPTION_NAMES, Settings

FOLDERS = {
    "models_dir": "models/Stable-diffusion",
    "vae_dir": "models/VAE",
    "taesd_dir": "models/VAE-approx",
    "lora_dir": "models/Lora",
    "embeddings_dir": "embeddings",
    "hypernetwork_dir": "models/hypernetworks",
    "controlnet_dir": "models/ControlNet",
    "esrgan_dir": "models/ESRGAN",
    "realesrgan_dir": "models/RealESRGAN",
    "swinir_dir": "models/SwinIR",
    "scunet_dir": "models/ScuNET",
    "dat_dir": "models/DAT",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for place in FOLDERS.values():
        (tmp_path / "webui" / place).mkdir(parents=True)
    return tmp_path / "webui"


def configured(root: Path, **options: Any) -> Path:
    (root / "config.json").write_text(json.dumps(options), encoding="utf-8")
    return root


class TestFolders:
    def test_each_is_found_where_the_reference_keeps_it(self, root: Path) -> None:
        found = read_installation(root).folders
        assert found == {option: str(root / place) for option, place in FOLDERS.items()}

    def test_every_folder_of_models_has_its_place(self) -> None:
        assert FOLDERS.keys() == {name for name in OPTION_NAMES if name.endswith("_dir")}

    def test_names_in_another_case(self, root: Path) -> None:
        (root / "models/Lora").rename(root / "models/lora")
        assert read_installation(root).folders["lora_dir"] == str(root / "models/lora")

    def test_controlnets_of_the_extension_too(self, root: Path) -> None:
        extension = root / "extensions/sd-webui-controlnet/models"
        extension.mkdir(parents=True)
        (root / "models/ControlNet/canny.safetensors").write_bytes(b"x")
        (extension / "depth.safetensors").write_bytes(b"x")
        names = [each.name for each in files_of(webui_settings(root).controlnet_dir, CONTROLNET)]
        assert names == ["canny", "depth"]

    def test_a_folder_whose_name_has_the_separator_is_one(self, tmp_path: Path) -> None:
        odd = tmp_path / f"a{os.pathsep}b"
        odd.mkdir()
        assert folders_in(str(odd)) == (odd,)
        assert folders_in(f"{odd.parent}{os.pathsep}elsewhere") == (odd.parent, Path("elsewhere"))

    @pytest.mark.parametrize(
        ("inside", "told"),
        [
            ("", "it has no folder models/Stable-diffusion; --models takes any folder of models"),
            ("webui/models", "webui is one"),
        ],
    )
    def test_no_installation(self, root: Path, inside: str, told: str) -> None:
        with pytest.raises(RequestError, match="it is no installation of the webui") as error:
            read_installation(root.parent / inside)
        assert error.value.remedy.endswith(told)

    def test_nothing_there(self, root: Path) -> None:
        with pytest.raises(RequestError, match="there is no such folder"):
            read_installation(root / "elsewhere")

    def test_what_cannot_be_read_is_told(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (root / "models/Lora").rmdir()
        (root / "models/Lora").symlink_to(root / "gone")
        closed = root / "embeddings/closed"
        closed.mkdir()
        scandir = os.scandir

        def refusing(path: Any) -> Any:
            if os.fspath(path) == str(closed):
                raise PermissionError(13, "Permission denied", str(closed))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refusing)
        found = read_installation(root)
        assert "lora_dir" not in found.folders
        assert found.folders["embeddings_dir"] == str(root / "embeddings")
        assert list(found.troubles) == [
            f"{root / 'models/Lora'}: this link leads nowhere",
            f"{closed}: it cannot be read (Permission denied), so what is in it is not known",
        ]


class TestOptions:
    def test_those_that_were_changed_and_that_we_have(self, root: Path) -> None:
        configured(root, CLIP_stop_at_last_layers=2, eta_noise_seed_delta=31337, randn_source="CPU", tiling=False)
        found = read_installation(root)
        assert found.options == {"CLIP_stop_at_last_layers": 2, "eta_noise_seed_delta": 31337, "randn_source": "CPU"}
        assert found.left_out == {}

    def test_what_nobody_chose_takes_no_place_of_ours(self, root: Path) -> None:
        configured(root, **reference_tables()["options"], return_grid=True, jpeg_quality=80, sd_vae="Automatic")
        found = read_installation(root)
        assert (found.options, found.left_out) == ({}, {})
        assert found.settings().jpeg_quality == Settings().jpeg_quality

    def test_our_own_beat_theirs(self, root: Path) -> None:
        configured(root, CLIP_stop_at_last_layers=2, emphasis="Ignore")
        settings = webui_settings(root, Settings(CLIP_stop_at_last_layers=3))
        assert (settings.CLIP_stop_at_last_layers, settings.emphasis) == (3, "Ignore")
        assert overpaint.webui_settings is webui_settings

    @pytest.mark.parametrize(
        ("name", "value", "why"),
        [
            ("outdir_img2img_samples", "D:\\out", "results go where this program is told to put them"),
            ("gallery_height", "900px", "it changes nothing here"),
            ("control_net_unit_count", 5, "there is no such option here"),
            ("models_dir", "/elsewhere", "there is no such option here"),
            ("emphasis", "loud", "choose one of Original, No norm, Ignore, None"),
            ("eta_noise_seed_delta", "many", "give a whole number"),
            ("face_restoration", True, "this version offers only False"),
            ("sd_model_checkpoint", "gone.safetensors [1234567890]", "there is no such checkpoint now"),
            ("sd_vae", "gone.pt", "there is no such file"),
            ("upscaler_for_img2img", "4x-Gone", None),
        ],
    )
    def test_the_others_are_left_out_with_a_reason(self, root: Path, name: str, value: Any, why: str | None) -> None:
        found = read_installation(configured(root, **{name: value}))
        assert found.options == {}
        assert found.left_out[name].value == value
        assert why is None or found.left_out[name].reason == why

    def test_the_checkpoint_by_its_title(self, root: Path) -> None:
        path = root / "models/Stable-diffusion/sdxl/dreams.safetensors"
        path.parent.mkdir()
        path.write_bytes(b"x")
        (root / "models/Stable-diffusion/other-dreams.safetensors").write_bytes(b"x")
        (root / "models/VAE/nice.pt").write_bytes(b"x")
        for title in ("sdxl/dreams.safetensors [0123456789]", "sdxl\\dreams.safetensors", "dreams"):
            configured(root, sd_model_checkpoint=title, sd_checkpoint_hash="00", sd_vae="nice.pt")
            assert read_installation(root).options == {"sd_model_checkpoint": str(path), "sd_vae": "nice.pt"}

    @pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
    def test_a_broken_file_is_refused(self, root: Path, content: bytes) -> None:
        (root / "config.json").write_bytes(content)
        with pytest.raises(RequestError, match="its options cannot be read") as error:
            read_installation(root)
        assert "give --models, which reads no options" in error.value.remedy


class TestStyles:
    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b'name,prompt\nink,"ink', "a quotation mark is never closed, from the row of 'ink' on"),
            (b"name;prompt\nink;black", "there is no column called name"),
            (b"name,prompt\nink,\xe9\xff", "save it as UTF-8 CSV"),
        ],
    )
    def test_a_broken_file_is_told_and_stops_nothing_else(self, root: Path, content: bytes, told: str) -> None:
        (root / "styles.csv").write_bytes(content)
        (trouble,) = read_installation(root).troubles
        assert trouble.startswith(f"{root / 'styles.csv'}: its styles cannot be used; ")
        assert told in trouble

    def test_of_a_windows_editor(self, root: Path) -> None:
        (root / "styles.csv").write_bytes('\ufeffname,text\r\n"ink, wash","(ink:1.1), {prompt}"\r\n'.encode())
        request = overpaint.Txt2ImgRequest(prompt="a cat", styles=("ink, wash",))
        site = webui_settings(root)
        known = surroundings_of(request, site, lambda path: SD1_SPEC)
        (picture,) = overpaint.plan(request, site, SD1_SPEC, known).images
        assert picture.prompt == "(ink:1.1), a cat"


class TestLaunchFlags:
    def launcher(self, root: Path, text: str, name: str = "webui-user.sh") -> None:
        (root / name).write_text(text, encoding="utf-8")

    def test_folders_that_the_launcher_names(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("overpaint.models.launch_flags._LAUNCHER", "webui-user.sh")
        for name in ("big models", "loras", "more/sub"):
            (root / name).mkdir(parents=True)
        line = "--xformers --ckpt-dir './big models' --lora-dir=loras --embeddings-dir gone --styles-file mine.csv"
        self.launcher(
            root, f'#!/bin/bash\n#export COMMANDLINE_ARGS="--lora-dir more"\nexport COMMANDLINE_ARGS="{line}"\n'
        )
        found = read_installation(root)
        both = f"{root / 'big models'}{os.pathsep}{root / FOLDERS['models_dir']}"
        assert found.folders["models_dir"] == both
        assert found.folders["lora_dir"] == str(root / "loras")
        assert "embeddings_dir" not in found.folders
        assert [each.rpartition(": ")[2] for each in found.troubles] == [
            "there is no such folder",
            "there is no such file of styles",
        ]

    def test_a_batch_file(self, root: Path) -> None:
        self.launcher(root, '@echo off\r\nset COMMANDLINE_ARGS=--ckpt-dir "D:\\my models" --api\r\n', "webui-user.bat")
        found = read_flags(root, launcher="webui-user.bat")
        assert found.all("--ckpt-dir") == (root / "D:\\my models",)

    @pytest.mark.parametrize("text", ["", 'export COMMANDLINE_ARGS="--lora-dir \'odd"\n', "export COMMANDLINE_ARGS=\n"])
    def test_odd_ones(self, root: Path, text: str) -> None:
        self.launcher(root, text)
        read_flags(root, launcher="webui-user.sh")
        assert read_flags(root, launcher="gone.sh").values == ()
