"""Serve an exported model over HTTP until it is interrupted."""

import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from actors.connection import connect
from diet_ray.errors import ConfigError
from diet_ray.evaluation.exported_model import ExportedModel, load_model
from pipelines.options.predict import Serve
from pipelines.runtime.command import run_command
from pipelines.runtime.progress import console

NAME = "diet_ray"  # of the application among those of a cluster


def execute(options: Serve) -> None:
    model = load_model(options.model)
    try:
        with serving(options) as url:
            # Of Ray's own handler, set when it starts, a service manager would see a crash.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            console.print(f"{options.model} answers at {url}; Ctrl-C ends it", markup=False)
            console.print(request_text(model, url), markup=False)
            threading.Event().wait()
    except KeyboardInterrupt:
        console.print("ended")


@contextmanager
def serving(options: Serve) -> Iterator[str]:
    """Have the model served on the cluster, or on a Ray that is started here; yields the URL.

    Raises:
        ConfigError: where Ray Serve is not installed, or the port is taken.
        RunError: where there is no model.
    """
    try:
        from ray import serve

        from actors.serving.http import application
    except ImportError as missing:
        raise ConfigError(f"Ray Serve is unavailable ({missing}): pip install 'diet-ray[serve]'") from missing
    check_port(options.host, options.port)
    connect()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options={"host": options.host, "port": options.port}, logging_config=_quiet())
    try:
        serve.run(application({"model": options.model}), name=NAME, route_prefix="/")
        yield f"http://{options.host}:{options.port}/"
    finally:
        serve.delete(NAME)


def _quiet() -> dict[str, Any]:
    return {"log_level": "WARNING", "enable_access_log": False}


def check_port(host: str, port: int) -> None:
    """ConfigError where the port cannot be listened on: Ray Serve would try it for a minute."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as taken:
            raise ConfigError(f"--port {port} on {host}: {taken.strerror}; choose another") from taken


def request_text(model: ExportedModel, url: str) -> str:
    """A request with the columns of the model, to be filled in."""
    row = ", ".join(f'"{column}": ...' for column in model.reader.needed_columns())
    return f"a request: curl {url} -d '[{{{row}}}]'"


if __name__ == "__main__":
    sys.exit(run_command(Serve, "diet-ray serve"))
