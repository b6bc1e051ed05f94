"""Models: compose kernels, hold parameters, learn, sample, save and load."""

from gencore.models.eonade import EoNADE
from gencore.models.fvbn import FVBN
from gencore.models.made import MADE
from gencore.models.nade import NADE
from gencore.models.pixelcnn import GatedPixelCNN, PixelCNN
from gencore.models.pixelrnn import DiagonalBiLSTM, RowLSTM
from gencore.models.rbm import RBM
from gencore.models.vae import VAE

__all__ = [
    "FVBN",
    "MADE",
    "NADE",
    "RBM",
    "VAE",
    "DiagonalBiLSTM",
    "EoNADE",
    "GatedPixelCNN",
    "PixelCNN",
    "RowLSTM",
]
