"""How the conversions handle models of timm, mmcv, mmpretrain, MMDetection and Hugging Face.

Each library has a module that lists which attention and patch embeddings can be replaced, and how. The module is
imported only if a model is made of that library. `traits` holds what applies to models of all libraries.
"""
