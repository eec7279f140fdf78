"""What conversions know of each library's models: timm, mmpretrain, MMDetection and Hugging Face."""
