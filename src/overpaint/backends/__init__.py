"""Who computes: one narrow class per backend. torch is the one that is always there."""
