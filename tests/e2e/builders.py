"""The exemplar's pull-request job under act, once for each builder that a machine may offer.

builders.py FOLDER      with `checkout`, in which `dist` is the release tree

act evaluates expressions, composite actions and outputs by itself and runs the job on this machine. The job is the one
of the workflow, but for what needs GitHub: artifacts, and the jobs before it.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

import child

WITHOUT_DOCKER = "/usr/bin:/bin:/usr/sbin:/sbin"
CACHE = "111122223333.dkr.ecr.us-east-1.amazonaws.com/dockerhub/library"
# Each with what the log has to say about the builder, and whether the job runs as root.
BUILDERS = {
    "classic": ("Docker's own BuildKit", True),
    "containerd": ("buildx", True),
    "rootless": ("buildah", False),
}
# The job's user without root: subordinate ids from a file of its own, so that nothing of the machine changes.
UNPRIVILEGED = """\
printf 'nobody:200000:65536\\n' >"$1"
for file in /etc/subuid /etc/subgid; do [ -e $file ] || : >$file; mount --bind "$1" $file; done
shift
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
"""
RECORD = """\
cp -R "$LAYOUT" "$RECORD"
echo "$DIGESTS" >"$RECORD/digests.json"
"""


def job(text, inputs):
    """The job, without what another machine or GitHub would have to answer."""
    workflow = YAML().load(text)
    report = workflow["jobs"]["report"]
    del report["needs"]
    kinds, steps = [], []
    for step in report["steps"]:
        kind = step["uses"].split("@")[0] if "uses" in step else step["name"]
        kinds.append(kind)
        if kind == "OWNER/REPO/build":
            step["uses"] = "./dist/build"
            step["with"].update(inputs)
            told = "steps.build.outputs"
            record = {"name": "Record the outputs", "env": {name: f"${{{{ {told}.{name.lower()} }}}}" for name in ("DIGESTS", "LAYOUT")}}
            steps += [step, {**record, "run": LiteralScalarString(RECORD)}]
        elif kind == "actions/checkout":
            steps += [step, {"name": "Bring the actions", "run": '[ -e dist ] || cp -R "$DIST" dist'}]
    # Another step has to be looked at here first.
    same("the steps of the job", kinds, ["actions/checkout", "OWNER/REPO/build", "actions/upload-artifact"])
    report["steps"] = steps
    workflow["jobs"] = {"report": report}
    workflow["on"] = {"pull_request": None}
    return workflow


class Builders:
    def __init__(self, state):
        self.state, self.top = state, Path(__file__).parents[2]
        self.tools = Path(os.environ["IMAGE_LIFECYCLE_TOOLS"])
        self.act = self.tools / "python-e2e" / "bin" / "act"
        self.workflow = (self.top / "exemplar" / ".github" / "workflows" / "build.yml").read_text()

    def run(self, name):
        expected, as_root = BUILDERS[name]
        folder = self.state / name
        checkout = folder / "checkout"
        folder.mkdir()
        shutil.copytree(self.state / "checkout", checkout, symlinks=True)
        # Where a user without root can read them.
        for kind in ("bases", "tool-cache"):
            shutil.copytree(self.tools / kind, folder / kind, symlinks=True)
        inputs = {"base-images": f"{CACHE}/=oci:{folder}/bases/"}
        path = checkout / ".github" / "workflows" / "build.yml"
        with path.open("w") as file:
            yaml = YAML()
            yaml.width = 1 << 16
            yaml.dump(job(self.workflow, inputs), file)
        engine = None
        if as_root:
            engine = self.engine(folder / "engine", name)
        try:
            return self.job(name, folder, engine or {"PATH": WITHOUT_DOCKER}, expected, as_root)
        finally:
            if engine:
                subprocess.run([self.script(), "stop", folder / "engine"], check=True)

    def job(self, name, folder, environment, expected, as_root):
        record, home = folder / "record", folder / "home"
        home.mkdir()
        variables = {
            **child.clean(),
            **environment,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_CACHE_HOME": str(home / "cache"),
        }
        given = {**environment, "DIST": str(self.state / "checkout" / "dist"), "RUNNER_TOOL_CACHE": str(folder / "tool-cache"), "RECORD": str(record)}
        command = [self.act, "pull_request", "--job", "report", "--platform", "ubuntu-24.04=-self-hosted"]
        command += [part for pair in given.items() for part in ("--env", "=".join(pair))]
        if not as_root:
            subprocess.run(["chown", "-R", "65534:65534", folder], check=True)
            unshared = ["unshare", "--mount", "--propagation", "private", "bash", "-euc", UNPRIVILEGED, "bash"]
            command = [*unshared, folder / "ids", *command]
        code, log = child.run(command, folder / "checkout", variables, self.state / f"{name}.log")
        if code != 0:
            print(log[-4000:], file=sys.stderr)
        same(f"the exit code of {name} (see {name}.log)", code, 0)
        chosen = next((line for line in log.splitlines() if "| builder: " in line), "")
        if expected not in chosen:
            raise SystemExit(f"builders: {name} took another builder than {expected}: {chosen}")
        digests = json.loads((record / "digests.json").read_text())
        return {image: content(record, digest) for image, digest in digests.items()}

    def script(self):
        return self.top / "tests" / "support" / "tools" / "buildkit"

    def engine(self, folder, name):
        """Starts a Docker Engine. Returns what a client needs in its environment."""
        store = ["classic"] if name == "classic" else []
        started = subprocess.run(
            [self.script(), "start", folder, str(os.getpid()), *store], check=True, stdout=subprocess.PIPE, text=True
        )
        return dict(line.split("=", 1) for line in started.stdout.splitlines())


def content(layout, digest):
    """What a container gets of an image: its files and its settings; and the digests of its uncompressed layers."""

    def blob(digest):
        return layout / "blobs" / digest.replace(":", "/")

    manifest = json.loads(blob(digest).read_text())
    config = json.loads(blob(manifest["config"]["digest"]).read_text())
    files = {}
    for layer in manifest["layers"]:
        with tarfile.open(blob(layer["digest"])) as archive:
            for member in archive:
                whole = archive.extractfile(member).read() if member.isreg() else b""
                about = (member.type, member.mode & 0o7777, member.uid, member.gid, member.linkname)
                files[member.name.strip("./")] = (*about, hashlib.sha256(whole).hexdigest())
    settings = {key: config[key] for key in ("os", "architecture", "config")}
    return {"files": files, "settings": settings, "layers": config["rootfs"]["diff_ids"]}


def same(what, found, expected):
    if found != expected:
        raise SystemExit(f"builders: {what}: {found!r}, not {expected!r}")


def main():
    builders = Builders(Path(sys.argv[1]))
    found = {name: builders.run(name) for name in BUILDERS}
    first, *others = found
    same("the images", sorted(found[first]), ["BusyBoxService", "NginxService"])
    for image, expected in found[first].items():
        for other in others:
            for kind in ("files", "settings"):
                there = found[other][image][kind]
                names = [name for name in {**there, **expected[kind]} if there.get(name) != expected[kind].get(name)]
                same(f"what {other} and {first} disagree on in the {kind} of {image}", names, [])
        # buildah gives folders that a COPY touches other times.
        same(f"the layers of {image} by containerd, beside classic", found["containerd"][image]["layers"], expected["layers"])
    print(f"{', '.join(found)}: the exemplar's images hold the same")


main()
