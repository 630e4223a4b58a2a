"""The ASGI application: four fixed paths, each request bounded.

    GET  /          the page; /page.js and /page.css are its parts
    GET  /model     what the network is: JSON
    POST /predict   the bytes of an image -> score, decision, measurements: JSON;
                    ?pictures=1 adds the photo and the maps as the page draws them
    POST /measure   a map of /predict and ?threshold= -> measurements there: JSON

A refusal is JSON too: what was expected, what was found, the fix. A request with a body
must name an image type, which pages of other sites cannot do without asking, and these
are never allowed. `Host` must be the server's own name for the like reason.
"""

import asyncio
import contextlib
import dataclasses
import math
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jaxseg.data.images import TooLarge, UnreadableImage, decode_image
from jaxseg.errors import InputError
from jaxseg.predict.predictor import Predictor
from jaxseg.serve import answers
from jaxseg.serve.batches import Batches, Finish

PARTS = {
    "index.html": "text/html",
    "page.js": "text/javascript",
    "page.css": "text/css",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
RETRY_SECONDS = 1


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the server takes.

    Attributes:
      max_bytes: of a body.
      max_requests: in work or waiting; the next is told to come again.
      seconds: from the first byte of a body to the answer.
      hosts: names in `Host` that are answered; '*' is any.
    """

    max_bytes: int
    max_requests: int
    seconds: float
    hosts: tuple[str, ...]


class Refused(Exception):
    """A request that is not answered, with the HTTP status that says so."""

    def __init__(self, status: int, expected: str, found: str, fix: str):
        self.status, self.error = status, InputError(expected, found, fix)
        super().__init__(str(self.error))


def make_app(predictor: Predictor, limits: Limits) -> Starlette:
    """The application. Its life begins with compiling and ends with the last answer."""
    service = _Service(predictor, limits)
    routes = [
        Route("/predict", service.predict, methods=["POST"]),
        Route("/model", service.model),
        Route("/", _part("index.html")),
        *(Route(f"/{name}", _part(name)) for name in PARTS if name != "index.html"),
    ]
    if service.has_scores:
        routes.append(Route("/measure", service.measure, methods=["POST"]))
    return Starlette(
        routes=routes,
        lifespan=service.lifespan,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=limits.hosts)],
        exception_handlers={
            Refused: _explain,
            HTTPException: _explain_path,
            ClientDisconnect: _explain_silence,
            Exception: _explain_bug,
        },
    )


class _Service:
    """What requests share."""

    def __init__(self, predictor: Predictor, limits: Limits):
        self._predictor, self._limits = predictor, limits
        self._places = limits.max_requests
        self._mm_per_pixel = predictor.trained.preprocessing.mm_per_pixel
        self._model = answers.describe_model(predictor, limits.max_bytes)
        self.has_scores = self._model["has_masks"] and len(predictor.classes) == 2

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        with (
            ThreadPoolExecutor(os.cpu_count(), "images") as self._pool,
            contextlib.closing(Batches(self._predictor)) as self._batches,
        ):
            await asyncio.to_thread(self._batches.compile)
            yield

    async def model(self, request: Request) -> Response:
        return _json(self._model)

    async def predict(self, request: Request) -> Response:
        wants_pictures = _query(request, {"pictures": _flag})["pictures"] or False
        with self._place():
            async with self._in_time():
                data = await self._image(request)
                photo, size, waiting = await self._run(self._read, data, wants_pictures)
                finish = await asyncio.wrap_future(waiting)
                return await self._run(self._answer, finish, size, photo)

    async def measure(self, request: Request) -> Response:
        query = _query(request, {"threshold": _share, "scale": _scale})
        if query["threshold"] is None:
            fix = "/measure?threshold=0.5"
            raise Refused(400, "a threshold in the address", "none", fix)
        with self._place():
            async with self._in_time():
                data = await self._image(request)
                scale = query["scale"] or 1
                return await self._run(self._measure, data, query["threshold"], scale)

    def _read(self, data: bytes, wants_pictures: bool):
        """Picture for the page or None, size, and the future of the prediction."""
        image = _decode(data, self._predictor.trained.preprocessing.channels)
        photo = answers.draw_photo(image) if wants_pictures else None
        return photo, image.shape[:2], self._batches.submit(image)

    def _answer(self, finish: Finish, size: tuple[int, int], photo) -> Response:
        result = finish()
        answer = answers.describe_result(result, size, self._mm_per_pixel)
        if photo:
            url, scale = photo
            answer |= {"photo": url, "scale": scale, **answers.draw_maps(result, scale)}
        return _json(answer)

    def _measure(self, data: bytes, threshold: float, scale: int) -> Response:
        levels = _decode(data, 1)
        mask = (levels[..., 0] >= math.ceil(255 * threshold)).astype(np.uint8)
        known = self._predictor.classes, self._mm_per_pixel
        return _json(answers.describe_mask(mask, levels, *known, scale=scale))

    async def _run(self, work: Callable, *arguments) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, work, *arguments)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places:
            count = self._limits.max_requests
            raise Refused(
                503,
                f"at most {count} requests at a time",
                "one more",
                f"ask again in {RETRY_SECONDS} s, or start with a larger --queue",
            )
        self._places -= 1
        try:
            yield
        finally:
            self._places += 1

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        seconds = self._limits.seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise Refused(
                504,
                f"an answer within {seconds:g} s",
                "the time is up",
                "a smaller image, fewer at a time, or start with a longer --timeout",
            ) from None

    async def _image(self, request: Request) -> bytes:
        """The body.

        Raises:
          Refused: another type, or too many bytes.
        """
        kind = request.headers.get("content-type", "")
        if not kind.startswith("image/"):
            raise Refused(
                415,
                "the bytes of an image as the body, and Content-Type: image/...",
                f"Content-Type: {kind or 'none'}",
                "curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' "
                f"{request.url.replace(query='')}",
            )
        parts, total, limit = [], 0, self._limits.max_bytes
        async for part in request.stream():
            total += len(part)
            if total > limit:
                raise Refused(
                    413,
                    f"a body of at most {limit:,} bytes",
                    "a larger one",
                    "a smaller image, or start with a larger --max-bytes",
                )
            parts.append(part)
        return b"".join(parts)


def _decode(data: bytes, channels: int) -> np.ndarray:
    expected = "the bytes of an image file (JPEG, PNG, BMP, TIFF, GIF, WebP)"
    try:
        return decode_image(data, channels)
    except TooLarge as error:
        fix = "a smaller image, or start with a larger --max-pixels"
        raise Refused(413, expected, f"one that {error}", fix) from None
    except UnreadableImage as error:
        fix = "another file; open it in an image viewer to see whether it is whole"
        raise Refused(415, expected, f"a body that {error}", fix) from None


def _query(request: Request, known: dict[str, Callable[[str], Any]]) -> dict[str, Any]:
    """The values behind '?', None where there is none."""
    values = dict.fromkeys(known)
    for name, text in request.query_params.multi_items():
        try:
            values[name] = known[name](text)
        except (KeyError, ValueError):
            expected = f"of {', '.join(known)} in the address"
            found = f"{name}={text}"
            fix = f"{request.url.path} without it"
            raise Refused(400, expected, found, fix) from None
    return values


def _flag(text: str) -> bool:
    return {"0": False, "1": True}[text]


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value


def _scale(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1000:
        raise ValueError(text)
    return value


def _part(name: str) -> Callable:
    content = resources.files("jaxseg.serve").joinpath("page", name).read_bytes()

    async def send(request: Request) -> Response:
        return Response(content, media_type=PARTS[name], headers=HEADERS)

    return send


def _json(content: Any, status: int = 200, headers: dict | None = None) -> Response:
    return JSONResponse(content, status, headers=HEADERS | (headers or {}))


async def _explain(request: Request, refused: Refused) -> Response:
    error = refused.error
    content = {key: getattr(error, key) for key in ("expected", "found", "fix")}
    headers = {"Retry-After": str(RETRY_SECONDS)} if refused.status == 503 else {}
    return _json(content, refused.status, headers)


async def _explain_path(request: Request, error: HTTPException) -> Response:
    found = f"{request.method} {request.url.path}"
    expected = "GET / or /model, POST /predict or /measure"
    fix = "one of these" if error.status_code in (404, 405) else error.detail
    refused = Refused(error.status_code, expected, found, fix)
    response = await _explain(request, refused)
    response.headers.update(error.headers or {})
    return response


async def _explain_silence(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _explain_bug(request: Request, error: Exception) -> Response:
    expected, found = "an answer", "an error of the program; its log has the traceback"
    refused = Refused(500, expected, found, "report it with the log and the image")
    return await _explain(request, refused)
