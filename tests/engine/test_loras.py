"""LoRAs and their kin as a job asks for them: by tag or by field, picture by picture, and the account of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overpaint.engine import Engine
from overpaint.errors import OverpaintError
from overpaint.events import Finished, Painted, Progress
from overpaint.request import Hires, Lora
from overpaint.settings import Settings
from overpaint.text.infotext import split_infotext
from tests.engine.conftest import asked, box, painted, pixels, scene
from tests.engine.toys import Site, dreamt, hypernet, lora

RED, BLUE, TEXT = "<lora:red:1>", "<lora:blue:0.5>", "<lora:text:1>"


@pytest.mark.parametrize(
    ("tag", "field"),
    [
        ("<lora:red:0.7>", Lora(name="red", weight=0.7)),
        ("<lora:text:0.5:0.5>", Lora(name="text", weight=0.5)),
        ("<lora:red:0.2:0.9>", Lora(name="red", weight=0.9, text_weight=0.2)),
        ("<lora:text:1:0>", Lora(name="text", weight=0, text_weight=1)),
        ("<lora:red:-1>", Lora(name="red", weight=-1)),
        ("<lora:red>", Lora(name="red")),
    ],
    ids=str,
)
def test_a_field_is_a_tag(site_engine: Engine, tag: str, field: Lora) -> None:
    by_tag = site_engine.paint(asked(prompt=f"a cat{tag}"))
    by_field = site_engine.paint(asked(prompt="a cat", loras=(field,)))
    assert pixels(by_tag.images[0]) == pixels(by_field.images[0]) != painted(site_engine)[0]
    found = [split_infotext(each.info).fields["Lora hashes"] for each in (by_tag, by_field)]
    assert found[0] == found[1]
    assert by_tag.all_prompts == [f"a cat{tag}"]


def test_several_add_up_in_their_order(site_engine: Engine) -> None:
    tags = painted(site_engine, prompt=f"a cat {RED}{BLUE}")
    assert tags == painted(site_engine, prompt=f"a cat {RED}", loras=(Lora(name="blue", weight=0.5),))
    assert tags != painted(site_engine, prompt=f"a cat {RED}")
    assert tags != painted(site_engine, prompt=f"a cat {BLUE}")


def test_weight_0_is_none(site_engine: Engine) -> None:
    plain = painted(site_engine)
    assert painted(site_engine, loras=(Lora(name="red", weight=0), Lora(name="text", weight=0))) == plain


def test_networks_can_be_switched_off(site_engine: Engine) -> None:
    result = site_engine.paint(asked(prompt=f"a cat{RED}<hypernet:waves:1>", use_networks=False))
    assert pixels(result.images[0]) == painted(site_engine)[0]
    assert "Lora hashes" not in result.info
    # What is no tag is asked for all the same.
    with_field = painted(site_engine, prompt=f"a cat{RED}", use_networks=False, loras=(Lora(name="blue"),))
    assert with_field == painted(site_engine, loras=(Lora(name="blue"),))
    # A name that nobody knows does not matter then.
    assert painted(site_engine, prompt="a cat<lora:nobody:1>", use_networks=False) == painted(site_engine)


@pytest.mark.parametrize(
    "options",
    [{"sd_lora": "red", "extra_networks_default_multiplier": 0.7}, {"sd_hypernetwork": "waves"}],
    ids=["lora", "hypernet"],
)
def test_networks_of_the_options(site_engine: Engine, site: Site, options: dict[str, Any]) -> None:  # XN-8
    found = site_engine.paint(asked(), site.with_options(**options))
    kind, name = ("lora", "red") if "sd_lora" in options else ("hypernet", "waves")
    weight = options.get("extra_networks_default_multiplier", 1.0)
    tag = f"<{kind}:{name}:{weight}>"
    assert pixels(found.images[0]) == painted(site_engine, prompt=f"a cat{tag}")[0]
    assert painted(site_engine, site.with_options(**options), prompt=f"a cat{tag}") == [pixels(found.images[0])]


PROMPTS = (f"a cat {RED}", f"a dog {RED}", "a house", f"a tree {TEXT}{BLUE}", "a sea", f"a cat {RED}")


def singly(engine: Engine, prompts: tuple[str, ...], **fields: Any) -> list[bytes]:
    sources = fields.pop("images", (scene(),))
    return [
        painted(engine, prompt=prompt, seed=1 + i, images=(sources[i % len(sources)],), **fields)[0]
        for i, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M SDE", "DDIM"])
@pytest.mark.parametrize("exact", [False, True])
def test_a_batch_is_split_by_its_networks(site_engine: Engine, sampler: str, exact: bool) -> None:
    """Every picture is its single run: its seed, its source, its networks."""
    sources = (scene(seed=1), scene(seed=2).rotate(90), scene(seed=3).rotate(180))
    fields: dict[str, Any] = {"sampler": sampler, "images": sources, "steps": 3}
    batch = site_engine.paint(asked(prompt=PROMPTS, batch_size=6, exact=exact, **fields))
    assert [len(each) for each in batch.plan.batches] == [2, 1, 1, 1, 1]
    assert batch.all_seeds == [1, 2, 3, 4, 5, 6]
    close(singly(site_engine, PROMPTS, **fields), [pixels(each) for each in batch.images], 0 if exact else 1)


def close(wanted: list[bytes], found: list[bytes], levels: int) -> None:
    assert len(wanted) == len(found)
    for a, b in zip(wanted, found, strict=True):
        assert len(a) == len(b)
        head = len(b"RGB (32, 32) ")
        one, two = (np.frombuffer(each[head:], dtype=np.uint8).astype(int) for each in (a, b))
        assert np.abs(one - two).max() <= levels


def test_a_split_batch_with_a_mask_and_iterations(site_engine: Engine) -> None:
    sources = (scene(seed=1), scene(seed=2).rotate(90))
    fields: dict[str, Any] = {"mask": box(), "masked_content": "noise", "only_masked": True, "padding": 4, "width": 32}
    prompts = PROMPTS[1:3] * 3
    batch = site_engine.paint(asked(prompt=prompts, batch_size=2, iterations=3, images=sources, exact=True, **fields))
    assert [pixels(each) for each in batch.images] == singly(site_engine, prompts, images=sources, **fields)


def test_infotexts_of_a_split_batch(site_engine: Engine) -> None:
    batch = site_engine.paint(asked(prompt=PROMPTS[:4], batch_size=4))
    parsed = [split_infotext(each).fields for each in batch.infotexts]
    assert ["red" in each.get("Lora hashes", "") for each in parsed] == [True, True, False, False]
    assert "text" in parsed[3]["Lora hashes"]
    for i, text in enumerate(batch.infotexts):
        (single,) = site_engine.paint(asked(prompt=PROMPTS[i], seed=1 + i)).infotexts
        assert text == single


def test_progress_of_a_split_batch(site_engine: Engine) -> None:
    started, *events = site_engine.run(asked(prompt=PROMPTS, batch_size=6))
    steps = [each.step for each in events if isinstance(each, Progress)]
    assert steps == sorted(steps)
    assert steps[-1] == started.steps == events[0].steps  # type: ignore[union-attr]
    assert sum(isinstance(each, Painted) for each in events) == 5


def test_the_reference_asks_the_first_of_a_batch(site_engine: Engine, site: Site) -> None:  # XN-3
    fields: dict[str, Any] = {"prompt": (f"a cat {RED}", "a dog"), "batch_size": 2}
    found = painted(site_engine, site.reference, **fields)
    assert found == painted(site_engine, site.reference, **{**fields, "prompt": (f"a cat {RED}", f"a dog {BLUE}")})


def test_hires_with_networks_of_its_own(site_engine: Engine) -> None:
    """The second pass is split as its own texts ask, whatever the first one wanted."""
    firsts = (f"a cat {RED}", f"a dog {RED}", "a house")
    seconds = ("a cat", f"a dog {BLUE}", f"a house {BLUE}")
    batch = site_engine.paint(
        dreamt(prompt=firsts, batch_size=3, exact=True, hires=Hires(scale=1.5, steps=2, prompt=seconds))
    )
    for i, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        single = site_engine.paint(dreamt(prompt=first, seed=1 + i, hires=Hires(scale=1.5, steps=2, prompt=second)))
        assert pixels(single.images[0]) == pixels(batch.images[i])
        assert single.infotexts[0] == batch.infotexts[i]


def test_hires_with_one_text_for_all(site_engine: Engine) -> None:
    firsts = (f"a cat {RED}", "a dog")
    hires = Hires(scale=1.5, steps=2, prompt=f"a sea {BLUE}")
    batch = site_engine.paint(dreamt(prompt=firsts, batch_size=2, exact=True, hires=hires))
    for i, first in enumerate(firsts):
        single = site_engine.paint(dreamt(prompt=first, seed=1 + i, hires=hires))
        assert pixels(single.images[0]) == pixels(batch.images[i])


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bad(tmp_path: Path, site: Site) -> Settings:
    folder = tmp_path / "loras"
    folder.mkdir()
    for name in ("red", "blue"):
        lora(folder / f"{name}.safetensors")
    lora(folder / "wide.safetensors", width=65)
    other = lora(folder / "cut.safetensors")
    other.write_bytes(other.read_bytes()[:-100])
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "text.safetensors").write_text("this is no LoRA")
    stranger(folder / "xl.safetensors")
    hypernet(folder / "h.pt")
    return site.with_options(lora_dir=str(folder), hypernetwork_dir=str(folder))


def stranger(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    name = "lora_unet_down_blocks_1_attentions_1_transformer_blocks_9_attn2_to_k"
    save_file({f"{name}.lora_down.weight": torch.ones(2, 2048), f"{name}.lora_up.weight": torch.ones(8, 2)}, path)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("<lora:nobody:1>", ("prompt", "nobody", "known: ", "red")),
        ("<hypernet:nobody:1>", ("prompt", "nobody", "hypernetwork")),
        ("<lora:wide:1>", ("wide.safetensors", "middle_block", "use a network made for it")),
        ("<lora:cut:1>", ("cut.safetensors",)),
        ("<lora:empty:1>", ("empty.safetensors",)),
        ("<lora:text:1>", ("text.safetensors",)),
        ("<lora:xl:1>", ("xl.safetensors", "SDXL")),
        ("<lora:red:much>", ("prompt", "much", "0.8")),
        ("<lora:red:nan>", ("prompt", "nan")),
        ("<lora:red:1e999>", ("prompt",)),
        ("<lora:red:1:1:0>", ("dyn",)),
        ("<lora::1>", ("prompt", "known: ")),
        ("<hypernet:red:1>", ("red.safetensors",)),
    ],
)
def test_one_sentence_and_on_with_the_next(site_engine: Engine, bad: Settings, prompt: str, words: list[str]) -> None:
    before = painted(site_engine, prompt=f"a cat{RED}")
    for fields in ({}, {"checkpoint": "other"}, {"refiner": "other"}):
        with pytest.raises(OverpaintError) as caught:
            site_engine.paint(asked(prompt=f"a cat{prompt}", **fields), bad)
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 400
        for word in words:
            assert word in message
        assert painted(site_engine, prompt=f"a cat{RED}") == before


def test_the_reference_goes_on_and_nothing_of_it_is_kept(site_engine: Engine, bad: Settings) -> None:
    """LORA-4, LORA-6: what it passes over in silence is still an error for a sane job that comes after."""
    manner = Settings.reference(lora_dir=bad.lora_dir)
    plain = painted(site_engine, manner)
    for name in ("nobody", "wide", "cut", "empty", "text", "xl"):
        result = site_engine.paint(asked(prompt=f"a cat<lora:{name}:1>"), manner)
        if name == "wide":
            assert "Networks with errors: wide (1)" in result.comments
        else:
            assert pixels(result.images[0]) == plain[0]
    for name in ("nobody", "wide", "cut", "empty", "text", "xl"):
        with pytest.raises(OverpaintError):
            site_engine.paint(asked(prompt=f"a cat<lora:{name}:1>"), bad)


def test_a_job_for_a_refiner_that_no_lora_fits(site_engine: Engine, bad: Settings) -> None:
    """A LoRA is for the job's model; a refiner takes what fits it, which changes nothing for jobs of its own."""
    result = site_engine.paint(asked(prompt="a cat<lora:red:1>", refiner="other", refiner_switch_at=0.3), bad)
    assert len(result.images) == 1


def test_a_lora_that_goes_away_while_it_is_worn(tmp_path: Path, site_engine: Engine, site: Site) -> None:
    """A job that has begun keeps what it wears, also where another one used the model meanwhile."""
    settings = site.with_options(lora_dir=str(tmp_path))
    path = lora(tmp_path / "fleeting.safetensors")
    plain = painted(site_engine)
    request = asked(prompt="a cat <lora:fleeting:1>", steps=4)
    whole = [pixels(each) for each in site_engine.paint(request, settings).images]
    for another in (False, True):
        lora(path)
        story = site_engine.run(request, settings)
        next(each for each in story if isinstance(each, Progress))
        path.unlink()
        if another:
            assert painted(site_engine) == plain
        *_, last = story
        assert isinstance(last, Finished)
        assert [pixels(each) for each in last.result.images] == whole
    assert painted(site_engine) == plain
