"""The fifteen corruptions of ImageNet-C-bar and CIFAR-10-C-bar, one file for each kind.

Each corruption has three parts: a frozen dataclass of random parameters, a function that draws them from the image's
stream, and a function that applies them without further randomness. All are defined for square images of any side.
Lengths scale with the side as in the generator of the benchmarks' authors: Mintun et al., arXiv:2102.11273;
github.com/facebookresearch/augmentation-corruption, imagenet_c_bar/corrupt.py, MIT licence.
"""
