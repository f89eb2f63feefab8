"""Writes all.npz: float64 queries, Fortran-order keys, half values, a boolean mask, 64-bit lengths."""
import sys

try:
    import numpy as np
except ImportError:
    sys.exit(3)

rng = np.random.default_rng(1)
np.savez_compressed(
    "all.npz",
    q=rng.standard_normal((2, 4, 9, 8)),
    k=np.asfortranarray(rng.standard_normal((2, 2, 13, 8)).astype(np.float32)),
    v=rng.standard_normal((2, 2, 13, 6)).astype(np.float16),
    mask=rng.random((2, 1, 9, 13)) < 0.8,
    lengths=np.array([7, 13]),
)
