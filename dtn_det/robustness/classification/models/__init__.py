"""Classifiers from timm, mmpretrain or the user's code, under one interface."""
