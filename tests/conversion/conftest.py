"""Fixtures of the tests of conversions."""

from __future__ import annotations

import pytest
from conversion_models import small_vit
from torch import nn


@pytest.fixture
def vit() -> nn.Module:
    return small_vit()
