"""Starts the real server on a free port, with the test checkpoints as its model cache."""

import json
import os
import pathlib
import subprocess
import threading

import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "llm_dense"


def server_binary() -> pathlib.Path:
    named = os.environ.get("ATELICO_SERVER_BIN")
    binary = pathlib.Path(named) if named else ROOT / "target" / "release" / "atelico-server"
    if not binary.is_file():
        pytest.exit(f"{binary} is missing; build it with: cargo build --release -p atelico-server", returncode=1)
    return binary


@pytest.fixture(scope="session")
def server():
    """The server's base URL."""
    device = os.environ.get("ATELICO_TEST_DEVICE", "cpu")
    process = subprocess.Popen(
        [server_binary(), "--port", "0", "--device", device],
        env={**os.environ, "ATELICO_CACHE_DIR": str(FIXTURES)},
        stdout=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    line = process.stdout.readline()
    watchdog.cancel()
    assert "http://" in line, f"the server did not start: {line!r}"
    yield line.split()[-1]
    process.terminate()
    assert process.wait(timeout=40) == 0, "the server did not end in order"


@pytest.fixture(scope="session")
def client(server):
    # No retries: a test must see the first answer.
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0, timeout=120)


def golden(case: str) -> dict:
    return json.loads((FIXTURES / case / "golden.json").read_text())
