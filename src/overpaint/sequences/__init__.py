"""Tools that paint more than once: outpainting, loopback, enlarging in tiles, grids."""
