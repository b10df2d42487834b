"""Contents of stored releases by their SHA-256, so that an uploaded patch can be tried on its base."""

from collections.abc import Iterator, Mapping

from fleetd.bundles.encodings import cut
from fleetd.ports import Store


class StoredContents(Mapping[str, bytes]):
    """Looks contents up in the store, one at a time and only when asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getitem__(self, sha256: str) -> bytes:
        with self._store.reading() as work:
            release = next((one for one in work.releases.all() if one.content_sha256 == sha256), None)
            stored = [] if release is None else work.releases.encodings(release.id)
        for one in stored:
            if release is not None and one.kind == "deflate":
                return cut("deflate", one.data).decode(release.content_size)
        raise KeyError(sha256)

    def __iter__(self) -> Iterator[str]:
        with self._store.reading() as work:
            return iter({one.content_sha256 for one in work.releases.all()})

    def __len__(self) -> int:
        return sum(1 for _ in self)
