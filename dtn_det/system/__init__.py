"""What long runs need besides their task: safe files, processes, interrupts, progress, compilation and figures."""
