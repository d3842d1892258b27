"""Everything that can go wrong, by whose fault it is. No HTTP here: service/http/errors.py maps each leaf to a status.

ServiceError
├── ClientError                 the request must change before it can succeed
│   ├── Unauthenticated
│   ├── Forbidden
│   ├── MalformedRequest
│   ├── BodyTooLarge
│   ├── BodyTooSlow
│   ├── InvalidRequest
│   ├── UnsupportedMediaType
│   ├── NoImage
│   ├── TooManyImages
│   ├── ImageError              one picture of the request
│   │   ├── EmptyImage
│   │   ├── BrokenImage
│   │   ├── UnsupportedImage
│   │   └── ImageTooLarge
│   ├── ModelRequired
│   ├── UnknownModel
│   ├── UnknownVersion
│   ├── UnknownReport
│   ├── UnknownImage
│   ├── UnknownLabel
│   ├── UnknownLayer
│   ├── UnknownExplanation
│   ├── NoPreview
│   ├── ExplanationCancelled
│   └── Interrupted
├── Unavailable                 the same request may succeed later
│   ├── RateLimited
│   ├── Overloaded
│   ├── Draining
│   ├── DeadlineExceeded
│   ├── ExplainerDied
│   ├── ModelUnavailable
│   ├── LabelsNotWritten
│   └── StoreUnavailable
└── Fault                       the server's own failure
    ├── InferenceFailed
    ├── ExplanationFailed
    └── StartupFailed
"""

from __future__ import annotations

from typing import ClassVar


class ServiceError(Exception):
    """An expected failure. `code` is stable: clients may switch on it."""

    code: ClassVar[str]


class ClientError(ServiceError):
    """The request must change before it can succeed."""


class Unauthenticated(ClientError):
    """The request shows no key that is known here."""

    code = "unauthenticated"


class Forbidden(ClientError):
    """The client may not make this call."""

    code = "forbidden"


class MalformedRequest(ClientError):
    """The request is no valid HTTP."""

    code = "malformed_request"


class BodyTooLarge(ClientError):
    """The request's body has more bytes than the service takes."""

    code = "body_too_large"


class BodyTooSlow(ClientError):
    """The request's body did not arrive in time."""

    code = "body_too_slow"


class InvalidRequest(ClientError):
    """The query or the body does not have the documented form."""

    code = "invalid_request"


class UnsupportedMediaType(ClientError):
    """The body's content type is none that the call takes."""

    code = "unsupported_media_type"


class NoImage(ClientError):
    """The body holds no picture."""

    code = "no_image"


class TooManyImages(ClientError):
    """One request carries more pictures than the service takes."""

    code = "too_many_images"


class ImageError(ClientError):
    """One picture of the request cannot be classified."""


class EmptyImage(ImageError):
    """The picture has no bytes."""

    code = "empty_image"


class BrokenImage(ImageError):
    """The picture is of a known format, but truncated or damaged."""

    code = "broken_image"


class UnsupportedImage(ImageError):
    """The bytes are no picture of a format that the service reads."""

    code = "unsupported_image"


class ImageTooLarge(ImageError):
    """The picture has more pixels than the service decodes."""

    code = "image_too_large"


class ModelRequired(ClientError):
    """Several models are loaded, none is the default, and the request names none."""

    code = "model_required"


class UnknownModel(ClientError):
    """No model of that name is loaded."""

    code = "unknown_model"


class UnknownVersion(ClientError):
    """The model has no loaded version of that number."""

    code = "unknown_version"


class UnknownReport(ClientError):
    """The version has no report, or its report has no such file."""

    code = "unknown_report"


class UnknownImage(ClientError):
    """No picture of that id is kept, or not any more."""

    code = "unknown_image"


class UnknownLabel(ClientError):
    """The version has no class of that label."""

    code = "unknown_label"


class UnknownLayer(ClientError):
    """The version has no such layer, or the layer has not what is asked of it."""

    code = "unknown_layer"


class UnknownExplanation(ClientError):
    """No explanation of that id is kept, or not any more."""

    code = "unknown_explanation"


class NoPreview(ClientError):
    """The explanation has not come far enough for a preview."""

    code = "no_preview"


class ExplanationCancelled(ClientError):
    """The explanation was cancelled, and will have no result."""

    code = "explanation_cancelled"


class Interrupted(ClientError):
    """The service stopped before the explanation was done: ask for it again."""

    code = "explanation_interrupted"


class Unavailable(ServiceError):
    """The same request may succeed later: in `retry_after` seconds."""

    def __init__(self, detail: str, *, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class RateLimited(Unavailable):
    """The key was shown more often than it may be."""

    code = "rate_limited"


class Overloaded(Unavailable):
    """As much is under way already as the service takes on."""

    code = "overloaded"


class Draining(Unavailable):
    """The service is shutting down and takes no new work."""

    code = "draining"


class DeadlineExceeded(Unavailable):
    """No answer came within the deadline."""

    code = "deadline_exceeded"


class ExplainerDied(Unavailable):
    """The process that explains died before it had an answer."""

    code = "explainer_died"


class ModelUnavailable(Unavailable):
    """No version of the model that was asked for can answer at the moment."""

    code = "model_unavailable"


class LabelsNotWritten(Unavailable):
    """The file of the model's labels cannot be written."""

    code = "labels_not_written"


class StoreUnavailable(Unavailable):
    """The pictures that the service keeps cannot be read at the moment."""

    code = "store_unavailable"


class Fault(ServiceError):
    """The server's own failure."""


class InferenceFailed(Fault):
    """The model failed on the batch that held this picture."""

    code = "inference_failed"


class ExplanationFailed(Fault):
    """The explanation failed."""

    code = "explanation_failed"


class StartupFailed(Fault):
    """The service cannot start, and says why."""

    code = "startup_failed"
