"""Independent truth: NumPy in float64, written from papers and formulas, never from the kernels."""
