"""Which words of a text mean an embedding of the model in place."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from overpaint.adapters.embedding_files import ALONE, CLIP_G, CLIP_L, EmbeddingData, bundled_embeddings
from overpaint.adapters.embeddings import NO_EMBEDDINGS, EmbeddingShelf, EmbeddingTable, table_of
from overpaint.models.families import SD1_SPEC, ModelSpec
from overpaint.text.tokens import clip_tokenizer

WIDTH = 768
_CLIP = SD1_SPEC.texts[0]
_OPENCLIP = replace(_CLIP, kind="openclip", width=1280)
REFINER_SPEC = replace(SD1_SPEC, family="sdxl-refiner", texts=(_OPENCLIP,))
SDXL_SPEC = replace(SD1_SPEC, family="sdxl", texts=(_CLIP, _OPENCLIP))


def single(name: str, vectors: int = 1, width: int = WIDTH) -> EmbeddingData:
    return EmbeddingData(name, "0123456789ab", f"digest of {name}", {ALONE: torch.ones(vectors, width)})


def pair(name: str, vectors: int = 1) -> EmbeddingData:
    return EmbeddingData(name, "ba", name, {CLIP_L: torch.ones(vectors, 768), CLIP_G: torch.zeros(vectors, 1280)})


def found_in(table: EmbeddingTable, text: str) -> list[tuple[str, int]]:
    """Where the walk over a text's tokens stops for which embedding."""
    ids = clip_tokenizer().encode(text)
    met, position = [], 0
    while position < len(ids):
        found = table.find(ids, position)
        if found is not None:
            assert any(found.embedding is each for each in table.embeddings)
            met.append((next(each.name for each in table.embeddings if each is found.embedding), position))
        position += found.length if found else 1
    return met


def names(table: EmbeddingTable) -> list[str]:
    return [each.name for each in table.embeddings]


# ---- Names (TI-1, TIF-5) ----


def test_longest_name_first() -> None:
    table = table_of(SD1_SPEC, [single("red"), single("red fur"), single("red fur coat")])
    assert found_in(table, "a red fur coat, red fur and a red hat") == [
        ("red fur coat", 1),
        ("red fur", 5),
        ("red", 9),
    ]


def test_names_are_matched_token_by_token() -> None:
    table = table_of(SD1_SPEC, [single("tione"), single("weird-toy 2")])
    assert [name for name, _ in found_in(table, "TIOne, Weird - Toy   2")] == ["tione", "weird-toy 2"]
    assert [name for name, _ in found_in(table, "a photo of tionecat and xtione")] == ["tione"]
    assert found_in(table, "weird-toy") == []


def test_names_of_the_same_tokens_belong_to_the_first() -> None:
    table = table_of(SD1_SPEC, [single("Fur"), single("fur")])
    assert [name for name, _ in found_in(table, "fur")] == ["Fur"]


def test_the_last_of_a_name_counts() -> None:
    table = table_of(SD1_SPEC, [single("fur", 1), single("cat"), single("fur", 3)])
    assert [(each.name, each.vectors) for each in table.embeddings] == [("fur", 3), ("cat", 1)]


def test_one_that_does_not_fit_replaces_none() -> None:
    table = table_of(SD1_SPEC, [single("fur"), pair("fur")])
    assert names(table) == ["fur"]
    assert [each.name for each in table.skipped] == ["fur"]


def test_a_name_without_tokens_is_never_met() -> None:
    table = table_of(SD1_SPEC, [single(" "), single("fur")])
    assert names(table) == ["fur"]
    assert "no text can name it" in table.skipped[0].reason


def test_no_embeddings() -> None:
    assert found_in(NO_EMBEDDINGS, "a cat") == []
    assert NO_EMBEDDINGS.missed("a cat") == ()


# ---- Widths (TIF-3) ----


@pytest.mark.parametrize(
    ("spec", "fitting"),
    [(SD1_SPEC, ["one"]), (SDXL_SPEC, ["two"]), (REFINER_SPEC, ["wide"])],
    ids=lambda each: each.family if isinstance(each, ModelSpec) else "",
)
def test_widths(spec: ModelSpec, fitting: list[str]) -> None:
    table = table_of(spec, [single("one"), pair("two"), single("wide", width=1280), single("both", width=2048)])
    assert names(table) == fitting
    assert len(table.skipped) == 3
    assert all("wide" in each.reason for each in table.skipped)


def test_each_encoder_has_its_own_vectors() -> None:
    (embedding,) = table_of(SDXL_SPEC, [pair("two", 4)]).embeddings
    assert [tuple(each.shape) for each in embedding.parts] == [(4, 768), (4, 1280)]
    assert embedding.vectors == 4


# ---- What a user should know ----


def test_ordinary_words() -> None:
    table = table_of(SD1_SPEC, [single("cat"), single("tione")])
    assert [table.is_ordinary_word(each) for each in table.embeddings] == [True, False]


def test_skipped_ones_that_a_text_names() -> None:
    table = table_of(SD1_SPEC, [pair("two"), pair("weird-toy 2")])
    assert [each.name for each in table.missed("a Weird-Toy 2 and two cats")] == ["two", "weird-toy 2"]
    assert table.missed("a twofold weird-toy 22") == ()
    assert table_of(SD1_SPEC, [pair("two"), single("two")]).missed("two") == ()


# ---- Bundles (LORA-9) ----


def test_bundled_ones_come_behind() -> None:
    table = table_of(SD1_SPEC, [single("fur")])
    key = "bundle_emb.{}.string_to_param.*"
    first = bundled_embeddings(
        "one", {key.format("fur"): torch.ones(2, WIDTH), key.format("toy"): torch.ones(2, WIDTH)}
    )
    second = bundled_embeddings("two", {key.format("toy"): torch.ones(3, WIDTH), key.format("xl"): torch.ones(3, 1280)})
    worn = table.with_bundled([*first, *second])
    assert [(each.name, each.vectors, each.tag) for each in worn.embeddings] == [
        ("fur", 1, "0123456789ab"),
        ("toy", 2, "one"),
    ]
    assert [name for name, _ in found_in(worn, "toy fur")] == ["toy", "fur"]
    assert worn != table
    assert worn == table.with_bundled(first)
    assert hash(worn) == hash(table.with_bundled(first))
    assert table.with_bundled(()) is table


# ---- Folders (TIF-4) ----


def write(path: Path, vectors: int = 1, width: int = WIDTH) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    save_file({"emb_params": torch.ones(vectors, width)}, path)


def test_a_folder_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "fur.safetensors")
    write(tmp_path / "below" / "toy.safetensors")
    shelf = EmbeddingShelf()
    table = shelf.table(tmp_path, SD1_SPEC)
    assert names(table) == ["fur", "toy"]
    assert shelf.table(str(tmp_path), SD1_SPEC) is table

    write(tmp_path / "toy.safetensors", 3)
    os.utime(tmp_path / "toy.safetensors", ns=(1, 1))
    again = shelf.table(tmp_path, SD1_SPEC)
    assert [(each.name, each.vectors) for each in again.embeddings] == [
        ("fur", 1),
        ("toy", 1),
    ]  # the deeper one is last
    (tmp_path / "below" / "toy.safetensors").unlink()
    last = shelf.table(tmp_path, SD1_SPEC)
    assert [(each.name, each.vectors) for each in last.embeddings] == [("fur", 1), ("toy", 3)]
    assert last.embeddings[0].parts[0] is table.embeddings[0].parts[0]

    write(tmp_path / "toy.safetensors", 2)
    assert shelf.table(tmp_path, SD1_SPEC).embeddings[1].vectors == 2


def test_a_table_for_each_model(tmp_path: Path) -> None:
    write(tmp_path / "fur.safetensors")
    write(tmp_path / "toy.safetensors", width=1280)
    shelf = EmbeddingShelf()
    assert names(shelf.table(tmp_path, SD1_SPEC)) == ["fur"]
    assert names(shelf.table(tmp_path, REFINER_SPEC)) == ["toy"]


def test_broken_neighbours_do_no_harm(tmp_path: Path) -> None:
    write(tmp_path / "fur.safetensors")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "broken.bin").write_bytes(b"PK not quite")
    (tmp_path / "astray.pt").symlink_to(tmp_path / "nowhere")
    table = EmbeddingShelf().table(tmp_path, SD1_SPEC)
    assert names(table) == ["fur"]
    assert [each.name for each in table.skipped] == ["broken", "empty"]
    assert "is empty" in table.skipped[1].reason


def test_no_folder(tmp_path: Path) -> None:
    assert names(EmbeddingShelf().table("", SD1_SPEC)) == []
    assert names(EmbeddingShelf().table(tmp_path / "none", SD1_SPEC)) == []


def test_a_file_that_breaks_its_reader_is_skipped_like_any_other_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that do not name it have no part in it."""
    (tmp_path / "broken.pt").write_bytes(b"x")

    def breaks(path: Path) -> None:
        raise MemoryError

    monkeypatch.setattr("overpaint.adapters.embeddings.read_embedding", breaks)
    table = EmbeddingShelf().table(tmp_path, SD1_SPEC)
    assert [each.name for each in table.skipped] == ["broken"] and "MemoryError" in table.skipped[0].reason
