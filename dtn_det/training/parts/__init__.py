"""Parts of classifiers for mmpretrain that it lacks; configs name them, and they are imported when they are built."""
