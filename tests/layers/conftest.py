import pytest

from dtn_det.layers.kernels import cpu


@pytest.fixture(params=["native", "plain"])
def backend(request, monkeypatch):
    """Run a test with the compiled kernels and with plain PyTorch."""
    if request.param == "plain":
        monkeypatch.setattr(cpu, "is_usable", lambda x: False)
    elif not cpu.status().available:
        pytest.skip(f"compiled kernels: {cpu.status().detail}")
    return request.param
