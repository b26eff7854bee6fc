"""What all tests share: where the oracles are, a tiny model made in code from a seed, the command in this process."""

import io
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from elmokit import cli
from elmokit.checkpoint import CharCNN, Checkpoint, Config, Embedding, Lstm, network_shapes
from elmokit.kernels import compiled
from elmokit.model import Elmo
from postgres_server import server as server  # a fixture

SHARED = Path(os.environ.get("ELMOKIT_SHARED", Path(__file__).parents[2] / "shared"))
ORACLES = SHARED / "oracles"

torch.set_num_threads(1)
settings.register_profile("elmokit", deadline=None)  # an example that imports or compiles something takes longer
settings.load_profile("elmokit")
for _name in list(os.environ):  # what this machine is set up for is not what is tested
    if _name.lower().endswith("_proxy") or _name.startswith(("HF_", "ELMO_")):
        del os.environ[_name]


# Variants of the compiled library that this processor runs, with the types that each is tested in.
_VARIANTS = compiled.VARIANTS[: compiled.VARIANTS.index(compiled.variant()) + 1] if compiled.variant() else ()
_TYPES = [(name, torch.float32) for name in _VARIANTS] + [("avx512bf16", torch.bfloat16)] * ("avx512bf16" in _VARIANTS)

needs_compiled = pytest.mark.skipif(not _VARIANTS, reason="needs what gcc compiles on x86-64 and Linux")


@pytest.fixture(params=_TYPES, ids=str)
def dtype(request, monkeypatch):
    """A type that weights can have, with a variant of the compiled library for it."""
    variant, dtype = request.param
    monkeypatch.setattr(compiled, "variant", lambda: variant)
    return dtype


@pytest.fixture(scope="session")
def oracles():
    if not ORACLES.is_dir():
        pytest.skip(f"the oracles are not here ({ORACLES}); set ELMOKIT_SHARED")
    return ORACLES


@pytest.fixture(scope="session")
def shared_data():
    if not (SHARED / "data").is_dir():
        pytest.skip(f"the corpora are not here ({SHARED / 'data'}); set ELMOKIT_SHARED")
    return SHARED / "data"


def make_config(
    *,
    n_layers=2,
    n_highway=1,
    activation="relu",
    dim=10,
    projection_dim=4,
    cell_clip=3.0,
    proj_clip=3.0,
    skip=True,
    filters=((1, 3), (2, 4), (3, 5)),
    max_characters=20,
):
    """A small shape; every part can be varied."""
    cnn = CharCNN(
        embedding=Embedding(dim=4),
        filters=list(filters),
        activation=activation,
        n_highway=n_highway,
        max_characters_per_token=max_characters,
    )
    lstm = Lstm(
        projection_dim=projection_dim,
        dim=dim,
        n_layers=n_layers,
        cell_clip=cell_clip,
        proj_clip=proj_clip,
        use_skip_connections=skip,
    )
    return Config(lstm=lstm, char_cnn=cnn)


def make_checkpoint(config=None, *, seed=0, scale=0.4, vocabulary=None):
    """A random model at a scale where the recurrence is stable, so that float32 and float64 stay together."""
    config = config or make_config()
    generator = np.random.default_rng(seed)
    shapes = network_shapes(config)
    if vocabulary:
        shapes |= {"softmax.weight": (len(vocabulary), config.lstm.projection_dim), "softmax.bias": (len(vocabulary),)}
    arrays = {name: generator.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()}
    return Checkpoint(config, arrays, vocabulary)


@pytest.fixture(scope="session")
def tiny():
    return make_checkpoint()


@pytest.fixture(scope="session")
def tiny_elmo(tiny):
    return Elmo(tiny)


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs `elmo` in this process and returns exit code, standard output and standard error."""

    def run(*args, stdin=b""):
        monkeypatch.setattr("sys.argv", ["elmo", *map(str, args)])
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def small_disk():
    """Yield a folder with a disk of its own of 8 MiB, and a function that makes it larger or smaller.

    Not in pytest's own folder: tests that are killed leave the disk behind, where later ones could not tidy up.
    """
    folder = Path(tempfile.mkdtemp(prefix="elmokit-disk-"))

    def mount(*options):
        return subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False).returncode == 0

    try:
        if not (shutil.which("mount") and mount("-t", "tmpfs", "-o", "size=8m", "tmpfs")):
            pytest.skip("a disk of its own can be mounted by root only")
        yield folder, lambda size: mount("-o", f"remount,size={size}")
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # some reader may not have let go yet
    finally:
        folder.rmdir()
