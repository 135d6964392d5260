"""The pictures of a job: their texts, seeds and networks, and which of them are painted together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from overpaint.adapters.wanted import HypernetUse, LoraUse, uses_of
from overpaint.errors import RequestError
from overpaint.hints import did_you_mean, listed
from overpaint.models.catalog import HYPERNETWORK, LORA, ModelFile, at_place, find_file, near_or_known
from overpaint.planning.plans import ImagePlan, NetworkPlan, Surroundings
from overpaint.planning.prompt_weights import check_use
from overpaint.request import PaintRequest
from overpaint.seeds import fix_seed, spread_seeds
from overpaint.settings import Settings
from overpaint.text.prompt import NetworkTag, strip_comments, take_network_tags
from overpaint.text.styles import Style, apply_styles, find_styles


def plan_images(
    request: PaintRequest, settings: Settings, known: Surroundings
) -> tuple[tuple[ImagePlan, ...], tuple[str, ...]]:
    """Every picture of the job, and comments on networks that were not found."""
    prompts, negatives = plan_texts(request, settings, known)
    seeds = _seeds("seed", request.seed, len(prompts), constant=request.variation_strength != 0)
    subseeds = _seeds("variation_seed", request.variation_seed, len(prompts))
    networks, comments = image_networks(prompts, request, settings, known)
    size = _iteration_size(request, settings)
    places = [i % size for i in range(len(prompts))]
    together = zip(prompts, negatives, seeds, subseeds, places, networks, strict=True)
    return tuple(ImagePlan(i, *each) for i, each in enumerate(together)), comments


def names_networks(request: PaintRequest, settings: Settings) -> bool:
    """Whether a job may want any: only then are their folders read."""
    named = settings.sd_lora not in ("", "None") or settings.sd_hypernetwork not in ("", "None")
    prompts = [request.prompt] if isinstance(request.prompt, str) else list(request.prompt)
    if request.hires:
        hires = request.hires.prompt
        prompts += [hires] if isinstance(hires, str) else hires
    tagged = named or bool(request.styles) or any(take_network_tags(each)[1] for each in prompts)
    return tagged or bool(request.loras)


def image_networks(
    prompts: Sequence[str], request: PaintRequest, settings: Settings, known: Surroundings
) -> tuple[list[tuple[NetworkPlan, ...]], tuple[str, ...]]:
    """The networks of each prompt, and comments. The reference reads only the first prompt of a batch (XN-3)."""
    size, missing = _iteration_size(request, settings), dict[str, None]()
    networks: list[tuple[NetworkPlan, ...]] = []
    for i, prompt in enumerate(prompts):
        if settings.quirks.first_prompt_rules_networks and i % size:
            networks.append(networks[-1])
            continue
        found, unknown = _networks(prompt, request, settings, known)
        missing.update(dict.fromkeys(unknown))
        networks.append(found)
    return networks, (f"Lora not found: {', '.join(missing)}",) if missing else ()


def plan_texts(request: PaintRequest, settings: Settings, known: Surroundings) -> tuple[list[str], list[str]]:
    """Prompt lists (JOB-3) with styles in, comments out, and the networks of the options appended (XN-8)."""
    prompts, negatives = _prompt_lists(request, settings)
    chosen = _chosen_styles(request, known.styles, settings)
    prompts = [apply_styles(each, [style.prompt for style in chosen]) for each in prompts]
    negatives = [apply_styles(each, [style.negative_prompt for style in chosen]) for each in negatives]
    if settings.enable_prompt_comments:
        prompts = [strip_comments(each) for each in prompts]
        negatives = [strip_comments(each) for each in negatives]
    return [_with_options(each, settings) for each in prompts], negatives


def _with_options(prompt: str, settings: Settings) -> str:
    """XN-8: a network that the options name hangs on every picture, unless its prompt names it already."""
    tags = take_network_tags(prompt)[1]
    for kind, name in (("lora", settings.sd_lora), ("hypernet", settings.sd_hypernetwork)):
        if name not in ("", "None") and name not in {tag.args[0] for tag in tags if tag.name == kind and tag.args}:
            prompt += f"<{kind}:{name}:{settings.extra_networks_default_multiplier}>"
    return prompt


def _networks(
    prompt: str, request: PaintRequest, settings: Settings, known: Surroundings
) -> tuple[tuple[NetworkPlan, ...], list[str]]:
    """The networks that a prompt's tags and the request name, in that order, and the names that are unknown (XN-7)."""
    tags: Sequence[NetworkTag] = take_network_tags(prompt)[1] if request.use_networks else ()
    uses: list[LoraUse | HypernetUse] = list(uses_of(tags, settings.quirks))
    from_tags = len(uses)
    for lora in request.loras:
        text = lora.weight if lora.text_weight is None else lora.text_weight
        uses.append(LoraUse(lora.name, unet=lora.weight, te=text, dyn=None))
    found: list[NetworkPlan] = []
    missing: list[str] = []
    for place, use in enumerate(uses):
        check_use(use)
        is_lora = isinstance(use, LoraUse)
        files = known.loras if is_lora else known.hypernets
        field, as_reference = "prompt" if place < from_tags else "loras", settings.quirks.unknown_names_fall_back
        if not as_reference:
            _refuse_shared(field, use, files)
        file = find_file(files, use.name, by_place=not as_reference)
        if file is not None:
            found.append(NetworkPlan(file, use))
        elif not as_reference:
            _refuse_unknown(field, use, known)
        elif is_lora:  # an unknown hypernetwork passes in silence (HYP-1)
            missing.append(use.name)
    return tuple(found), missing


def _refuse_shared(field: str, use: LoraUse | HypernetUse, files: Sequence[ModelFile]) -> None:
    """A name that files of several folders have; the reference takes the last of them (LORA-1)."""
    named = [each.path for each in files if each.name == use.name] or at_place((each.path for each in files), use.name)
    if len({each.parent for each in named}) > 1:
        places = listed(f"{each.parent.name}/{each.stem}" for each in named)
        raise RequestError(field, use.name, f"{len(named)} files have this name; give one of {places}")


def _refuse_unknown(field: str, use: LoraUse | HypernetUse, known: Surroundings) -> None:
    is_lora = isinstance(use, LoraUse)
    kind, files = (LORA, known.loras) if is_lora else (HYPERNETWORK, known.hypernets)
    remedy = near_or_known(use.name, files, f"none is known; set the option {kind.option}")
    raise RequestError(field, use.name, f"there is no such {kind.what}; {remedy}")


def _seeds(name: str, given: int | tuple[int, ...], count: int, *, constant: bool = False) -> tuple[int, ...]:
    seeds = spread_seeds(fix_seed(given), count, constant=constant)
    if len(seeds) < count:
        raise RequestError(name, given, f"give {count} seeds, one a picture, or a single one to count from")
    return seeds[:count]


def _prompt_lists(request: PaintRequest, settings: Settings) -> tuple[list[str], list[str]]:
    wanted = request.batch_size * request.iterations
    given = [each for each in (request.prompt, request.negative_prompt) if isinstance(each, tuple)]
    count = len(given[0]) if given else wanted
    if count != wanted and not settings.quirks.short_prompt_lists:
        name = "prompt" if isinstance(request.prompt, tuple) else "negative_prompt"
        raise RequestError(name, f"{count} texts", f"give {wanted}, one for each of batch_size x iterations pictures")
    both = (request.prompt, request.negative_prompt)
    prompts, negatives = (list(each) if isinstance(each, tuple) else [each] * count for each in both)
    return prompts, negatives


def _chosen_styles(request: PaintRequest, styles: Sequence[Style], settings: Settings) -> tuple[Style, ...]:
    """STY-2: the reference takes an unknown name for an empty style."""
    unknown = [name for name in request.styles if name not in {each.name for each in styles}]
    if unknown and not settings.quirks.unknown_names_fall_back:
        names = [each.name for each in styles]
        known = did_you_mean(unknown[0], names) or f"known: {listed(names)}"
        known = known if names else "none is known; set the option styles_file"
        raise RequestError("styles", unknown[0], f"there is no such style; {known}")
    return find_styles(request.styles, styles)


def plan_batches(
    images: tuple[ImagePlan, ...],
    request: PaintRequest,
    settings: Settings,
    other_pass: tuple[ImagePlan, ...] = (),
) -> tuple[tuple[ImagePlan, ...], ...]:
    """Pictures by iteration (JOB-4.3), and within it by the networks they want, for these change the weights.

    With another pass, whose networks count as well, both passes are cut alike.
    """
    size = _iteration_size(request, settings)
    pairs = tuple(zip(images, other_pass or images, strict=True))
    slices = (pairs[n * size : (n + 1) * size] for n in range(request.iterations))
    return tuple(part for each in slices if each for part in _alike(each))


def _alike(pairs: Iterable[tuple[ImagePlan, ImagePlan]]) -> Iterable[tuple[ImagePlan, ...]]:
    alike = groupby(pairs, key=lambda pair: [each.networks for each in pair])
    return (tuple(image for image, _ in group) for _, group in alike)


def _iteration_size(request: PaintRequest, settings: Settings) -> int:
    """Pictures of one iteration; in the reference a batch with fewer sources than places shrinks (IMG-3)."""
    shrinks = settings.quirks.fewer_images_shrink_batch and 1 < len(request.images) < request.batch_size
    return len(request.images) if shrinks else request.batch_size
