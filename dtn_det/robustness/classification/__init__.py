"""Classifiers under every corruption: mCE on ImageNet-C and sets like it."""
