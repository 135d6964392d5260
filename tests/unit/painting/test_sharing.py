"""Which jobs share a call, and how large it may be."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from overpaint.painting.sharing import (
    BYTES_PER_CELL,
    MOST_JOBS,
    MOST_ROWS,
    PART_OF_FREE,
    company,
    jobs_at_once,
    rows_in,
    rows_per_call,
)
from overpaint.settings import Settings
from tests.unit.toy_job import planned


def test_on_a_cpu_each_job_has_its_own_calls() -> None:
    assert rows_per_call(torch.device("cpu"), 64 * 64) == 1
    assert jobs_at_once(torch.device("cpu"), 512) == 1


def test_as_many_rows_as_memory_has_room_for() -> None:
    row = BYTES_PER_CELL * 64 * 64
    assert rows_in(0, 64 * 64) == 1
    assert rows_in(int(6 * row / PART_OF_FREE), 64 * 64) == 6
    assert rows_in(int(6 * row / PART_OF_FREE) - 1, 64 * 64) == 5
    assert rows_in(10**15, 64 * 64) == MOST_ROWS


def test_a_large_gpu_takes_no_more_jobs_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overpaint.painting.sharing.rows_per_call", lambda device, cells: 10_000)
    assert jobs_at_once(torch.device("cuda"), 512) == MOST_JOBS
    monkeypatch.setattr("overpaint.painting.sharing.rows_per_call", lambda device, cells: 5)
    assert jobs_at_once(torch.device("cuda"), 512) == 2


@pytest.mark.parametrize(
    "fields",
    [{"seed": 9}, {"steps": 9}, {"sampler": "DDIM"}, {"strength": 0.3}, {"prompt": "a dog"}, {"cfg_scale": 2.0}],
)
def test_jobs_with_the_same_models_keep_company(fields: dict[str, Any]) -> None:
    assert company(planned()) == company(planned(**fields))


@pytest.mark.parametrize("option", [{"sd_vae": "other"}, {"tiling": True}, {"lora_functional": True}])
def test_jobs_that_need_other_weights_do_not(option: dict[str, Any]) -> None:
    assert company(planned()) != company(planned(Settings().with_changes(option)))
