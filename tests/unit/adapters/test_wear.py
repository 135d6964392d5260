"""Networks in a model's weights: what is added, what is refused, and that all of it comes off bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from overpaint.adapters.lora import LoraFile, read_lora
from overpaint.adapters.wear import AdaptedNetworks, WornLora, adapted
from overpaint.backends.port import Networks
from overpaint.errors import CheckpointError
from overpaint.models.families import ModelSpec
from overpaint.networks.layers import Packable
from overpaint.settings import Quirks
from tests.unit.toy_loras import EDIT, INPAINT, SD1, SD2, SDXL, lora_of, network_file, toy_networks

SANE, REFERENCE = Quirks.none(), Quirks.reference()
TO_Q = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
OUR_TO_Q = "middle_block.1.transformer_blocks.0.attn1.to_q"
PROJ = "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj"
CONV = "lora_unet_mid_block_resnets_0_conv1"
FC1 = "lora_te_text_model_encoder_layers_0_mlp_fc1"
NORM = "lora_te_text_model_encoder_layers_0_layer_norm1"
FUSED = "lora_te_text_model_encoder_layers_1_self_attn"

Layers = Mapping[str, Mapping[str, Tensor]]


def values_of(networks: Networks) -> dict[str, Tensor]:
    """Every parameter, packed or not, as a copy."""
    found = {}
    for number, network in enumerate((networks.unet, *networks.texts)):
        for path, module in network.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                dense = module.dense_weight() if isinstance(module, Packable) and name == "weight" else parameter
                found[f"{number}.{path}.{name}"] = dense.detach().clone()
    return found


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def read(folder: Path, layers: Layers, spec: ModelSpec = SD1, name: str = "x") -> LoraFile:
    return read_lora(network_file(folder / f"{name}.safetensors", layers), spec, REFERENCE)


def product(parts: Mapping[str, Tensor]) -> Tensor:
    up, down = parts["lora_up.weight"], parts["lora_down.weight"]
    return (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:]) / down.shape[0]


@pytest.mark.parametrize("packed", [False, True])
def test_each_network_takes_its_own_multiplier(tmp_path: Path, packed: bool) -> None:  # LORA-5
    networks = toy_networks(SD1, packed=packed)
    bare = values_of(networks)
    layers = {TO_Q: lora_of((64, 64)), CONV: lora_of((64, 64, 3, 3)), PROJ: lora_of((512, 64)), FC1: lora_of((48, 24))}
    model = AdaptedNetworks(networks)
    assert model.wear([WornLora(read(tmp_path, layers), unet=0.5, te=-2.0)], SANE) == (0,)
    worn = values_of(networks)
    changed = {
        f"0.{OUR_TO_Q}.weight": product(layers[TO_Q]) * 0.5,
        "0.middle_block.0.in_layers.2.weight": product(layers[CONV]) * 0.5,
        "0.middle_block.1.transformer_blocks.0.ff.net.0.proj.weight": product(layers[PROJ]) * 0.5,
        "1.encoder.layers.0.mlp.fc1.weight": product(layers[FC1]) * -2,
    }
    for name, value in worn.items():
        torch.testing.assert_close(value, bare[name] + changed.get(name, torch.zeros(())), atol=1e-6, rtol=1e-6)
    model.bare()
    assert same(values_of(networks), bare)


def random_layers(seed: int) -> Layers:
    """Some layers of every sort, some of them without a bias of their own."""
    random = np.random.default_rng(seed)

    def tensor(*shape: int) -> Tensor:
        return torch.from_numpy(random.standard_normal(shape)).half()

    layers: dict[str, dict[str, Tensor]] = {
        TO_Q: lora_of((64, 64), seed=seed),
        CONV: {"diff": tensor(64, 64, 3, 3), "diff_b": tensor(64)},
        PROJ: {"weight": tensor(512), "on_input": torch.tensor(False)},
        f"{TO_Q[:-1]}k": {"diff": tensor(64, 64), "diff_b": tensor(64)},
        f"{TO_Q[:-1]}v": {"oft_blocks": tensor(4, 16, 16) / 9},
        NORM: {"w_norm": tensor(24), "b_norm": tensor(24)},
        **{f"{FUSED}_{part}_proj": lora_of((24, 24), seed=seed + i) for i, part in enumerate(("q", "k", "v", "out"))},
    }
    return {name: layers[name] for name in layers if random.random() < 0.7} or {TO_Q: layers[TO_Q]}


@pytest.mark.parametrize(
    ("spec", "packed", "dtype"),
    [(SD1, True, torch.float32), (SD2, True, torch.bfloat16), (SD2, False, torch.float32)],
    ids=["sd1 packed", "sd2 packed bfloat16", "sd2"],
)
def test_fifty_changes_leave_every_bit_as_it_was(
    tmp_path: Path, spec: ModelSpec, packed: bool, dtype: torch.dtype
) -> None:
    networks = toy_networks(spec, packed=packed, dtype=dtype)
    bare = values_of(networks)
    files = [read(tmp_path, random_layers(seed), spec, f"x{seed}") for seed in range(5)]
    random = np.random.default_rng(5)
    model = AdaptedNetworks(networks)
    seen: dict[object, dict[str, Tensor]] = {}
    for _ in range(50):
        chosen = tuple(int(i) for i in random.integers(0, 5, random.integers(0, 4)))
        quirks = REFERENCE if random.random() < 0.5 else SANE
        model.wear([WornLora(files[i], 0.5, 0.25) for i in chosen], quirks)
        now = values_of(networks)
        assert same(now, seen.setdefault((chosen, quirks), now))
        assert bool(chosen) or same(now, bare)
    model.bare()
    assert same(values_of(networks), bare)


def test_wearing_the_same_again_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = toy_networks(SD1)
    worn = [WornLora(read(tmp_path, {TO_Q: lora_of((64, 64))}), 0.5, 0.5)]
    model = AdaptedNetworks(networks)
    model.wear(worn, REFERENCE)

    def fail(*_: object) -> None:
        raise AssertionError("written to")

    monkeypatch.setattr(Packable, "set_weight", fail)
    model.wear(worn, REFERENCE)
    model.wear([worn[0]._replace(te=0.7)], REFERENCE)  # nothing of it is for the text encoder
    AdaptedNetworks(networks).wear(worn, REFERENCE)
    with pytest.raises(AssertionError, match="written to"):
        model.wear([], REFERENCE)


def test_a_change_that_fails_half_way_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = toy_networks(SD1)
    bare = values_of(networks)
    model = AdaptedNetworks(networks)
    worn = [WornLora(read(tmp_path, {TO_Q: lora_of((64, 64)), CONV: lora_of((64, 64, 3, 3))}))]
    with monkeypatch.context() as patched:
        write = Packable.set_weight
        calls = iter([write])

        def once(layer: Packable, weight: Tensor) -> None:
            next(calls)(layer, weight)

        patched.setattr(Packable, "set_weight", once)
        with pytest.raises(StopIteration):
            model.wear(worn, SANE)
    assert not same(values_of(networks), bare)
    model.bare()
    assert same(values_of(networks), bare)
    model.wear(worn, SANE)
    assert not same(values_of(networks), bare)


def test_models_that_share_a_text_encoder_share_what_is_in_it(tmp_path: Path) -> None:
    first = toy_networks(SD1)
    second = replace(toy_networks(SD1), texts=first.texts)
    bare = values_of(first)
    file = read(tmp_path, {FC1: lora_of((48, 24))})
    AdaptedNetworks(first).wear([WornLora(file)], SANE)
    AdaptedNetworks(second).wear([WornLora(file, te=0.5)], SANE)
    assert adapted(first.texts[0]) is adapted(second.texts[0])
    AdaptedNetworks(second).bare()
    assert same(values_of(first), bare)


def test_order_matters_where_the_weight_itself_is_asked(tmp_path: Path) -> None:  # LORA-6
    networks = toy_networks(SD1)
    plain = read(tmp_path, {TO_Q: lora_of((64, 64))}, name="plain")
    scaled = read(tmp_path, {TO_Q: {"weight": torch.full((64,), 0.5), "on_input": torch.tensor(False)}}, name="scaled")
    own = values_of(networks)[f"0.{OUR_TO_Q}.weight"]
    delta = product(lora_of((64, 64)))
    for order, expected in (((plain, scaled), (own + delta) * 1.5), ((scaled, plain), own * 1.5 + delta)):
        AdaptedNetworks(networks).wear([WornLora(each) for each in order], SANE)
        torch.testing.assert_close(values_of(networks)[f"0.{OUR_TO_Q}.weight"], expected, atol=1e-6, rtol=1e-6)


def test_one_file_worn_twice_counts_twice(tmp_path: Path) -> None:  # XN-7
    networks = toy_networks(SD1)
    file = read(tmp_path, {TO_Q: lora_of((64, 64))})
    AdaptedNetworks(networks).wear([WornLora(file, 0.3), WornLora(file, 0.4)], REFERENCE)
    twice = values_of(networks)
    AdaptedNetworks(networks).wear([WornLora(file, 0.7)], REFERENCE)
    for name, value in values_of(networks).items():
        torch.testing.assert_close(twice[name], value, atol=1e-6, rtol=1e-6)


def test_rounded_once(tmp_path: Path) -> None:  # LORA-6
    networks = toy_networks(SD1, dtype=torch.bfloat16)
    own = values_of(networks)[f"0.{OUR_TO_Q}.weight"]
    small = read(tmp_path, {TO_Q: {"diff": own.float() / 700}})  # lost when it is rounded alone
    for quirks in (SANE, REFERENCE):
        AdaptedNetworks(networks).wear([WornLora(small)] * 4, quirks)
        grown = values_of(networks)[f"0.{OUR_TO_Q}.weight"]
        once = (own.float() + own.float() / 700 * 4).bfloat16()
        assert torch.equal(grown, once) == (quirks is SANE)


def test_the_files_own_precision(tmp_path: Path) -> None:  # LORA-6
    networks = toy_networks(SD1)
    own = values_of(networks)[f"0.{OUR_TO_Q}.weight"]
    file = read(tmp_path, {TO_Q: {"diff": torch.zeros(64, 64).half()}})
    AdaptedNetworks(networks).wear([WornLora(file, 0.0)], REFERENCE)
    assert torch.equal(values_of(networks)[f"0.{OUR_TO_Q}.weight"], own.half().float())
    AdaptedNetworks(networks).wear([WornLora(file, 0.0)], SANE)
    assert torch.equal(values_of(networks)[f"0.{OUR_TO_Q}.weight"], own)


@pytest.mark.parametrize("packed", [False, True])
def test_a_layer_may_get_a_bias_it_never_had(tmp_path: Path, packed: bool) -> None:
    networks = toy_networks(SD1, packed=packed)
    layer = networks.unet.get_submodule(OUR_TO_Q)
    x = torch.ones(2, 64)
    bare = layer(x)
    file = read(tmp_path, {TO_Q: {"diff": torch.zeros(64, 64), "diff_b": torch.full((64,), 2.0)}})
    AdaptedNetworks(networks).wear([WornLora(file, 0.5)], SANE)
    torch.testing.assert_close(layer(x), bare + 1)
    AdaptedNetworks(networks).bare()
    assert "bias" not in dict(layer.named_parameters())
    assert torch.equal(layer(x), bare)


def fused_layers(parts: tuple[str, ...]) -> Layers:
    return {f"{FUSED}_{part}_proj": lora_of((24, 24), seed=i) for i, part in enumerate(parts)}


@pytest.mark.parametrize("spec", [SD2, SDXL], ids=lambda spec: spec.family)
def test_fused_attention(tmp_path: Path, spec: ModelSpec) -> None:  # LORA-6
    networks = toy_networks(spec)
    tower = networks.texts[-1]
    attention = "transformer.resblocks.1.attn"
    before = {name: value.clone() for name, value in tower.named_parameters()}
    layers = fused_layers(("q", "k", "v", "out"))
    if spec is SDXL:
        layers = {name.replace("lora_te_", "lora_te2_"): parts for name, parts in layers.items()}
    deltas = [product(parts) for parts in layers.values()]
    for quirks in (SANE, REFERENCE):
        assert AdaptedNetworks(networks).wear([WornLora(read(tmp_path, layers, spec), te=0.5)], quirks) == (0,)
        after = dict(tower.named_parameters())
        stacked = before[f"{attention}.in_proj_weight"] + torch.cat(deltas[:3]) / 2
        torch.testing.assert_close(after[f"{attention}.in_proj_weight"].detach(), stacked)
        out = before[f"{attention}.out_proj.weight"] + deltas[3] / 2
        torch.testing.assert_close(after[f"{attention}.out_proj.weight"].detach(), out)


def test_a_part_of_fused_attention(tmp_path: Path) -> None:  # LORA-6
    networks = toy_networks(SD2)
    bare = values_of(networks)
    file = read(tmp_path, fused_layers(("k",)), SD2)
    assert AdaptedNetworks(networks).wear([WornLora(file)], REFERENCE) == (0,)
    assert same(values_of(networks), bare)
    AdaptedNetworks(networks).wear([WornLora(file)], SANE)
    name = "1.transformer.resblocks.1.attn.in_proj_weight"
    changed = (values_of(networks)[name] != bare[name]).any(1)
    assert changed.tolist() == [False] * 24 + [True] * 24 + [False] * 24


@pytest.mark.parametrize("quirks", [SANE, REFERENCE])
def test_a_network_for_four_channels_in_a_layer_for_nine(tmp_path: Path, quirks: Quirks) -> None:  # LORA-6
    networks = toy_networks(INPAINT)
    own = values_of(networks)["0.input_blocks.0.0.weight"]
    parts = lora_of((32, 4, 3, 3))
    file = read(tmp_path, {"lora_unet_conv_in": parts}, INPAINT)
    assert AdaptedNetworks(networks).wear([WornLora(file)], quirks) == (0,)
    worn = values_of(networks)["0.input_blocks.0.0.weight"]
    torch.testing.assert_close(worn[:, :4], own[:, :4] + product(parts))
    assert torch.equal(worn[:, 4:], own[:, 4:])


def test_a_network_for_four_channels_in_a_layer_for_eight(tmp_path: Path) -> None:  # LORA-6
    networks = toy_networks(EDIT)
    file = read(tmp_path, {"lora_unet_conv_in": lora_of((32, 4, 3, 3))}, EDIT)
    assert AdaptedNetworks(networks).wear([WornLora(file)], REFERENCE) == (1,)
    assert AdaptedNetworks(networks).wear([WornLora(file)], SANE) == (0,)


def test_layers_that_do_not_fit(tmp_path: Path) -> None:  # LORA-6
    networks = toy_networks(SD1)
    bare = values_of(networks)
    good = read(tmp_path, {FC1: lora_of((48, 24)), TO_Q: lora_of((64, 64))}, name="good")
    bad = read(tmp_path, {TO_Q: lora_of((64, 32)), CONV: lora_of((64, 64)), FC1: lora_of((48, 24))}, name="bad")
    model = AdaptedNetworks(networks)
    message = r"bad\.safetensors: 2 layers do not fit .*\[64, 32\] where the model has \[64, 64\].*\[64, 64, 3, 3\]"
    with pytest.raises(CheckpointError, match=message):
        model.wear([WornLora(good), WornLora(bad)], SANE)
    assert same(values_of(networks), bare)
    assert model.wear([WornLora(good), WornLora(bad)], REFERENCE) == (0, 2)
    assert model.wear([WornLora(good), WornLora(bad)], REFERENCE) == (0, 2)
    worn = values_of(networks)
    AdaptedNetworks(networks).wear([WornLora(good, te=2.0)], REFERENCE)
    name = f"0.{OUR_TO_Q}.weight"
    assert torch.equal(worn[name], values_of(networks)[name])


def test_networks_that_are_off_are_not_looked_at(tmp_path: Path) -> None:
    networks = toy_networks(SD1)
    bad = read(tmp_path, {TO_Q: lora_of((64, 32))})
    assert AdaptedNetworks(networks).wear([WornLora(bad, unet=0.0)], SANE) == (0,)


def test_at_run_time_only_up_and_down_count(tmp_path: Path) -> None:  # LORA-7
    networks = toy_networks(SD1)
    parts = lora_of((64, 64))
    rich = read(tmp_path, {TO_Q: {**parts, "dora_scale": torch.ones(1, 64)}}, name="rich")
    plain = read(tmp_path, {TO_Q: parts}, name="plain")
    AdaptedNetworks(networks).wear([WornLora(plain)], SANE)
    expected = values_of(networks)
    AdaptedNetworks(networks).wear(
        [WornLora(rich, dyn=1)], replace(SANE, functional_loras_are_plain=True), functional=True
    )
    assert same(values_of(networks), expected)
    AdaptedNetworks(networks).wear([WornLora(rich, dyn=1)], SANE, functional=True)
    assert not same(values_of(networks), expected)


def test_pictures_change_and_come_back(tmp_path: Path) -> None:
    networks = toy_networks(SD1, packed=True)
    x, time, context = torch.ones(1, 4, 8, 8), torch.tensor([5.0]), torch.ones(1, 3, 24)
    with torch.no_grad():
        before = networks.unet(x, time, context)
        AdaptedNetworks(networks).wear([WornLora(read(tmp_path, {TO_Q: lora_of((64, 64))}))], SANE)
        assert not torch.equal(networks.unet(x, time, context), before)
        AdaptedNetworks(networks).bare()
        assert torch.equal(networks.unet(x, time, context), before)


def test_it_is_known_whether_its_network_is_bare(tmp_path: Path) -> None:
    networks = toy_networks(SD1)
    network = adapted(networks.unet)
    seen = [network.is_bare]
    AdaptedNetworks(networks).wear([WornLora(read(tmp_path, {TO_Q: lora_of((64, 64))}))], SANE)
    seen.append(network.is_bare)
    AdaptedNetworks(networks).bare()
    assert [*seen, network.is_bare] == [True, False, True]
