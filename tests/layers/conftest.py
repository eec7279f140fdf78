import pytest

from dtn_det.layers.kernels import cpu as native


@pytest.fixture(params=["native", "plain"])
def backend(request, monkeypatch):
    """Run a test with the compiled kernels and with plain PyTorch."""
    if request.param == "plain":
        monkeypatch.setattr(native, "is_usable", lambda x: False)
    elif not native.status().available:
        pytest.skip(f"compiled kernels: {native.status().detail}")
    return request.param
