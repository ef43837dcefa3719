"""One thread per worker: pytest runs several, and small tensors lose far more to the threads'
waiting than they win.

Commands that tests start as processes of their own inherit calm threads from here.
"""

from saelab.threads import calm

calm()  # before torch loads

import torch  # noqa: E402

torch.set_num_threads(1)
