"""The three networks. Parameter names are the checkpoint's, so that loading needs no table of names."""
