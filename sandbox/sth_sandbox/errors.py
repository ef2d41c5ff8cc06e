"""The errors of the sandbox: a code for machines, a message for people, a hint what to do.

The codes are those of `sth_protocol.errors`, which this package may not import: the spawner is
kept apart from everything that talks to a network. A test compares the two.
"""

PACK_HINT = "a package is made by: tar -czf package.tar.gz -C FOLDER ."


class SandboxError(Exception):
    """Any error that is answered over the spawner's socket."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def to_wire(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message, "hint": self.hint}


def bad_request(message: str) -> SandboxError:
    return SandboxError("BAD_REQUEST", message, hint="agent and spawner may differ in version")


def not_found(message: str) -> SandboxError:
    return SandboxError("NOT_FOUND", message)


def conflict(message: str) -> SandboxError:
    return SandboxError("CONFLICT", message)


def bad_package(message: str, *, hint: str = "") -> SandboxError:
    return SandboxError("BAD_PACKAGE", message, hint=hint or PACK_HINT)


def too_large(message: str) -> SandboxError:
    return SandboxError("TOO_LARGE", message)


def corrupt(message: str) -> SandboxError:
    return SandboxError("CORRUPT", message, hint="send the package again")


def insufficient(message: str, *, hint: str = "") -> SandboxError:
    return SandboxError("INSUFFICIENT_RESOURCES", message, hint=hint)


def refused(message: str, *, hint: str = "") -> SandboxError:
    return SandboxError("SANDBOX_REFUSED", message, hint=hint)


def misconfigured(message: str, *, hint: str = "") -> SandboxError:
    return SandboxError("MISCONFIGURED", message, hint=hint)


def internal(message: str) -> SandboxError:
    return SandboxError("INTERNAL", message, hint="see spawner.log, and report it")
