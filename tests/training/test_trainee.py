"""Stopping and going on: nothing is lost, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.store import load_tensors, replacing, save_tensors
from training.trainee import Budget, Course, Losses, Trainee, step_generator, step_rng, train

_DEVICE = torch.device("cpu")
_COURSE = Course(rate=1e-2, warm_up=3, averaging=0.9)


def _trainee() -> Trainee:
    torch.manual_seed(5)
    return Trainee(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)), _COURSE)


def _train(trainee: Trainee, path: Path, steps: int, settling: float = 0.0) -> None:
    def loss_of(step: int) -> tuple[Tensor, Losses]:
        x = torch.randn(6, 4, generator=step_generator(3, step, _DEVICE))
        target = torch.from_numpy(step_rng(3, step).standard_normal((6, 1))).float()
        loss = (trainee.network(x) - target - x.sum(dim=1, keepdim=True)).pow(2).mean()
        return loss, {"loss": float(loss.detach())}

    train(trainee, path, Budget(minutes=1, steps=steps, report_steps=4, settling=settling), loss_of)


def test_resuming_is_exact(tmp_path: Path) -> None:
    whole, half = _trainee(), _trainee()
    _train(whole, tmp_path / "whole.pt", 12)
    _train(half, tmp_path / "half.pt", 5)
    resumed = _trainee()
    resumed.load(tmp_path / "half.pt")
    assert resumed.step == 5
    _train(resumed, tmp_path / "half.pt", 7)
    assert resumed.step == whole.step == 12
    for mine, theirs in zip((*resumed.weights, *resumed.averages), (*whole.weights, *whole.averages), strict=True):
        assert torch.equal(mine, theirs)
    kept, wanted = (load_tensors(tmp_path / f"{name}.pt")["optimizer"]["state"] for name in ("half", "whole"))
    assert all(torch.equal(kept[i]["exp_avg_sq"], wanted[i]["exp_avg_sq"]) for i in wanted)


def test_averages_follow_the_weights(tmp_path: Path) -> None:
    trainee = _trainee()
    _train(trainee, tmp_path / "a.pt", 8)
    names = [name for name, _ in trainee.network.named_parameters()]
    assert list(trainee.averaged()) == names
    assert not torch.equal(trainee.averages[0], trainee.weights[0].detach())
    assert "step 8" in (tmp_path / "a.log").read_text("utf-8")


def test_the_rate_rises_stays_and_settles(tmp_path: Path) -> None:
    rates = [_COURSE.rate_at(step, None, 0) for step in range(5)]
    assert rates == pytest.approx([0.01 / 3, 0.02 / 3, 0.01, 0.01, 0.01])
    assert _COURSE.rate_at(110, 100, 20) == pytest.approx(0.005)
    assert _COURSE.rate_at(200, 100, 20) == pytest.approx(0.0002)
    trainee = _trainee()
    trainee.settle(30)
    trainee.save(tmp_path / "settling.pt")
    again = _trainee()
    again.load(tmp_path / "settling.pt")
    assert (again.settle_from, again.settle_steps) == (0, 30)
    again.wake()
    assert again.settle_from == 0  # not settled yet
    again.step = 30
    again.wake()
    assert again.settle_from is None


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "kept.pt"
    save_tensors(path, {"x": torch.ones(2)})
    with pytest.raises(RuntimeError, match="stopped"), replacing(path) as unfinished:
        unfinished.write_text("half")
        raise RuntimeError("stopped")
    assert torch.equal(load_tensors(path)["x"], torch.ones(2))
    assert [each.name for each in path.parent.iterdir()] == ["kept.pt"]
