"""What an API server answers when it does not do what was asked: a Status object."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cause:
    """One thing that is wrong with one field, as in `status.details.causes`."""

    path: str
    reason: str
    message: str

    def json(self) -> dict[str, str]:
        return {"field": self.path, "reason": self.reason, "message": self.message}


@dataclass
class ApiError(Exception):
    """An answer that is no success. `reason` is the word that clients switch on."""

    code: int
    reason: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)

    def status(self) -> dict[str, Any]:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def forbidden(verb: str, resource: str, group: str) -> ApiError:
    where = f'in API group "{group}"'
    return ApiError(
        403,
        "Forbidden",
        f'{resource} is forbidden: User "system:anonymous" cannot {verb} resource "{resource}" {where}',
    )


def not_found(resource: str, name: str = "") -> ApiError:
    message = f'{resource} "{name}" not found' if name else "the server could not find the requested resource"
    return ApiError(404, "NotFound", message, {"name": name, "kind": resource})


def already_exists(resource: str, name: str) -> ApiError:
    return ApiError(409, "AlreadyExists", f'{resource} "{name}" already exists', {"name": name, "kind": resource})


def conflict(resource: str, name: str, why: str = "") -> ApiError:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {resource} "{name}": {why}',
        {"name": name, "kind": resource},
    )


def expired(message: str = "The resourceVersion for the provided watch is too old.") -> ApiError:
    return ApiError(410, "Expired", message)


def unsupported_media(content_type: str) -> ApiError:
    return ApiError(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {content_type}")


def invalid(kind: str, name: str, causes: list[Cause]) -> ApiError:
    told = "; ".join(f"{cause.path}: {cause.message}" for cause in causes)
    details = {"name": name, "kind": kind, "causes": [cause.json() for cause in causes]}
    return ApiError(422, "Invalid", f'{kind} "{name}" is invalid: {told}', details)


def too_large_version(asked: int, current: int) -> ApiError:
    cause = Cause("", "ResourceVersionTooLarge", "Too large resource version")
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    return ApiError(504, "Timeout", message, {"causes": [cause.json()], "retryAfterSeconds": 1})
