"""The words that the package says its model knows are those that it was trained on."""

from __future__ import annotations

import numpy as np
from safetensors import safe_open

from overpaint.models.built_in import DATA, default_path, words_of
from overpaint.text.tokens import clip_tokenizer
from training.words import known_words

TABLE = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"


def test_the_list_is_that_of_the_captions() -> None:
    listed = (DATA / "words.txt").read_text("utf-8").split()
    assert listed == list(known_words())  # else: python -m training.words


def test_the_model_itself_tells_them_from_words_that_it_never_saw() -> None:
    with safe_open(default_path(), framework="numpy") as file:
        table = file.get_tensor(TABLE)
    encode = clip_tokenizer().encode
    (unknown,) = encode("cyberpunk")
    never_seen = table[unknown]
    assert np.array_equal(table[encode("submarine")[0]], never_seen)
    for word in words_of(default_path()):
        assert any(not np.array_equal(table[each], never_seen) for each in encode(word)), word
