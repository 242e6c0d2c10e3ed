"""Prints what belongs to each entry of an OCI layout, as JSON.

    closure.py LAYOUT

The output is a list in the order of `index.json`: `{"name", "digest", "manifests": [...], "blobs": [...], "missing":
[...], "referrers": [[SUBJECT, REFERRER], ...], "above": [...]}`. Manifests and blobs include those of the referrers, and
`above` is what else is reached through subjects. It shares no code with the programs under test.
"""

import json
import pathlib
import sys

NAME = "org.opencontainers.image.ref.name"


class Layout:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.entries = json.loads((self.folder / "index.json").read_text())["manifests"] or []
        self.subjects = self.all_subjects()

    def blob(self, digest):
        path = self.folder / "blobs" / digest.replace(":", "/")
        return path.read_bytes() if path.is_file() else None

    def manifest(self, descriptor):
        """Returns the manifest that a descriptor names, or nothing if it names another blob."""
        is_manifest = ".manifest." in descriptor["mediaType"] or ".index." in descriptor["mediaType"]
        content = self.blob(descriptor["digest"]) if is_manifest else None
        return json.loads(content) if content else None

    def all_subjects(self):
        """Returns the descriptors of referrers by their subject. Lists under fallback tags are entries, too."""
        subjects, seen, queue = {}, set(), list(self.entries)
        while queue:
            descriptor = queue.pop()
            if descriptor["digest"] in seen:
                continue
            seen.add(descriptor["digest"])
            manifest = self.manifest(descriptor) or {}
            queue += manifest.get("manifests") or []
            if manifest.get("subject"):
                subjects.setdefault(manifest["subject"]["digest"], []).append(descriptor)
        return subjects

    def closure(self, root, with_subjects=False):
        manifests, blobs, missing, referrers, queue = set(), set(), set(), set(), [root]
        while queue:
            descriptor = queue.pop()
            digest = descriptor["digest"]
            if digest in manifests | blobs:
                continue
            manifest = self.manifest(descriptor)
            if manifest is None:
                blobs.add(digest)
                if self.blob(digest) is None:
                    missing.add(digest)
                continue
            manifests.add(digest)
            queue += (manifest.get("manifests") or []) + (manifest.get("layers") or [])
            queue += [manifest["config"]] if manifest.get("config") else []
            if with_subjects and manifest.get("subject"):
                queue.append(manifest["subject"])
            for referrer in self.subjects.get(digest, []):
                referrers.add((digest, referrer["digest"]))
                queue.append(referrer)
        above = set()
        if not with_subjects:
            further = self.closure(root, with_subjects=True)
            above = set(further["manifests"] + further["blobs"]) - manifests - blobs
        return {
            "name": (root.get("annotations") or {}).get(NAME),
            "digest": root["digest"],
            "manifests": sorted(manifests),
            "blobs": sorted(blobs),
            "missing": sorted(missing),
            "referrers": sorted(referrers),
            "above": sorted(above),
        }


layout = Layout(sys.argv[1])
json.dump([layout.closure(entry) for entry in layout.entries], sys.stdout)
