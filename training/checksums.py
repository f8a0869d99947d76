"""Record the SHA-256 of the shipped files that are made by training: `make checksums`, after each that makes one."""

from __future__ import annotations

import json

from jargon_rag.calibration import FILE
from jargon_rag.embedder import LORA
from jargon_rag.models import ADAPTER_CONFIG, ADAPTER_FILE, sha256
from jargon_rag.paths import CHECKSUMS, shipped_folder, write_atomic


def main() -> None:
    """Write `src/jargon_rag/checksums.json`."""
    files = [FILE, *(shipped_folder("adapter") / name for name in (ADAPTER_CONFIG, ADAPTER_FILE, LORA))]
    recorded = {file.name: sha256(file) for file in files}
    write_atomic(CHECKSUMS, (json.dumps(recorded, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
