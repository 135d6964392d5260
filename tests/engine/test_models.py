"""Models by name, several at a time; VAEs, big and tiny; what is shared is in memory once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overpaint.engine import Engine, stages_of
from overpaint.errors import SettingError
from overpaint.models.hashes import sha256_of
from overpaint.models.memory import size_of
from overpaint.settings import Settings
from overpaint.text.infotext import split_infotext
from tests.engine.conftest import asked, painted, pixels
from tests.engine.toys import Site, copy_of, dreamt, lora, taesd

TINY_MEMORY = 1e-6


def test_by_every_name(site_engine: Engine, site: Site) -> None:
    path = Path(site.model("other"))
    digest = sha256_of(path)
    wanted = painted(site_engine, checkpoint=str(path), steps=1)
    names = [
        "other",
        "other.safetensors",
        digest[:10],
        digest,
        f"other.safetensors [{digest[:10]}]",
        f"other [{digest[:10]}]",
    ]
    for name in names:
        for fields in ({"checkpoint": name}, {"overrides": {"sd_model_checkpoint": name}}):
            result = site_engine.paint(asked(steps=1, **fields))
            assert pixels(result.images[0]) == wanted[0]
            assert "Model: other" in result.info
    assert painted(site_engine, steps=1) != wanted
    for name in ("tiny", "tiny.safetensors"):
        assert painted(site_engine, checkpoint=name, steps=1) == painted(site_engine, steps=1)


def test_an_unknown_name_in_the_reference_is_dropped(site_engine: Engine, site: Site) -> None:  # JOB-1
    result = site_engine.paint(asked(overrides={"sd_model_checkpoint": "nobody"}), site.reference)
    assert "Model: tiny" in result.info


def test_there_and_back(site: Site) -> None:
    for memory in (0.0, TINY_MEMORY):
        settings = site.with_options(model_memory=memory)
        with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=settings) as engine:
            first, other = painted(engine), painted(engine, checkpoint="other")
            assert painted(engine) == first
            assert painted(engine, checkpoint="other") == other
            kept = stages_of(engine).model_cache._residents.paths()
            assert len(kept) == (2 if memory == 0 else 1)


def test_text_encoders_of_twins_are_shared(site: Site) -> None:
    with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=site.settings) as engine:
        plain, worn = painted(engine), painted(engine, prompt="a cat <lora:text:1>")
        own = stages_of(engine).backend.networks
        painted(engine)  # bare again
        twin = painted(engine, checkpoint="twin")
        theirs = stages_of(engine).backend.networks
        assert theirs.texts[0] is own.texts[0]
        assert theirs.unet is not own.unet
        assert size_of([*own.texts, *theirs.texts]) == size_of(own.texts)
        # A LoRA on one of them is not on the other.
        worn_twin = painted(engine, prompt="a cat <lora:text:1>", checkpoint="twin")
        assert painted(engine) == plain
        assert painted(engine, checkpoint="twin") == twin
        assert painted(engine, prompt="a cat <lora:text:1>") == worn
        assert painted(engine, prompt="a cat <lora:text:1>", checkpoint="twin") == worn_twin != twin


def test_a_twin_loaded_while_the_encoder_wears_something(site: Site) -> None:
    with Engine(site.model("twin"), device="cpu", dtype="float32", settings=site.settings) as fresh:
        wanted = painted(fresh)
    with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=site.settings) as engine:
        worn = painted(engine, prompt="a cat <lora:text:1>")
        assert painted(engine, checkpoint="twin") == wanted
        assert painted(engine, prompt="a cat <lora:text:1>") == worn


def test_the_engines_own_model_by_an_option(site: Site) -> None:
    with Engine(device="cpu", dtype="float32", settings=site.with_options(sd_model_checkpoint="other")) as engine:
        assert engine.model.name == "other"


def test_a_vae_for_one_job(site_engine: Engine) -> None:
    before = painted(site_engine)
    result = site_engine.paint(asked(overrides={"sd_vae": "pale.safetensors"}))
    assert pixels(result.images[0]) != before[0]
    fields = split_infotext(result.info).fields
    assert fields["VAE"] == "pale.safetensors"
    assert len(fields["VAE hash"]) == 10
    assert painted(site_engine, overrides={"sd_vae": "None"}) == before
    assert painted(site_engine) == before


def test_a_vae_beside_the_checkpoint_is_found(tmp_path: Path, site: Site) -> None:  # VAE-2
    site = copy_of(site, tmp_path)
    pale = site.folder("vaes") / "pale.safetensors"
    with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=site.settings) as engine:
        before = painted(engine)
        wanted = painted(engine, overrides={"sd_vae": "pale.safetensors"})
        beside = site.folder("models") / "tiny.vae.safetensors"
        beside.write_bytes(pale.read_bytes())
        assert painted(engine) == wanted
        assert painted(engine, overrides={"sd_vae": "None"}) == before
        beside.unlink()
        assert painted(engine) == before


# -- TAESD -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["encode", "decode", "both"])
def test_the_tiny_autoencoder(site_engine: Engine, site: Site, way: str) -> None:
    options = {f"sd_vae_{each}_method": "TAESD" for each in ("encode", "decode") if way in (each, "both")}
    plain = painted(site_engine)
    result = site_engine.paint(asked(overrides=options))
    assert pixels(result.images[0]) != plain[0]
    fields = split_infotext(result.info).fields
    assert ("VAE Encoder" in fields) == (way != "decode")
    assert ("VAE Decoder" in fields) == (way != "encode")
    assert painted(site_engine) == plain
    batch = site_engine.paint(asked(overrides=options, batch_size=2, exact=True)).images
    assert pixels(batch[0]) == pixels(result.images[0])
    for size in ((37, 29), (64, 8)):
        odd = site_engine.paint(asked(overrides=options, width=size[0], height=size[1], steps=1))
        assert odd.images[0].size == size
        assert site_engine.paint(dreamt(overrides=options, width=size[0], height=size[1])).images[0].size == size


@pytest.mark.parametrize(
    ("missing", "options"),
    [
        ("taesd_encoder", {"sd_vae_encode_method": "TAESD"}),
        ("taesd_decoder", {"sd_vae_decode_method": "TAESD"}),
        ("taesd_decoder", {"show_progress_type": "TAESD", "show_progress_every_n_steps": 1}),
    ],
    ids=["encoder", "decoder", "preview"],
)
def test_a_tiny_autoencoder_that_is_missing(
    site_engine: Engine, site: Site, tmp_path: Path, missing: str, options: dict[str, Any]
) -> None:
    before = painted(site_engine)
    taesd(tmp_path)
    (tmp_path / f"{missing}.safetensors").unlink()
    for folder in (str(tmp_path), ""):
        settings = site.with_options(taesd_dir=folder, **options)
        with pytest.raises(SettingError) as caught:
            site_engine.paint(asked(), settings)
        assert str(caught.value).startswith("taesd_dir=")
        assert missing in str(caught.value)
        assert len(str(caught.value)) < 400
        assert painted(site_engine) == before
    other = "decode" if missing == "taesd_encoder" else "encode"
    half = site.with_options(taesd_dir=str(tmp_path), **{f"sd_vae_{other}_method": "TAESD"})
    assert painted(site_engine, half) != before


def test_previews_of_a_refiner_and_another_vae(site_engine: Engine, site: Site) -> None:
    for kind in ("Full", "TAESD", "Approx NN"):
        settings = site.with_options(show_progress_every_n_steps=1, show_progress_type=kind)
        quiet = site.with_options(live_previews_enable=False)
        for fields in (
            {"refiner": "other", "refiner_switch_at": 0.3},
            {"overrides": {"sd_vae": "pale.safetensors"}},
            {"tiling": True, "prompt": "a <lora:red:1> cat"},
        ):
            assert painted(site_engine, settings, **fields) == painted(site_engine, quiet, **fields)


def test_upscalers(site_engine: Engine, site: Site) -> None:
    fields: dict[str, Any] = {"width": 64, "height": 64, "steps": 1, "strength": 0.3}
    plain = painted(site_engine, **fields)
    grown = painted(site_engine, overrides={"upscaler_for_img2img": "grow"}, **fields)
    assert grown != plain
    # Tiles change little.
    tiled = painted(
        site_engine, site.with_options(ESRGAN_tile=16, ESRGAN_tile_overlap=8, upscaler_for_img2img="grow"), **fields
    )
    head = len(b"RGB (64, 64) ")
    one, two = (np.frombuffer(each[0][head:], np.uint8).astype(int) for each in (grown, tiled))
    assert 0 < np.abs(one - two).mean() < 20
    # Smaller ones are not upscaled at all.
    small: dict[str, Any] = {"width": 24, "height": 24, "steps": 1}
    assert painted(site_engine, overrides={"upscaler_for_img2img": "grow"}, **small) == painted(site_engine, **small)


def test_a_file_added_later_is_found(tmp_path: Path, site: Site) -> None:
    site = copy_of(site, tmp_path)
    with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=site.settings) as engine:
        painted(engine, overrides={"upscaler_for_img2img": "grow"}, prompt="a <lora:red:1>", checkpoint="other")
        upscalers = site.folder("upscalers")
        (upscalers / "later.pth").write_bytes((upscalers / "grow.pth").read_bytes())
        lora(site.folder("loras") / "later.safetensors", seed=8)
        models = site.folder("models")
        (models / "later.safetensors").write_bytes((models / "twin.safetensors").read_bytes())
        fields: dict[str, Any] = {"width": 64, "height": 64, "overrides": {"upscaler_for_img2img": "later"}}
        assert painted(engine, prompt="a <lora:later:1>", checkpoint="later", **fields)


def test_settings_of_a_job_are_not_the_engines(site_engine: Engine, site: Site) -> None:
    before = painted(site_engine)
    other = Settings(lora_dir=str(site.folder("loras")), tiling=True, CLIP_stop_at_last_layers=2)
    assert painted(site_engine, other, prompt="a cat <lora:red:1>") != before
    assert painted(site_engine) == before
