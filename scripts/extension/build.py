"""The whole build: a zip for every platform, and the index that makes their folder an extension repository."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .archive import ROOT, archive_name, extension_files, pack, read_manifest
from .errors import BuildError
from .repository import repository_entry, repository_index, repository_page
from .wheels import LOCK, Wheel, find_wheel, platforms_of, read_lock

DOWNLOADS = ROOT / "build" / "wheels"


def build(out: Path, platforms: Sequence[str] = (), address: str = "", wheels: Path | None = None, lock: Path = LOCK) -> list[Path]:
    """Writes zips, `index.json` and `index.html` into `out`.

    Args:
        out: folder; zips of this extension that lie there already are in the index too, so that it never loses a platform.
        platforms: of Blender; all that there are wheels for when empty.
        address: where the folder will be found on the web; "" when the index's links are to be relative.
        wheels: a folder that has the wheels; downloaded, and kept, when None.
        lock: which wheels.

    Returns:
        The zips, one a platform.

    Raises:
        BuildError: something is missing or wrong.
    """
    pinned = read_lock(lock)
    known = platforms_of(pinned)
    unknown = sorted(set(platforms) - set(known))
    if unknown:
        raise BuildError(f"There are no wheels for {', '.join(unknown)}: choose among {', '.join(known)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        archives = [_build_one(out, platform, pinned, wheels) for platform in platforms or known]
        _write_index(out, address)
    except OSError as error:
        raise BuildError(f"{error.filename} cannot be written: {error.strerror}") from error
    return archives


def _build_one(out: Path, platform: str, pinned: Sequence[Wheel], folder: Path | None) -> Path:
    wanted = [wheel for wheel in pinned if platform in wheel.platforms]
    paths = {wheel: find_wheel(wheel, folder or DOWNLOADS, may_download=folder is None) for wheel in wanted}
    archive = out / archive_name(read_manifest(), platform)
    archive.write_bytes(pack(extension_files(platform, paths)))
    return archive


def _write_index(out: Path, address: str) -> None:
    manifest = read_manifest()
    # Blender takes one version of an extension for each platform; older zips may stay for those who have a link.
    archives = sorted(out.glob(f"{manifest['id']}-{manifest['version']}-*.zip"))
    entries = [repository_entry(archive, address) for archive in archives]
    (out / "index.json").write_text(repository_index(entries), encoding="utf-8")
    (out / "index.html").write_text(repository_page(entries, address), encoding="utf-8")
