"""What can be wrong with a bundle, a model, a key or a release.

InvalidError
├── BundleError              the zip, folder or labels cannot be used
├── ModelError               the .tflite is damaged or not one
├── ReleaseError             a release cannot be built as asked
├── KeyRecordError           a key record is not what cameras take
├── PreflightError           a board would refuse it; carries the findings
└── RejectedError            something signed is not acceptable; `reason` is a word of UpdateReason
    ├── ManifestRejectedError
    └── ContentRejectedError
FleetError
└── SigningError             a signing key cannot be made, read or used
    ├── KeyFileError
    └── KeyPasswordError
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fleetd.errors import FleetError, InvalidError

if TYPE_CHECKING:
    from fleetd.bundles.preflight import Finding
    from fleetd.protocol.messages import UpdateReason


class BundleError(InvalidError):
    """The bundle cannot be used. Give an Edge Impulse "OpenMV Library" zip, its unpacked folder, or a .tflite."""

    code = "bundle_invalid"


class ModelError(InvalidError):
    """The model file is damaged or is not a TensorFlow Lite model. Export it again."""

    code = "model_invalid"


class ReleaseError(InvalidError):
    """The release cannot be built as asked. Nothing was written."""

    code = "release_invalid"


class KeyRecordError(InvalidError):
    """The key record is not what cameras take. Nothing was changed."""

    code = "key_record_invalid"


class PreflightError(InvalidError):
    """The model does not fit the boards of this release. Nothing was sent; the findings say why."""

    code = "preflight_refused"

    def __init__(self, findings: "Sequence[Finding]", message: str | None = None, **facts: object) -> None:
        said = " ".join(f"{finding.message} {finding.remedy}" for finding in findings)
        super().__init__(message or said or None, findings=[finding.code for finding in findings], **facts)
        self.findings = tuple(findings)


class RejectedError(InvalidError):
    """The release is not acceptable."""

    code = "release_rejected"

    def __init__(self, reason: "UpdateReason", message: str | None = None, **facts: object) -> None:
        super().__init__(message, reason=reason, **facts)
        self.reason = reason


class ManifestRejectedError(RejectedError):
    """The signed manifest is not acceptable. Sign the release again with a key that fleetd knows."""

    code = "manifest_rejected"


class ContentRejectedError(RejectedError):
    """What was uploaded is not what the manifest describes. Build and upload the release again."""

    code = "content_rejected"


class SigningError(FleetError):
    """The release could not be signed."""

    code = "signing_failed"


class KeyFileError(SigningError):
    """The signing key file cannot be used."""

    code = "key_file_unusable"


class KeyPasswordError(SigningError):
    """The password does not open the signing key. The key file was left as it is; try again."""

    code = "key_password_wrong"
