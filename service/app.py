"""Settings in, an ASGI app out: load, serve, drain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import structlog
from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from service import __doc__ as description
from service import __version__
from service.classifier import Classifier
from service.errors import StartupFailed
from service.http import (
    admin,
    errors,
    explain,
    explanations,
    health,
    images,
    inside,
    native,
    openinference,
    pages,
    reports,
    tfserving,
)
from service.http.access import Access
from service.http.door import Door
from service.http.inflate import Inflate
from service.http.limits import BodyLimit, Deadline, RequestContext
from service.metrics import Metrics
from service.security import Keys
from service.settings import Settings
from service.team import Team
from service.tracing import Tracing

log = structlog.get_logger()


def create_app(settings: Settings, team: Team | None = None) -> FastAPI:
    """The service as an ASGI app. Models are loaded in its lifespan; if none is valid, the start fails.

    `team`: the other workers, where there are several.

    Raises:
        StartupFailed: the file of keys is not valid.
    """
    classifier = Classifier(settings, team)
    tracing = Tracing()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Door | Metrics]]:
        try:
            tracing.open()
            async with classifier:
                yield {"door": Door(classifier.metrics), "metrics": classifier.metrics}
            await tracing.close()
        except StartupFailed as failure:
            log.error(failure.code, reason=str(failure))
            raise
        except Exception:
            log.exception("bug")
            raise

    app = FastAPIOffline(
        title="Sichtbar",
        version=__version__,
        description=description,
        lifespan=lifespan,
        redirect_slashes=False,
        middleware=[
            Middleware(RequestContext, metrics=classifier.metrics, tracing=tracing),
            *_guards(settings, classifier.metrics, team),
            Middleware(Deadline, metrics=classifier.metrics),
            # The limit counts what a body inflates to.
            Middleware(Inflate),
            Middleware(BodyLimit, max_bytes=settings.max_body_bytes, max_total=settings.max_total_bytes),
        ],
    )
    app.state.classifier = classifier
    errors.install(app)
    app.router.routes.insert(0, native.PredictRoute())
    for router, tag in (
        (native.router, "Pictures and models"),
        (images.router, "Pictures and models"),
        (explain.router, "Explanations"),
        (explanations.router, "Explanations"),
        (reports.router, "Pictures and models"),
        (inside.router, "Looking inside"),
        (admin.router, "Administration"),
    ):
        app.include_router(router, tags=[tag], dependencies=[Depends(native.refuse_repeated)])
    app.include_router(health.router, tags=["Operation"])
    app.include_router(pages.router)
    app.router.routes += [*tfserving.ROUTES, *openinference.ROUTES]
    return app


def _guards(settings: Settings, metrics: Metrics, team: Team | None) -> Iterator[Middleware]:
    if settings.cors_origins:
        # A browser asks with OPTIONS first, and shows no key then.
        yield Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=[
                "authorization",
                "content-type",
                "if-none-match",
                "traceparent",
                "tracestate",
                "x-api-key",
                "x-request-id",
                "x-request-timeout",
            ],
            expose_headers=["etag", "location", "retry-after", "traceresponse", "x-cache", "x-request-id"],
        )
    if settings.keys is not None:
        keys = Keys(settings.keys, team.allowances if team else None)
        yield Middleware(Access, keys, metrics, watched_open=settings.open_metrics)
