"""What the conversions know of the models of timm, mmcv, mmpretrain, MMDetection and Hugging Face.

A module for each library says which attention and which patch embeddings can be replaced, and how; it is imported only
if a model is made of that library. `traits` holds what is known of all models.
"""
