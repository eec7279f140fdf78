"""What long work needs of the machine: files, processes, interrupts, progress, compilation and figures."""
