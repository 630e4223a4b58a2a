"""Serves a trained model: a page to drop images on, and JSON for programs.

    python scripts/serve.py --model runs/road/model
    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' 127.0.0.1:8000/predict

Only this machine is answered unless --host says otherwise; then anybody who reaches the
port may use the model, without a password. Images are kept in memory only and forgotten
with the answer. Requests that arrive together are predicted in one batch.

Needs pip install "jaxseg[serve]". Exit codes: 0 stopped by a signal, after the requests
in work; 2 wrong input; 1 a bug.
"""

import argparse
import contextlib
import signal
import socket
from pathlib import Path

import command_line

LOOPBACK = ("127.0.0.1", "localhost")


def run(arguments: list[str]) -> None:
    options = _parser().parse_args(arguments)

    from jaxseg.formats.packages import refuse_missing

    refuse_missing("starlette", "uvicorn", extra="serve")

    import uvicorn

    from jaxseg import backend, paths, signals
    from jaxseg.data import images
    from jaxseg.predict import predictor
    from jaxseg.progress import console
    from jaxseg.serve.app import Limits, make_app

    listener = _listen(options.host, options.port)
    images.allow_pixels(options.max_pixels)
    backend.enable_compilation_cache(paths.cache_folder(""))
    model = predictor.load(
        options.model,
        tile=options.tile,
        batch_size=options.batch_size,
        precision=options.precision,
    )
    console.print(f"- {model}", markup=False)
    limits = Limits(
        max_bytes=options.max_bytes,
        max_requests=options.queue,
        seconds=options.timeout,
        hosts=LOOPBACK if options.host in LOOPBACK else ("*",),
    )
    host, port = listener.getsockname()[:2]
    console.print(f"- http://{host}:{port} answers soon; Ctrl-C ends it", markup=False)
    config = uvicorn.Config(
        make_app(model, limits),
        log_level="warning",
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(options.timeout) + 1,
    )
    server = uvicorn.Server(config)
    # It knows two of the signals that stop our programs.
    signal.signal(signal.SIGUSR1, lambda *_: signal.raise_signal(signal.SIGTERM))
    # uvicorn ends what is in work, in its own time, and then repeats the signal.
    with signals.unbounded(), contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    console.print("- stopped")


def _listen(host: str, port: int) -> socket.socket:
    """The open port; done first, so that a taken one is said at once."""
    from jaxseg.errors import InputError

    try:
        return socket.create_server((host, port), backlog=128)
    except (OSError, OverflowError) as error:
        raise InputError(
            "an address and a port that are free",
            f"{host}:{port}: {getattr(error, 'strerror', None) or error}",
            "--port with another number (0 takes a free one), or --host 127.0.0.1",
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, positive = parser.add_argument, command_line.positive
    add("--model", type=Path, required=True, help="the model/ folder of a finished run")
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=int, default=8000, help="0 takes a free one (%(default)s)")
    add(
        "--tile",
        nargs="?",
        type=positive,
        const=True,
        default=False,
        metavar="SIDE",
        help="tile by tile at the scale of the training, as of scripts/predict.py",
    )
    add("--batch-size", type=positive, help="images or tiles at a time")
    add("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    add(
        "--queue",
        type=positive,
        default=32,
        help="requests in work or waiting; the next is told to come again, 503 "
        "(%(default)s)",
    )
    add(
        "--timeout",
        type=positive,
        default=60,
        help="seconds for a request, 504 after them (%(default)s)",
    )
    add(
        "--max-bytes",
        type=positive,
        default=2**25,
        help="of a body, 413 above them (%(default)s)",
    )
    add(
        "--max-pixels",
        type=positive,
        default=50_000_000,
        help="of an image, 413 above them (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    command_line.main(run)
