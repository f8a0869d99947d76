"""The Hugging Face Space's entry: the web chat on the shipped glossary."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))  # a Space installs requirements.txt, not this package
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "300000")  # see jargon_rag.cli

try:
    import spaces  # every Space has it; on ZeroGPU it must come before torch

    on_gpu = spaces.GPU
except ImportError:

    def on_gpu(task: Callable[[], str]) -> Callable[[], str]:
        """Leave a function as it is: this machine is no Space."""
        return task


from jargon_rag import JargonRAG
from jargon_rag.models import pull
from jargon_rag.paths import default_cache_dir
from jargon_rag.ui.page import launch


@on_gpu  # type: ignore[untyped-decorator]  # spaces has no types
def device() -> str:
    """Name the device of a GPU call. ZeroGPU refuses a Space without one; answers are written on the CPU, fast enough."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load(say: Callable[[str], None]) -> JargonRAG:
    """Fetch the weights if this machine has none, and load the bot."""
    cache_dir = Path(os.environ.get("JARGON_RAG_CACHE") or default_cache_dir())
    pull(cache_dir=cache_dir, say=say)
    rag = JargonRAG(cache_dir=cache_dir, say=say)
    rag.load()
    return rag


if __name__ == "__main__":
    launch(
        load,
        host=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
    )
