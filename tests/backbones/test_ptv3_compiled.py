"""Point Transformer V3 under torch.compile, whose graphs break where sizes are those of a cloud."""

from __future__ import annotations

import pytest
import torch
from tiny_ptv3 import grid_sampled, tiny


@pytest.mark.long
@pytest.mark.parametrize("name", ["ptv3_b", "ptv3_b_unet"])
def test_compiled(name: str) -> None:
    model = tiny(name)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        for x in (grid_sampled(60), grid_sampled(90, clouds=2)):
            torch.testing.assert_close(compiled(x), model(x), atol=1e-10, rtol=1e-10)
    torch._dynamo.reset()
