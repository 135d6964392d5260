"""What `help()` tells of a request. Written by docs/generate.py, from docs/meanings.yaml."""

PAINT_HELP = """\
Fields:
    images: tuple[Picture, ...] = ()
        The source pictures. One serves the whole batch; several serve its places in order.
    prompt: str | tuple[str, ...] = ""
        What to paint. A list has one text per picture.
    negative_prompt: str | tuple[str, ...] = ""
        What not to paint. A list has one text per picture.
    styles: tuple[str, ...] = ()
        Names of styles, applied in order.
    strength: float | None = None
        How much may change; 0 gives the source back, 1 keeps only a hint of it. None: the model's own, which
        often is 0.75.
    width: int | None = None
        Width of the result. Left out, it is the source's, or for sources far above the model's native size
        less; without a source it is that native size. None: the source's own size.
    height: int | None = None
        Height of the result.
    resize_mode: ResizeMode = ResizeMode.STRETCH
        How a source of another shape becomes that size.
    mask: Picture | None = None
        Where to paint. White, or opaque where it has alpha: repaint.
    latent_mask: Picture | None = None
        A second mask for the latents alone, where it shall differ from the one that composites.
    invert_mask: bool = False
        Paint what the mask leaves black.
    mask_blur_x: int = 4
        How soft the mask's edge is, sideways, in pixels.
    mask_blur_y: int = 4
        How soft the mask's edge is, up and down.
    round_mask: bool = True
        Read gray as black or white; off keeps it for soft inpainting.
    only_masked: bool = False
        Paint the mask's surroundings at full size and paste them back.
    padding: int = 32
        Pixels round the mask that `only_masked` shows the network.
    masked_content: MaskedContent = MaskedContent.ORIGINAL
        What the masked part starts from.
    soft_inpainting: SoftInpainting | None = None
        Let the mask's gray say how much each place may change.
    strength_map: Picture | None = None
        A gray picture that says how much of `strength` each place has; white has all of it, black stays.
        Gray: how much of `strength` each place has.
    references: tuple[Picture, ...] = ()
        Of any size, in Python and in manifests perhaps as paths; only models such as Flux.1 Kontext look at
        any. What an edit model looks at beside the source.
    blend: Blend = "auto"
        How the painted part is laid in. `auto` mends colours near the mask's edge, inside it, where that
        hides the seam; `plain` leaves them. Colours near the mask's edge are mended where that hides the
        seam; "plain": never.
    seed: int | tuple[int, ...] = -1
        Where the noise comes from; -1 means a new one. A list has one per picture.
    variation_seed: int | tuple[int, ...] = -1
        A second seed to mix in; -1 means a new one.
    variation_strength: float = 0.0
        How much of it.
    seed_resize: tuple[int, int] | None = None
        Compose as the seed did at another size. (width, height) the seed was found at.
    batch_size: int = 1
        Pictures at once.
    iterations: int = 1
        Batches, one after another.
    sampler: str = "DPM++ 2M"
        The sampler, by name or alias; see samplers.md.
    scheduler: str = "Automatic"
        The noise schedule, by name or alias; see samplers.md.
    steps: int | None = None
        Steps at full strength; img2img runs `strength` of them. None: the model's own, which often is 20.
    cfg_scale: float | None = None
        How closely to follow the prompt. None: the model's own, which often is 7.
    image_cfg_scale: float | None = None
        How closely an edit model follows the picture.
    guidance: float | None = None
        How closely to follow the prompt, as a network is told that was made for it (Flux.1 dev). Told to
        networks that are made for it, such as Flux.1 dev; None: the family's own.
    eta: float | None = None
        Noise that ancestral samplers and DDIM add.
    s_churn: float | None = None
        Noise churned in by Euler, Heun and DPM2.
    s_tmin: float | None = None
        Smallest sigma that is churned.
    s_tmax: float | None = None
        Largest sigma that is churned.
    s_noise: float | None = None
        Factor on noise added while sampling.
    s_min_uncond: float | None = None
        Below this sigma the negative prompt is left out of every second step.
    noise_multiplier: float | None = None
        Factor on the noise laid over the source.
    tiling: bool | None = None
        A picture that repeats without a seam.
    color_correction: bool | None = None
        Give the result the source's colours.
    clip_skip: int | None = None
        Which layer of the text encoder is read, counted from the last.
    loras: tuple[Lora, ...] = ()
        LoRAs and their kin, see below. Beside those that the prompt's tags name.
    use_networks: bool = True
        Apply the prompt's `<lora:...>` tags. False: the prompt's tags are read and left out.
    controls: tuple[ControlUnit, ...] = ()
        ControlNets and the pictures they follow, see below.
    checkpoint: str | None = None
        The checkpoint this job is for. Title, hash or file name; None: the one in force.
    refiner: str | None = None
        A title, hash or file name. Another checkpoint for the last part of the steps.
    refiner_switch_at: float | None = None
        When it does, as a fraction of the way. None: 0.8.
    overrides: Mapping[str, Any]
        Options, see settings.md. Option name -> value, for this job.
    exact: bool = False
        Neighbours in a batch cannot change a bit of a picture. Never share a network call between pictures.
    hires: Hires | None = None
        A second pass over the picture, enlarged.
"""

IMG2IMG_HELP = """\
Fields:
    images: tuple[Picture, ...]
        The source pictures. One serves the whole batch; several serve its places in order.
    prompt: str | tuple[str, ...] = ""
        What to paint. A list has one text per picture.
    negative_prompt: str | tuple[str, ...] = ""
        What not to paint. A list has one text per picture.
    styles: tuple[str, ...] = ()
        Names of styles, applied in order.
    strength: float | None = None
        How much may change; 0 gives the source back, 1 keeps only a hint of it. None: the model's own, which
        often is 0.75.
    width: int | None = None
        Width of the result. Left out, it is the source's, or for sources far above the model's native size
        less; without a source it is that native size. None: the source's own size.
    height: int | None = None
        Height of the result.
    resize_mode: ResizeMode = ResizeMode.STRETCH
        How a source of another shape becomes that size.
    mask: Picture | None = None
        Where to paint. White, or opaque where it has alpha: repaint.
    latent_mask: Picture | None = None
        A second mask for the latents alone, where it shall differ from the one that composites.
    invert_mask: bool = False
        Paint what the mask leaves black.
    mask_blur_x: int = 4
        How soft the mask's edge is, sideways, in pixels.
    mask_blur_y: int = 4
        How soft the mask's edge is, up and down.
    round_mask: bool = True
        Read gray as black or white; off keeps it for soft inpainting.
    only_masked: bool = False
        Paint the mask's surroundings at full size and paste them back.
    padding: int = 32
        Pixels round the mask that `only_masked` shows the network.
    masked_content: MaskedContent = MaskedContent.ORIGINAL
        What the masked part starts from.
    soft_inpainting: SoftInpainting | None = None
        Let the mask's gray say how much each place may change.
    strength_map: Picture | None = None
        A gray picture that says how much of `strength` each place has; white has all of it, black stays.
        Gray: how much of `strength` each place has.
    references: tuple[Picture, ...] = ()
        Of any size, in Python and in manifests perhaps as paths; only models such as Flux.1 Kontext look at
        any. What an edit model looks at beside the source.
    blend: Blend = "auto"
        How the painted part is laid in. `auto` mends colours near the mask's edge, inside it, where that
        hides the seam; `plain` leaves them. Colours near the mask's edge are mended where that hides the
        seam; "plain": never.
    seed: int | tuple[int, ...] = -1
        Where the noise comes from; -1 means a new one. A list has one per picture.
    variation_seed: int | tuple[int, ...] = -1
        A second seed to mix in; -1 means a new one.
    variation_strength: float = 0.0
        How much of it.
    seed_resize: tuple[int, int] | None = None
        Compose as the seed did at another size. (width, height) the seed was found at.
    batch_size: int = 1
        Pictures at once.
    iterations: int = 1
        Batches, one after another.
    sampler: str = "DPM++ 2M"
        The sampler, by name or alias; see samplers.md.
    scheduler: str = "Automatic"
        The noise schedule, by name or alias; see samplers.md.
    steps: int | None = None
        Steps at full strength; img2img runs `strength` of them. None: the model's own, which often is 20.
    cfg_scale: float | None = None
        How closely to follow the prompt. None: the model's own, which often is 7.
    image_cfg_scale: float | None = None
        How closely an edit model follows the picture.
    guidance: float | None = None
        How closely to follow the prompt, as a network is told that was made for it (Flux.1 dev). Told to
        networks that are made for it, such as Flux.1 dev; None: the family's own.
    eta: float | None = None
        Noise that ancestral samplers and DDIM add.
    s_churn: float | None = None
        Noise churned in by Euler, Heun and DPM2.
    s_tmin: float | None = None
        Smallest sigma that is churned.
    s_tmax: float | None = None
        Largest sigma that is churned.
    s_noise: float | None = None
        Factor on noise added while sampling.
    s_min_uncond: float | None = None
        Below this sigma the negative prompt is left out of every second step.
    noise_multiplier: float | None = None
        Factor on the noise laid over the source.
    tiling: bool | None = None
        A picture that repeats without a seam.
    color_correction: bool | None = None
        Give the result the source's colours.
    clip_skip: int | None = None
        Which layer of the text encoder is read, counted from the last.
    loras: tuple[Lora, ...] = ()
        LoRAs and their kin, see below. Beside those that the prompt's tags name.
    use_networks: bool = True
        Apply the prompt's `<lora:...>` tags. False: the prompt's tags are read and left out.
    controls: tuple[ControlUnit, ...] = ()
        ControlNets and the pictures they follow, see below.
    checkpoint: str | None = None
        The checkpoint this job is for. Title, hash or file name; None: the one in force.
    refiner: str | None = None
        A title, hash or file name. Another checkpoint for the last part of the steps.
    refiner_switch_at: float | None = None
        When it does, as a fraction of the way. None: 0.8.
    overrides: Mapping[str, Any]
        Options, see settings.md. Option name -> value, for this job.
    exact: bool = False
        Neighbours in a batch cannot change a bit of a picture. Never share a network call between pictures.
"""

TXT2IMG_HELP = """\
Fields:
    prompt: str | tuple[str, ...] = ""
        What to paint. A list has one text per picture.
    negative_prompt: str | tuple[str, ...] = ""
        What not to paint. A list has one text per picture.
    styles: tuple[str, ...] = ()
        Names of styles, applied in order.
    width: int | None = None
        Width of the result. Left out, it is the source's, or for sources far above the model's native size
        less; without a source it is that native size. None: the source's own size.
    height: int | None = None
        Height of the result.
    references: tuple[Picture, ...] = ()
        Of any size, in Python and in manifests perhaps as paths; only models such as Flux.1 Kontext look at
        any. What an edit model looks at beside the source.
    seed: int | tuple[int, ...] = -1
        Where the noise comes from; -1 means a new one. A list has one per picture.
    variation_seed: int | tuple[int, ...] = -1
        A second seed to mix in; -1 means a new one.
    variation_strength: float = 0.0
        How much of it.
    seed_resize: tuple[int, int] | None = None
        Compose as the seed did at another size. (width, height) the seed was found at.
    batch_size: int = 1
        Pictures at once.
    iterations: int = 1
        Batches, one after another.
    sampler: str = "DPM++ 2M"
        The sampler, by name or alias; see samplers.md.
    scheduler: str = "Automatic"
        The noise schedule, by name or alias; see samplers.md.
    steps: int | None = None
        Steps at full strength; img2img runs `strength` of them. None: the model's own, which often is 20.
    cfg_scale: float | None = None
        How closely to follow the prompt. None: the model's own, which often is 7.
    guidance: float | None = None
        How closely to follow the prompt, as a network is told that was made for it (Flux.1 dev). Told to
        networks that are made for it, such as Flux.1 dev; None: the family's own.
    eta: float | None = None
        Noise that ancestral samplers and DDIM add.
    s_churn: float | None = None
        Noise churned in by Euler, Heun and DPM2.
    s_tmin: float | None = None
        Smallest sigma that is churned.
    s_tmax: float | None = None
        Largest sigma that is churned.
    s_noise: float | None = None
        Factor on noise added while sampling.
    s_min_uncond: float | None = None
        Below this sigma the negative prompt is left out of every second step.
    noise_multiplier: float | None = None
        Factor on the noise laid over the source.
    tiling: bool | None = None
        A picture that repeats without a seam.
    clip_skip: int | None = None
        Which layer of the text encoder is read, counted from the last.
    loras: tuple[Lora, ...] = ()
        LoRAs and their kin, see below. Beside those that the prompt's tags name.
    use_networks: bool = True
        Apply the prompt's `<lora:...>` tags. False: the prompt's tags are read and left out.
    controls: tuple[ControlUnit, ...] = ()
        ControlNets and the pictures they follow, see below.
    checkpoint: str | None = None
        The checkpoint this job is for. Title, hash or file name; None: the one in force.
    refiner: str | None = None
        A title, hash or file name. Another checkpoint for the last part of the steps.
    refiner_switch_at: float | None = None
        When it does, as a fraction of the way. None: 0.8.
    overrides: Mapping[str, Any]
        Options, see settings.md. Option name -> value, for this job.
    exact: bool = False
        Neighbours in a batch cannot change a bit of a picture. Never share a network call between pictures.
    hires: Hires | None = None
        A second pass over the picture, enlarged.
"""
