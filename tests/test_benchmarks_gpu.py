"""`benchmarks.gpu` where there is no GPU: it says so, its parts run on tiny models, its kernels in Triton's interpreter."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]

INTERPRETED = """
import torch
from benchmarks.gpu_kernels import triton_decode
from sae_lens_meme.train.kernels import sparse_decode

for width in (16, 300):  # less than a block of columns, and more
    values, W_dec, weight = torch.rand(7, 5), torch.randn(40, width), torch.randn(7, width)
    indices = torch.stack([torch.randperm(40)[:5] for _ in range(7)])
    found = []
    for decode in (triton_decode, sparse_decode):
        given = [x.clone().requires_grad_() for x in (values, W_dec)]
        out = decode(given[0], indices, given[1])
        (out * weight).sum().backward()
        found.append([out, *(x.grad for x in given)])
    for ours, other in zip(*found):
        torch.testing.assert_close(ours, other)
"""


def run(*command: str) -> str:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_without_cuda_one_line_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr("sys.argv", ["benchmarks.gpu"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="there is no CUDA here"):
        importlib.import_module("benchmarks.gpu").main()


@pytest.mark.slow
def test_the_triton_decoder_equals_the_package_s():
    pytest.importorskip("triton")
    run("-c", INTERPRETED)


@pytest.mark.slow
def test_every_part_runs_on_tiny_models():
    lines = [json.loads(line) for line in run("-m", "benchmarks.gpu", "--device", "cpu", "--quick").splitlines()]
    assert {line.get("part") for line in lines} >= {None, "training", "embedding", "attribution"}
    assert not [line for line in lines if "error" in line]
