"""Support for long runs: processes, interrupts, progress, compilation, safe writing of files, style of figures."""
