"""What the prompts of a job hang on the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from overpaint.errors import RequestError
from overpaint.models.catalog import ModelFile
from overpaint.parts import Lora
from overpaint.planning.images import image_networks
from overpaint.planning.plans import Surroundings
from overpaint.request import Txt2ImgRequest
from overpaint.settings import Quirks, Settings

FILES = tuple(ModelFile(Path(folder, "ink.pt"), "ink", "ink") for folder in ("old", "new"))


def test_a_name_that_two_folders_share_is_refused_with_both() -> None:
    known, request = Surroundings(loras=FILES), Txt2ImgRequest(prompt="", loras=[Lora(name="ink")])
    with pytest.raises(RequestError, match=r"^prompt='ink': 2 files have this name; give one of old/ink, new/ink$"):
        image_networks(["a <lora:ink:1>"], Txt2ImgRequest(prompt=""), Settings(), known)
    with pytest.raises(RequestError, match=r"^loras='ink': 2 files"):
        image_networks([""], request, Settings(), known)
    (networks,), _ = image_networks(["a <lora:new/ink:1>"], Txt2ImgRequest(prompt=""), Settings(), known)
    assert [each.file for each in networks] == [FILES[1]]
    (networks,), _ = image_networks([""], request, Settings(quirks=Quirks.reference()), known)  # LORA-1
    assert [each.file for each in networks] == [FILES[1]]
