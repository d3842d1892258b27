"""Ask a running service from Python, without what the service itself needs.

from service.client import Client

with Client("http://127.0.0.1:8000") as client:
    answer = client.predict("examples/lemon.png")
    print(answer.images[0].best.label)
    client.explain("examples/lemon.png", method="gradcam").overlay.save("why.png")
"""

from service.client.asynchronous import AsyncClient
from service.client.calls import Explanation
from service.client.errors import (
    ConnectionLost,
    DeadlineExceeded,
    Forbidden,
    Gone,
    Invalid,
    NoAnswer,
    NotFound,
    NotSent,
    RateLimited,
    Refused,
    RequestError,
    ServiceFailed,
    SichtbarError,
    TimedOut,
    TooLarge,
    TryLater,
    Unauthenticated,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    Unsupported,
)
from service.client.retries import Retries
from service.client.sync import Client

__all__ = [
    "AsyncClient",
    "Client",
    "ConnectionLost",
    "DeadlineExceeded",
    "Explanation",
    "Forbidden",
    "Gone",
    "Invalid",
    "NoAnswer",
    "NotFound",
    "NotSent",
    "RateLimited",
    "Refused",
    "RequestError",
    "Retries",
    "ServiceFailed",
    "SichtbarError",
    "TimedOut",
    "TooLarge",
    "TryLater",
    "Unauthenticated",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
    "Unsupported",
]
