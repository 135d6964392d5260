"""From a plan to pictures: tensors, noise, the loop, and what an engine works with."""
