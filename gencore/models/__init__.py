"""Models: compose kernels, hold parameters, learn, sample, save and load."""

from gencore.models.pixelcnn import PixelCNN
from gencore.models.rbm import RBM
from gencore.models.vae import VAE

__all__ = ["RBM", "VAE", "PixelCNN"]
