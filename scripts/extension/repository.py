"""The index of an extension repository: Blender reads it to install the extension and to find updates.

https://docs.blender.org/manual/en/latest/advanced/extensions/creating_repository/static_repository.html
"""

from __future__ import annotations

import html
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from .archive import MANIFEST, sha256_of
from .toml_file import parse_toml


def repository_entry(archive: Path, address: str = "") -> dict[str, Any]:
    """What the index says about one zip; `address` is that of the zip's folder, "" when it is the index's own."""
    content = archive.read_bytes()
    with zipfile.ZipFile(archive) as opened:
        manifest = parse_toml(opened.read(MANIFEST).decode(), f"{archive}/{MANIFEST}")
    # Blender's index lists Python versions in their place.
    wheels = manifest.pop("wheels", [])
    return {
        **manifest,
        "python_versions": python_versions(wheels),
        "archive_url": f"{address.rstrip('/') or '.'}/{quote(archive.name)}",
        "archive_size": len(content),
        "archive_hash": f"sha256:{sha256_of(content)}",
    }


def python_versions(wheels: Sequence[str]) -> list[str]:
    """The Python versions that the names of `wheels` list, the oldest first."""
    tags = {tag for wheel in wheels for tag in wheel.split("-")[-3].split(".")}
    versions = sorted((int(found[1]), int(found[2])) for tag in tags if (found := re.fullmatch(r"cp(\d)(\d+)", tag)))
    return [f"{major}.{minor}" for major, minor in versions]


def repository_index(entries: Sequence[Mapping[str, Any]]) -> str:
    """The text of `index.json`."""
    return json.dumps({"version": "v1", "blocklist": [], "data": list(entries)}, indent=2)


def repository_page(entries: Sequence[Mapping[str, Any]], address: str = "") -> str:
    """A page with links that can be dragged into Blender's window."""
    index = f"{address.rstrip('/') or '.'}/index.json"
    rows = "\n".join(_row(entry, index) for entry in entries)
    title = html.escape(f"{entries[0]['name']} {entries[0]['version']}")
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<h1>{title}</h1>
<p>{html.escape(entries[0]["tagline"])}. Drag the link of your system into Blender's window, or download it and choose
Edit &gt; Preferences &gt; Get Extensions &gt; Install from Disk.</p>
<p>For updates, add <code>{html.escape(index if address else "the address of index.json beside this page")}</code> under
Preferences &gt; Get Extensions &gt; Repositories &gt; Add Remote Repository.</p>
<ul>
{rows}
</ul>
</html>
"""


def _row(entry: Mapping[str, Any], index: str) -> str:
    query = {
        "repository": index,
        "blender_version_min": entry["blender_version_min"],
        "platforms": ",".join(entry["platforms"]),
        "python_versions": ",".join(entry["python_versions"]),
    }
    link = html.escape(f"{entry['archive_url']}?{urlencode(query)}", quote=True)
    return f'<li><a href="{link}">{html.escape(", ".join(entry["platforms"]))}</a>, {entry["archive_size"] / 1e6:.1f} MB</li>'
