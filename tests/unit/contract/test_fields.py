"""REQ-1: the fields that all jobs of the reference share, in its order and with its defaults."""

from __future__ import annotations

from dataclasses import fields

from overpaint.contract.fields import StableDiffusionProcessing


def test_a_job_may_be_given_by_position() -> None:
    job = StableDiffusionProcessing("model", "samples", "grids", "a cat")
    assert (job.sd_model, job.outpath_samples, job.outpath_grids, job.prompt) == ("model", "samples", "grids", "a cat")


def test_defaults_are_the_references() -> None:  # REQ-1
    job = StableDiffusionProcessing()
    assert (job.steps, job.cfg_scale, job.width, job.height) == (50, 7.0, 512, 512)
    assert (job.seed, job.subseed, job.batch_size, job.n_iter) == (-1, -1, 1, 1)
    assert job.override_settings_restore_afterwards and job.seed_enable_extras


def test_no_job_shares_a_value_with_another() -> None:
    """Lists and tables start as None; each job makes its own."""
    assert not [each.name for each in fields(StableDiffusionProcessing) if isinstance(each.default, list | dict)]
