"""What one part of the agent tells another when it cannot do its work.

RAM BUDGET: nothing worth counting.
"""


class AgentError(Exception):
    """`reason` is a word of the contract (`up/update`, counters, telemetry), `detail` says more or is None."""

    def __init__(self, reason, detail=None):
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
