"""Masked convolutions and PixelCNNs: what NumPy is not asked for."""

from __future__ import annotations

from ..registry import lacks

for _kind in ("masked_conv", "masked_conv_both", "pixelcnn_step", "pixelcnn_sample"):
    lacks(_kind, "numpy", "has no convolution")
