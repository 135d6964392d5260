"""Texts to encodings: what the encoders are asked, what is remembered, and what the infotext says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.adapters.embedding_files import ALONE, CLIP_G, CLIP_L, EmbeddingData, bundled_embeddings
from overpaint.adapters.embeddings import EmbeddingTable, table_of
from overpaint.models.families import SD1_SPEC, ModelSpec
from overpaint.networks.text import TextEncoding, TokenOverride, TokenPicture
from overpaint.painting.conditioning import Conditioner
from overpaint.planning.plan import Plan, plan
from overpaint.settings import Quirks, Settings
from tests.unit.toy_job import asked

_CLIP = SD1_SPEC.texts[0]
_OPENCLIP = replace(_CLIP, kind="openclip", width=1280, layer=-2, follows_skip=False, pooled=True)
SDXL_SPEC = replace(
    SD1_SPEC, family="sdxl", texts=(_CLIP, _OPENCLIP), denoiser=replace(SD1_SPEC.unet, adm_channels=1280 + 6 * 256)
)
WORDS = " ".join(["cat"] * 72)


@dataclass
class Encoders:
    """Gives every text the same encoding and remembers what it was asked."""

    spec: ModelSpec = SD1_SPEC
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    asked: list[tuple[int, Tensor, tuple[TokenOverride, ...]]] = field(default_factory=list)

    def text(
        self,
        encoder: int,
        ids: Tensor,
        *,
        layer: int | None = None,
        final_norm: bool | None = None,
        overrides: Sequence[TokenOverride] = (),
        pictures: Sequence[TokenPicture] = (),
    ) -> TextEncoding:
        self.asked.append((encoder, ids, tuple(overrides)))
        text = self.spec.texts[encoder]
        pooled = torch.zeros(len(ids), text.width) if text.pooled else None
        return TextEncoding(torch.ones(*ids.shape, text.width), pooled)


def data(name: str, vectors: int, **fields: Any) -> EmbeddingData:
    return EmbeddingData(name, f"hash of {name}", name, {ALONE: torch.full((vectors, 768), float(vectors))}, **fields)


TABLE = table_of(SD1_SPEC, [data("tione", 1), data("tithree", 3)])
XL_TABLE = table_of(
    SDXL_SPEC,
    [EmbeddingData(name, name[-1], name, {CLIP_L: torch.ones(2, 768), CLIP_G: torch.zeros(2, 1280)}) for name in "ab"],
)


def planned(settings: Settings | None = None, spec: ModelSpec = SD1_SPEC, /, **fields: Any) -> Plan:
    return plan(asked(**{"negative_prompt": "", **fields}), settings or Settings(), spec)


def conditioner(plan: Plan, table: EmbeddingTable = TABLE) -> tuple[Conditioner, Encoders]:
    encoders = Encoders(plan.spec)
    return Conditioner(plan.spec, encoders, plan, table), encoders


def notes_of(plan: Plan, table: EmbeddingTable = TABLE) -> dict[str, object]:
    return conditioner(plan, table)[0].notes(plan.batches[0])


# ---- Vectors in the place of tokens (TI-2) ----


def test_vectors_stand_behind_the_start_token() -> None:
    made, encoders = conditioner(planned(prompt="a tithree and tione"))
    made.positive("a tithree and tione")
    ((_, ids, overrides),) = encoders.asked
    assert ids.shape == (1, 77)
    assert ids[0, :7].tolist() == [49406, 320, 0, 0, 0, 537, 0]
    assert [(each.row, each.slot, len(each.vectors)) for each in overrides] == [(0, 2, 3), (0, 6, 1)]
    assert overrides[0].vectors[0, 0] == 3


def test_stages_are_rows_and_chunks_are_calls() -> None:
    made, encoders = conditioner(planned(prompt="a"))
    made.positive(f"[tione:{WORDS} tithree tione:0.5]")
    first, second = encoders.asked
    assert first[1].shape == second[1].shape == (2, 77)
    assert [(each.row, each.slot, len(each.vectors)) for each in first[2]] == [(0, 1, 1), (1, 73, 3)]
    assert [(each.row, each.slot, len(each.vectors)) for each in second[2]] == [(1, 1, 1)]


def test_each_encoder_gets_its_own_vectors() -> None:
    made, encoders = conditioner(planned(Settings(), SDXL_SPEC, prompt="x"), XL_TABLE)
    made.positive("the b")
    assert [each[0] for each in encoders.asked] == [0, 1]
    assert [each[2][0].vectors.shape for each in encoders.asked] == [(2, 768), (2, 1280)]


def test_without_emphasis_vectors_stay() -> None:
    made, encoders = conditioner(planned(Settings(emphasis="None"), prompt="(tione:1.5)"))
    made.positive("(tione:1.5)")
    assert len(encoders.asked[0][2]) == 1


# ---- What is read once ----


def test_a_text_that_several_pictures_have_is_read_once() -> None:
    job = planned(prompt="a cat", negative_prompt="dog", batch_size=3)
    made, encoders = conditioner(job)
    assert len(made.images(job.batches[0])) == 3
    assert len(encoders.asked) == 2


# ---- Infotext (TI-3) ----


@pytest.mark.parametrize(
    ("prompt", "negative", "expected"),
    [
        ("a cat", "bad", None),
        ("tione and tione", "", "tione: hash of tione"),
        ("tithree, tione", "", "tithree: hash of tithree, tione: hash of tione"),
        ("a", "tione", "tione: hash of tione"),
        ("tione", "tithree, tione", "tione: hash of tione, tithree: hash of tithree, tione: hash of tione"),
        ("tione AND tithree", "", "tithree: hash of tithree, tione: hash of tione"),
        ("tione AND tione", "", "tione: hash of tione, tione: hash of tione"),  # one has a space in front
        ("tione:0.4 AND tione:0.6", "", "tione: hash of tione, tione: hash of tione"),
        ("[tithree|tione|tithree]", "", "tithree: hash of tithree, tione: hash of tione"),
        (f"{WORDS} red, blue tithree BREAK tione", "", "tithree: hash of tithree, tione: hash of tione"),
        ("(tione:1.2) <another:tithree:1>", "", "tione: hash of tione"),
        ("(tith:1.2)ree", "", None),
    ],
)
def test_hashes(prompt: str, negative: str, expected: str | None) -> None:
    assert notes_of(planned(prompt=prompt, negative_prompt=negative)).get("TI hashes") == expected


def test_the_second_picture_comes_first() -> None:
    job = planned(prompt=("tione", "tithree"), negative_prompt=("", "tione"), batch_size=2)
    assert notes_of(job)["TI hashes"] == "tithree: hash of tithree, tione: hash of tione, tione: hash of tione"
    twice = planned(prompt="tione", negative_prompt="tithree", batch_size=2)
    assert notes_of(twice)["TI hashes"] == "tione: hash of tione, tithree: hash of tithree"


def test_each_encoder_of_sdxl_says_it() -> None:
    job = planned(Settings(), SDXL_SPEC, prompt="b then a", negative_prompt="a")
    assert notes_of(job, XL_TABLE)["TI hashes"] == "b: b, a: a, b: b, a: a, a: a, a: a"


def test_options_of_the_hashes() -> None:
    assert notes_of(planned(Settings(textual_inversion_add_hashes_to_infotext=False), prompt="tione")) == {}
    worn = TABLE.with_bundled(bundled_embeddings("fur", {"bundle_emb.toy.string_to_param.*": torch.ones(1, 768)}))
    assert notes_of(planned(prompt="toy tione"), worn)["TI hashes"] == "toy: fur, tione: hash of tione"
    hidden = planned(Settings(lora_bundled_ti_to_infotext=False), prompt="toy tione")
    assert notes_of(hidden, worn)["TI hashes"] == "tione: hash of tione"


def test_names_lose_what_would_part_the_list() -> None:
    table = table_of(SD1_SPEC, [data("red: fur, wet", 1)])
    assert notes_of(planned(prompt="red: fur, wet"), table)["TI hashes"] == "red fur wet: hash of red: fur, wet"


def test_order_of_the_fields() -> None:  # INFO-6
    notes = notes_of(planned(Settings(emphasis="No norm"), prompt="(tione)"))
    assert list(notes) == ["TI hashes", "Emphasis"]


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({"prompt": "[steel::0.5] [:rust:0.3]"}, False),
        ({"prompt": "a [red|blue] cat AND [a:b:2] dog"}, False),
        ({"prompt": "a <lora:x:1> cat", "negative_prompt": "[dog:wolf:0.5]"}, False),
        ({"prompt": "[steel::0.5] (rust)"}, True),
        ({"prompt": "[steel:(rust):0.5]"}, True),  # in one stage only
        ({"prompt": "[steel::x] cat"}, True),  # no editing, so the bracket stays
        ({"prompt": "a cat AND a [sad] dog"}, True),
        ({"prompt": "a cat", "negative_prompt": "[dog]"}, True),
        ({"prompt": r"\(literal\)"}, True),
        ({"prompt": ("a cat", "(a dog)"), "batch_size": 2}, True),
    ],
)
@pytest.mark.parametrize("quirks", [Quirks.none(), Quirks.reference()], ids=["sane", "reference"])
def test_emphasis_is_that_of_the_texts_that_are_encoded(  # ENCODE-2, ENCODE-3
    fields: dict[str, Any], written: bool, quirks: Quirks
) -> None:
    job = planned(Settings(emphasis="Ignore", quirks=quirks), use_networks=False, **fields)
    assert notes_of(job) == ({"Emphasis": "Ignore"} if written else {})
    bracketless = planned(Settings(emphasis="None", quirks=quirks), use_networks=False, **fields)
    assert any("brackets" in each for each in bracketless.warnings) == written


# ---- Warnings ----


def test_warnings() -> None:
    table = table_of(SD1_SPEC, [data("cat", 1), data("dog", 1), data("tione", 1), replace(data("toy", 1), blocks={})])
    job = planned(prompt="a cat, tione and a TOY", negative_prompt="toys")
    word, skipped = conditioner(job, table)[0].warnings(job.batches[0])
    assert "'cat'" in word
    assert "'toy'" in skipped
    assert conditioner(planned(prompt="tione"), table)[0].warnings(job.batches[0][:0]) == ()


# ---- The second pass (SCHED) ----


def test_schedules_of_the_second_pass() -> None:
    job = planned(Settings(quirks=Quirks.reference()), prompt="x", steps=8)
    second = replace(job, sampler=replace(job.sampler, steps_before=8))
    made, _ = conditioner(second)
    cond = made.positive("a [cat:dog:0.5] [x:tree:1.5]")[0][0]
    assert [tuple(each) for each in cond.schedule] == [(4, "a dog x"), (8, "a dog tree")]
    assert len(cond.stages) == 2
    assert made.negative("[a:b:10]").schedule[0].end == 2
