"""`isometry scene demo` on nothing but the core and the scene extra."""

from __future__ import annotations

import queue
import re
import signal
import subprocess
import sys
import threading
import urllib.request

ONLY_THE_EXTRA = """
import sys
for name in ("torch", "transformers", "sentence_transformers", "faiss", "fastapi", "matplotlib", "umap"):
    sys.modules[name] = None
from isometry.cli.main import main
main(["scene", "demo", "--no-browser", "--port", "0"])
"""


def test_it_opens_without_the_other_extras_and_stops_when_told():
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", ONLY_THE_EXTRA], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines: queue.Queue = queue.Queue()
    threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()
    try:
        said = lines.get(timeout=200)
        address = re.search(r"http://127\.0\.0\.1:\d+/", said)
        assert address and said.startswith("table with three soft objects: "), said
        with urllib.request.urlopen(address[0], timeout=60) as answer:
            assert b"<title>" in answer.read()
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
        assert process.returncode == 0 and "Traceback" not in complaints
    finally:
        process.kill()
