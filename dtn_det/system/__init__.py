"""Support for long runs: safe writing of files, processes, interrupts, progress, compilation, the style of figures."""
