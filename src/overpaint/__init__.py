"""overpaint: paint over an existing picture with Stable Diffusion checkpoints."""
