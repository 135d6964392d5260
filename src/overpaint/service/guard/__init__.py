"""What stands between strangers and the routes: who may ask, how much, and what pictures are let in."""
