"""What one part of the agent tells another when it cannot do its work.

They are together here because modules that raise them may be out of memory when they are caught.

RAM BUDGET: under 1 KB.
"""


class AgentError(Exception):
    """`reason` is a word of the contract (`up/update`, counters, telemetry), `detail` says more or is None."""

    def __init__(self, reason, detail=None):
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class StreamError(OSError):
    """No connection came about, or it is gone. `why` is a word of docs/cameras.md; its text says more."""

    def __init__(self, why, said=None):
        super().__init__(said or why)
        self.why = why


class StorageError(AgentError):
    """The medium refused. `reason`: not-enough-storage or storage-error."""


class ManifestError(AgentError):
    """The manifest is not to be trusted. `reason` is a word of `up/update`, `detail` says what is wrong."""


class TransferError(AgentError):
    """The transfer is over without success. `reason` is a word of `up/update`."""


class UnpackError(AgentError):
    """The encoding does not unpack to what the manifest says. `reason` is digest-mismatch."""

    def __init__(self, detail):
        super().__init__("digest-mismatch", detail)
