"""Everything before the encoder and after the decoder, with Pillow and numpy alone."""
