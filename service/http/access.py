"""Before a request is read: whether its client may ask for this, and not too often."""

from __future__ import annotations

import re

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Request

from service.errors import Forbidden, ServiceError, Unauthenticated
from service.http.errors import answer, failure
from service.metrics import Metrics
from service.security import Keys, Scope

ANY: frozenset[Scope] = frozenset({"predict", "explain", "admin"})
OPEN: frozenset[Scope] = frozenset()

# By method and path, the first that matches: which scopes suffice.
TABLE: list[tuple[str, str, frozenset[Scope]]] = [
    ("POST|PUT|DELETE", r"/models/.*", frozenset({"admin"})),
    (".*", r"/predict", frozenset({"predict"})),
    (".*", r"/v[12](/.*)?", frozenset({"predict"})),
    (".*", r"/(explain|explanations|activations|walk)(/.*)?", frozenset({"explain"})),
    (".*", r"/images/.*", frozenset({"predict", "explain"})),
    (".*", r"/models(/.*)?", ANY),
    # They hold nothing but what is published.
    (".*", r"/|/web/.*|/docs(/.*)?|/redoc|/openapi\.json|/fastapi-offline(/.*)?|/static-offline-docs(/.*)?", OPEN),
]
WATCHED = re.compile(r"/health/.*|/metrics")
# A dot is any character: a path may hold line feeds.
COMPILED = [
    (re.compile(methods), re.compile(paths, re.IGNORECASE | re.DOTALL), scopes) for methods, paths, scopes in TABLE
]


def needed(method: str, path: str, *, watched_open: bool) -> frozenset[Scope]:
    """Which scopes suffice for a call; none: it is open to all."""
    # Routes end in `$`, which also stands before a last line feed.
    path = path.removesuffix("\n")
    if WATCHED.fullmatch(path):
        return OPEN if watched_open else ANY
    for methods, paths, scopes in COMPILED:
        if methods.fullmatch(method) and paths.fullmatch(path):
            return scopes
    return ANY


class Access:
    """Lets pass who shows a key for what is asked: 401 without one, 403 with another's, 429 too often."""

    def __init__(self, app: ASGIApp, keys: Keys, metrics: Metrics, *, watched_open: bool) -> None:
        self._app = app
        self._keys = keys
        self._metrics = metrics
        self._watched_open = watched_open

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except ServiceError as refused:
                await answer(failure(scope, refused), self._metrics, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Request) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        scopes = needed(scope["method"], path, watched_open=self._watched_open)
        if not scopes:
            return
        shown = _shown(Headers(scope=scope))
        if shown is None:
            raise Unauthenticated("expected a key, as `Authorization: Bearer <key>` or `X-API-Key: <key>`, got none")
        key = self._keys.find(shown)
        if key is None:
            raise Unauthenticated("expected a key that is known here, got another")
        structlog.contextvars.bind_contextvars(key=key.name)
        if not scopes & key.scopes:
            held = ", ".join(sorted(key.scopes))
            raise Forbidden(f"expected a key for {' or '.join(sorted(scopes))}, got one for {held}")
        self._keys.take(key)


def _shown(headers: Headers) -> str | None:
    kind, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" and value.strip() else headers.get("x-api-key")
