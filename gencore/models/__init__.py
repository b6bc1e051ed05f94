"""Models: compose kernels, hold parameters, learn, sample, save and load."""

from gencore.models.nade import NADE
from gencore.models.pixelcnn import GatedPixelCNN, PixelCNN
from gencore.models.pixelrnn import DiagonalBiLSTM, RowLSTM
from gencore.models.rbm import RBM
from gencore.models.vae import VAE

__all__ = ["NADE", "RBM", "VAE", "DiagonalBiLSTM", "GatedPixelCNN", "PixelCNN", "RowLSTM"]
