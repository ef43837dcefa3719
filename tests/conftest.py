"""One thread per worker: pytest runs several, and small tensors lose far more to the threads'
waiting than they win.

Commands that tests start as processes of their own inherit calm threads from here.
"""

from saelab.threads import calm

calm()  # before torch loads

from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture
def float64() -> Iterator[None]:
    """New tensors are of double precision, so that formulas can be compared to rounding."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
