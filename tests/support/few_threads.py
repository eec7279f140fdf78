"""How many threads the tests and the processes that they start compute with; import it before NumPy and PyTorch.

Threads that wait for work by spinning cost many times what the small arrays of the tests do, so there is one, unless
OMP_NUM_THREADS asks for more, and those of OpenMP sleep where a test takes several. The libraries read these variables
when they are loaded.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ["OMP_NUM_THREADS"])

COUNT = int(os.environ["OMP_NUM_THREADS"])
"""Number of threads of PyTorch in the process of the tests."""
