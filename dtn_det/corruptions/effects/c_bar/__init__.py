"""The fifteen corruptions of ImageNet-C-bar and CIFAR-10-C-bar, one file for each kind.

Each is a frozen dataclass of what is drawn for an image, a function that draws it from the image's stream, and a
function of the image and these parameters that draws nothing. All are defined for square images of any side; the
lengths that scale with the side do so here as in the generator of the benchmarks' authors: Mintun et al.,
arXiv:2102.11273; github.com/facebookresearch/augmentation-corruption, imagenet_c_bar/corrupt.py, MIT licence.
"""
