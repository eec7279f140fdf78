"""What the conversions know of the models of timm, mmcv, mmpretrain, MMDetection and Hugging Face.

A module for each library tells which attention and which patch embeddings can be replaced, and how; it is imported
where a model is made of that library. `traits` holds what is known of all models.
"""
