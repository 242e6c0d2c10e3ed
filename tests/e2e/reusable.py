"""The reusable workflows, called by the smallest example and by a repository with hostile names, under act.

reusable.py FOLDER      with `checkout`, in which `dist` is the release tree, and an AWS that is prepared

act evaluates inputs, expressions, matrices and outputs by itself, as the caller gives them. Replaced is what needs
GitHub or an account: artifacts, credentials, and `$/build`, which is the action in the tree of the workflow.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

import account
import child
from snyk import TOKEN, Snyk

REGISTRY = "000000000000.dkr.ecr.us-east-1.amazonaws.com"
ROLES = {name: f"arn:aws:iam::000000000000:role/{name}" for name in ("AWS_ROLE", "AWS_BUILD_ROLE")}
# What the jobs have, apart from commands that run as they are.
CREDENTIALS = "configure-aws-credentials"
COSIGN = "cosign-installer"
LINK = "Link the reports"
STEPS = {
    "images-pull-request.yml": {
        "plan": ["checkout", "build"],
        "report": ["checkout", "build", "upload-artifact", "upload-artifact"],
        "verdict": [],
        "preview": ["checkout", "download-artifact", "promote"],
    },
    "images-release.yml": {
        "plan": ["checkout", "build"],
        "build": ["checkout", CREDENTIALS, "build", "upload-artifact", "upload-artifact"],
        "publish": ["checkout", "download-artifact", COSIGN, "publish", CREDENTIALS],
    },
    "images-promote.yml": {"promote": ["checkout", COSIGN, "promote", CREDENTIALS]},
}
# What a shell would act upon, and YAML and JSON too.
HOSTILE = "it's \"a\"; touch executed; $(touch executed) `touch executed` ${HOME}\n'\" && touch executed #"
# The same, as a branch or a folder may be called.
HOSTILE_NAME = "it's-\"a\";$(touch${IFS}executed)`touch${IFS}executed`"

ASSUME = """\
[[ $ROLE == arn:aws:iam::*:role/* ]]
for name in AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN; do echo "$name=test"; done >>"$GITHUB_ENV"
for name in AWS_REGION AWS_DEFAULT_REGION; do echo "$name=$REGION"; done >>"$GITHUB_ENV"
echo "$ROLE" >>"$E2E/assumed"
"""
CHECKOUT = """\
git init --quiet .
git fetch --quiet --depth 1 "file://$E2E/checkout" "${REF:-$GITHUB_SHA}"
git checkout --quiet --detach FETCH_HEAD
ln -s "$E2E/dist" dist
"""
UPLOAD = """\
mkdir -p "$E2E/artifacts/$NAME"
cp -R "$FOLDER/." "$E2E/artifacts/$NAME"
echo "artifact-url=https://artifacts.example/$NAME" >>"$GITHUB_OUTPUT"
"""
SUMMARY = 'cat "$GITHUB_STEP_SUMMARY" >>"$E2E/$JOB.summary"\n'
DOWNLOAD_ONE = 'mkdir -p "$FOLDER"\ncp -R "$E2E/artifacts/$NAME/." "$FOLDER"\n'
DOWNLOAD = 'mkdir -p "$FOLDER"\ncp -R "$E2E/artifacts/"$PATTERN "$FOLDER"\n'
# What is left of a value that was executed, and what the step was given.
RECORD = """\
[ -z "$(find . -name executed)" ]
jq --null-input '$ENV | with_entries(select(.key | startswith("OUTPUT_")) | .key |= ltrimstr("OUTPUT_"))' >"$E2E/$RECORD"
"""


def step(name, script, source=None, **environment):
    kept = {key: source[key] for key in ("id", "if") if source and key in source}
    return {"name": name, **kept, "shell": "bash", "env": environment, "run": LiteralScalarString(script)}


def replaced(job, source, declared, more):
    """The steps that take the place of one, and its kind; no kind for a step that runs as it is."""
    if "run" in source and source["name"] == LINK:
        # Each step has a summary of its own.
        source["env"]["JOB"] = job
        source["run"] = LiteralScalarString(f"{source['run']}\n{SUMMARY}")
    if "run" in source:
        return None, [source]
    kind = source["uses"].split("@")[0].rpartition("/")[2]
    given = source.get("with", {})
    if source["uses"] == f"$/{kind}":
        source["uses"] = f"./dist/{kind}"
        unknown = set(given) - set(declared[kind]["inputs"])
        same(f"inputs that {kind} does not have", unknown, set())
        given.update(more.get(kind, {}))
        outputs = {f"OUTPUT_{name}": f"${{{{ steps.{source['id']}.outputs.{name} }}}}" for name in declared[kind]["outputs"]}
        return kind, [source, step("Record the outputs", RECORD, RECORD=f"{job}.json", **outputs)]
    if kind == "checkout":
        return kind, [step("Check out with git", CHECKOUT, REF=given.get("ref", ""))]
    if kind == "upload-artifact":
        return kind, [step("Upload", UPLOAD, source, NAME=given["name"], FOLDER=given["path"])]
    if kind == "download-artifact" and "name" in given:
        return kind, [step("Download", DOWNLOAD_ONE, source, NAME=given["name"], FOLDER=given["path"])]
    if kind == "download-artifact":
        return kind, [step("Download", DOWNLOAD, source, PATTERN=given["pattern"], FOLDER=given["path"])]
    if kind == COSIGN:
        return kind, [step("Install cosign", "command -v cosign\n", source)]
    if kind == CREDENTIALS:
        return kind, [step("Assume a role", ASSUME, source, ROLE=given["role-to-assume"], REGION=given["aws-region"])]
    raise SystemExit(f"reusable: nothing is known about `{source['uses']}`")


class Repository:
    """A repository that calls the workflows, and what its runs leave."""

    def __init__(self, state, files, more):
        self.state, self.checkout = state, state / "checkout"
        top = Path(__file__).parents[2]
        tools = Path(os.environ["IMAGE_LIFECYCLE_TOOLS"])
        self.act = tools / "python-e2e" / "bin" / "act"
        self.tools = tools
        state.mkdir()
        dist = state.parent / "checkout" / "dist"
        (state / "dist").symlink_to(dist)
        shutil.copytree(files, self.checkout)
        workflows = self.checkout / ".github" / "workflows"
        yaml = YAML()
        yaml.width = 1 << 16
        for path in workflows.iterdir():
            # The one line that a person changes for actions that are not released: where the workflows are.
            path.write_text(re.sub(r"OWNER/REPO/(\S+)@v1", r"./\1", path.read_text()))
        declared = {kind: yaml.load(dist / kind / "action.yml") for kind in ("build", "publish", "promote")}
        for name, jobs in STEPS.items():
            # As it is in the tree that callers name.
            workflow = yaml.load(dist / ".github" / "workflows" / name)
            same(f"{name} in the tree and in the sources", (dist / ".github" / "workflows" / name).read_text(),
                 (top / ".github" / "workflows" / name).read_text())
            kinds = {}
            for job, content in workflow["jobs"].items():
                pairs = [replaced(job, source, declared, more) for source in content["steps"]]
                kinds[job] = [kind for kind, _ in pairs if kind]
                content["steps"] = [made for _, steps in pairs for made in steps]
            same(f"the steps of {name}", kinds, jobs)
            with (workflows / name).open("w") as file:
                yaml.dump(workflow, file)
        git = ["git", "-C", self.checkout, "-c", "user.name=e2e", "-c", "user.email=e2e@example.com"]
        subprocess.run([*git, "init", "--quiet", "--initial-branch=main"], check=True)
        subprocess.run([*git, "add", "--all"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", "Add the image"], check=True)
        subprocess.run([*git, "tag", "v1.0.0"], check=True)
        subprocess.run([*git, "remote", "add", "origin", "https://github.com/example/one-image.git"], check=True)

    def run(self, name, workflow, event, payload, variables={}, environment={}):
        """Runs a workflow of the repository for an event. Returns whether it succeeded, and its log."""
        for left in ("artifacts", "assumed", *(f"{job}.{kind}" for jobs in STEPS.values() for job in jobs for kind in ("json", "summary"))):
            path = self.state / left
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        (self.state / "event.json").write_text(json.dumps(payload))
        (self.state / "home").mkdir(exist_ok=True)
        given = {
            "E2E": str(self.state),
            "RUNNER_TOOL_CACHE": str(self.tools / "tool-cache"),
            "AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            **environment,
        }
        command = [self.act, event, "--workflows", f".github/workflows/{workflow}", "--eventpath", self.state / "event.json"]
        command += [part for label in ("ubuntu-24.04", "ubuntu-24.04-arm") for part in ("--platform", f"{label}=-self-hosted")]
        command += ["--no-cache-server", "--secret", f"SNYK_TOKEN={TOKEN}", "--secret", "GITHUB_TOKEN=none"]
        command += [part for pair in given.items() for part in ("--env", "=".join(pair))]
        command += [part for pair in variables.items() for part in ("--var", "=".join(pair))]
        own = {"HOME": str(self.state / "home"), "XDG_CACHE_HOME": str(self.state / "home" / "cache")}
        code, log = child.run(command, self.checkout, {**child.clean(), **own}, self.state / f"{name}.log")
        same("files that a value made", [str(path) for path in self.state.rglob("executed")], [])
        return code == 0, log

    def succeeds(self, name, *arguments, **more):
        succeeded, log = self.run(name, *arguments, **more)
        if not succeeded:
            print(log[-6000:], file=sys.stderr)
            raise SystemExit(f"reusable: {name} failed, see {self.state / name}.log")
        return log

    def record(self, job):
        """The outputs of the action in a job, as the workflow's next step saw them."""
        return json.loads((self.state / f"{job}.json").read_text())

    def summary(self, job):
        return (self.state / f"{job}.summary").read_text()

    def assumed(self):
        path = self.state / "assumed"
        return path.read_text().split() if path.exists() else []


def one_image(state):
    """The example from a pull request to prod, as its own workflows call the reusable ones."""
    tools = os.environ["IMAGE_LIFECYCLE_TOOLS"]
    endpoints = f"{REGISTRY}={os.environ['AWS_ENDPOINT_URL']}"
    base = f"public.ecr.aws/lambda/python:3.13=oci:{tools}/bases/busybox:1.37"
    example = Path(__file__).parents[2] / "examples" / "one-image"
    repository = Repository(state / "one-image", example, {
        "build": {"base-images": base},
        "publish": {"registry-endpoints": endpoints},
        "promote": {"registry-endpoints": endpoints},
    })
    boto3.client("ecr").create_repository(repositoryName="hello", imageTagMutability="MUTABLE")

    head = {"ref": HOSTILE_NAME, "sha": "0" * 40, "repo": {"full_name": "example/one-image"}}
    request = {"number": 7, "title": HOSTILE, "head": head, "base": {"ref": "main", "sha": "0" * 40}}
    repository.succeeds("report", "images.yml", "pull_request", {"pull_request": request})
    same("the verdict", repository.record("report")["verdict"], "pass")
    same("roles that a pull request assumes", repository.assumed(), [])
    same("the reports", sorted(path.name for path in (repository.state / "artifacts").iterdir()), ["reports-all"])
    contains(repository.summary("report"), "[Download the reports](https://artifacts.example/reports-all)\n")

    snyk = Snyk()
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    tag = {"ref": "refs/tags/v1.0.0"}
    repository.succeeds("release", "images.yml", "push", tag, variables=ROLES, environment={**credentials, **snyk.environment()})
    same("the images that Snyk was asked about", snyk.scanned, 1)
    same("the roles", repository.assumed(), [ROLES["AWS_BUILD_ROLE"], ROLES["AWS_ROLE"]])
    published = repository.record("publish")
    same("the version", published["version"], "1.0.0")
    deployed(published, "dev")
    for target in ("test", "prod"):
        inputs = {"inputs": {"version": "1.0.0", "to": target}}
        repository.succeeds(f"promote-{target}", "promote.yml", "workflow_dispatch", inputs, variables=ROLES, environment=credentials)
        same("the digests", repository.record("promote")["digests"], published["digests"])
        deployed(published, target)

    # With the environment's name, a pull request also shows what it would change there.
    (repository.checkout / ".github" / "workflows" / "preview.yml").write_text(PREVIEW)
    given = {"variables": {"AWS_PREVIEW_ROLE": ROLES["AWS_ROLE"]}, "environment": credentials}
    before = account.tags("hello")
    repository.succeeds("preview", "preview.yml", "pull_request", {"pull_request": request}, **given)
    same("the images of the preview", [delta["name"] for delta in json.loads(repository.record("preview")["delta"])], ["Hello"])
    same("the tags after a preview", account.tags("hello"), before)
    # A fork has no token for the role.
    fork = {**request, "head": {**head, "repo": {"full_name": "somebody/one-image"}}}
    repository.succeeds("fork", "preview.yml", "pull_request", {"pull_request": fork}, **given)
    same("that a fork has no preview", (repository.state / "preview.json").exists(), False)

    # What a person types when they start the workflow. Nothing of it is run, and nothing changes.
    before = account.tags("hello")
    for name, inputs, reason in [
        ("version", {"version": HOSTILE, "to": "test"}, "invalid refspec"),
        ("environment", {"version": "1.0.0", "to": HOSTILE}, "input `to`: `it\\'s \\\"a\\\"; touch executed"),
    ]:
        succeeded, log = repository.run(f"hostile-{name}", "promote.yml", "workflow_dispatch", {"inputs": inputs}, variables=ROLES, environment=credentials)
        same(f"that a hostile {name} is refused", succeeded, False)
        contains(log, reason)
    same("the tags", account.tags("hello"), before)
    print("  one-image: report, release, test, prod, preview; hostile names are refused")


def deployed(outputs, environment):
    """That the environment's function has the published image."""
    reference = f"{REGISTRY}/hello:{environment}-1.0.0"
    same("the digest in the registry", {"Hello": account.digest(reference)}, json.loads(outputs["digests"]))
    resources = boto3.client("cloudformation").describe_stack_resources(StackName=f"hello-{environment}")["StackResources"]
    (function,) = [part["PhysicalResourceId"] for part in resources if part["ResourceType"] == "AWS::Lambda::Function"]
    same("the function's image", boto3.client("lambda").get_function(FunctionName=function)["Code"]["ImageUri"], reference)


PREVIEW = """\
name: preview
on: pull_request
permissions: {}
jobs:
  report:
    permissions: {contents: read, pull-requests: write, id-token: write}
    uses: ./.github/workflows/images-pull-request.yml
    with: {preview: dev}
"""
CALLER = """\
name: caller
on: {pull_request: {}, workflow_dispatch: {inputs: {version: {type: string}}}}
permissions: {}
jobs:
  called:
    permissions: {contents: read, id-token: write, pull-requests: write}
    uses: ./.github/workflows/%s
    with: %s
  after:
    needs: called
    if: always()
    runs-on: ubuntu-24.04
    steps:
      - env:
          DIGESTS: "${{ needs.called.outputs.digests }}"
          VERSION: "${{ needs.called.outputs.version }}"
          VERDICT: "${{ needs.called.outputs.verdict }}"
        run: |
          printf '%%s' "$VERSION $DIGESTS" >"$E2E/after"
          printf '%%s' "$VERDICT" >"$E2E/verdict"
"""
PLATFORMS = """\
registry-parameter: /account/ecr/main/registry
environments: [dev, test, prod]
images:
  Both: {imageName: both, platforms: "linux/amd64,linux/arm64"}
  Arm: {imageName: arm, platforms: linux/arm64}
"""
DEPLOY = '#!/usr/bin/env bash\nprintf "%s\\n" "$@" >"$E2E/deployed"\n'


def hostile(state):
    """Two platforms on runners of their own, in a folder and with inputs that a shell would act upon."""
    source = state / "hostile-files"
    folder = source / HOSTILE_NAME
    folder.mkdir(parents=True)
    (folder / "images.yaml").write_text(PLATFORMS)
    # With `FAILS=arm64`, there is no file for that platform.
    (folder / "Dockerfile").write_text("FROM scratch\nARG TARGETARCH TEXT FAILS\nLABEL text=$TEXT\nCOPY for-$TARGETARCH-$FAILS /\n")
    for name in ("for-amd64-", "for-arm64-", "for-amd64-arm64"):
        (folder / name).touch()
    script = folder / f"deploy {HOSTILE_NAME}"
    script.write_text(DEPLOY)
    script.chmod(0o755)
    store = state / "hostile-store"
    first_line = HOSTILE.partition("\n")[0]
    inputs = {
        "version": "${{ inputs.version }}",
        "working-directory": HOSTILE_NAME,
        "native-runners": True,
        "build-args": f"TEXT={first_line}",
        "extra-tags": "also-{version}",
        "registry": f"oci:{store}",
        "scan-threshold": "off",
        "deploy": script.name,
    }
    workflows = source / ".github" / "workflows"
    workflows.mkdir(parents=True)
    (workflows / "caller.yml").write_text(CALLER % ("images-release.yml", json.dumps(inputs)))
    repository = Repository(state / "hostile", source, {"build": {"scan": "off"}})
    subprocess.run(["git", "-C", repository.checkout, "branch", HOSTILE_NAME], check=True)

    def call(name, workflow, given, event="workflow_dispatch"):
        (repository.checkout / ".github" / "workflows" / "caller.yml").write_text(CALLER % (workflow, json.dumps(given)))
        head = {"ref": HOSTILE_NAME, "sha": "0" * 40, "repo": {"full_name": "example/one-image"}}
        payload = {"inputs": {"version": "2.0.0"}, "pull_request": {"number": 7, "head": head, "base": {"ref": "main", "sha": "0" * 40}}}
        return repository.run(name, "caller.yml", event, payload, variables={"AWS_ROLE": ROLES["AWS_ROLE"]})

    def called(environment):
        """That the deploy script and the calling workflow got what the action says."""
        same("what the script got", (repository.state / "deployed").read_text().splitlines(), [environment, "2.0.0", json.dumps(digests, separators=(",", ":"))])
        same("the outputs of the workflow", (repository.state / "after").read_text(), f"2.0.0 {json.dumps(digests, separators=(',', ':'))}")

    succeeded, log = call("release", "images-release.yml", inputs)
    same("that the release succeeds", (succeeded, log if not succeeded else ""), (True, ""))
    names = ["container-images-linux-amd64", "container-images-linux-arm64", "reports-linux-amd64", "reports-linux-arm64"]
    same("the artifacts", sorted(path.name for path in (repository.state / "artifacts").iterdir()), names)
    for suffix in ("linux-amd64", "linux-arm64"):
        contains(repository.summary("build"), f"[Download the reports](https://artifacts.example/reports-{suffix})\n")
    digests = json.loads(repository.record("publish")["digests"])
    for image, platforms in [("both", ["amd64", "arm64"]), ("arm", ["arm64"])]:
        raw = json.loads(skopeo("inspect", "--raw", f"oci:{store}/{image}:dev-2.0.0"))
        architectures = [entry["platform"]["architecture"] for entry in raw["manifests"]] if "manifests" in raw else platforms
        same(f"the platforms of {image}", sorted(architectures), platforms)
        config = json.loads(skopeo("inspect", "--config", "--override-arch", platforms[-1], f"oci:{store}/{image}:dev-2.0.0"))
        same(f"the architecture of {image}", config["architecture"], platforms[-1])
        same(f"the label of {image}", config["config"]["Labels"]["text"], first_line)
    called("dev")

    promotion = {
        "version": "${{ inputs.version }}",
        "to": "test",
        "ref": HOSTILE_NAME,
        "working-directory": HOSTILE_NAME,
        "require": "lint\nsbom\nprovenance\nplatforms",
        "lift-hold": HOSTILE,
        "registry": f"oci:{store}",
        "deploy": script.name,
    }
    succeeded, log = call("promote", "images-promote.yml", promotion)
    same("that the promotion succeeds", (succeeded, log if not succeeded else ""), (True, ""))
    called("test")

    report = {name: inputs[name] for name in ("working-directory", "build-args", "scan-threshold")}
    succeeded, log = call("report", "images-pull-request.yml", {**report, "images": "Arm"})
    same("that the report succeeds", (succeeded, log if not succeeded else ""), (True, ""))
    same("the images of the report", list(json.loads(repository.record("report")["digests"])), ["Arm"])
    same("the verdict of the workflow", (repository.state / "verdict").read_text(), "pass")

    # Each platform on its runner, and a preview of what they make together.
    native = {**report, "native-runners": True, "preview": "dev", "registry": f"oci:{store}"}
    succeeded, log = call("native", "images-pull-request.yml", native, event="pull_request")
    same("that the report of two platforms succeeds", (succeeded, log if not succeeded else ""), (True, ""))
    same("the artifacts of the report", sorted(path.name for path in (repository.state / "artifacts").iterdir()), names)
    same("the verdict of both platforms", (repository.state / "verdict").read_text(), "pass")
    deltas = {delta["name"]: delta for delta in json.loads(repository.record("preview")["delta"])}
    same("the images of the preview", sorted(deltas), ["Arm", "Both"])
    same("the platforms of the preview", sorted(deltas["Both"]["platforms"]), ["linux/amd64", "linux/arm64"])

    # The platform that cannot be built decides, whichever job is the last.
    failing = {**native, "preview": "", "build-args": "TEXT=x\nFAILS=arm64"}
    succeeded, log = call("failing", "images-pull-request.yml", failing, event="pull_request")
    same("that a platform fails", succeeded, False)
    combined = re.search(r"verdict of all platforms +\].*::set-output:: verdict=(\w+)", log)
    same("the verdict of both platforms", combined and combined[1], "fail")

    # A script's name is not a command.
    succeeded, log = call("no-script", "images-promote.yml", {**promotion, "deploy": "$(touch executed); touch executed"})
    same("that a missing script is a failure", succeeded, False)
    contains(log, "./$(touch executed); touch executed: No such file or directory")
    print("  hostile: two platforms, each on its runner, are one image; no value is run")


def skopeo(*arguments):
    return subprocess.check_output(["skopeo", *arguments])


def same(what, found, expected):
    if found != expected:
        raise SystemExit(f"reusable: {what}:\n  is:        {found!r}\n  should be: {expected!r}")


def contains(text, part):
    if part not in text:
        raise SystemExit(f"reusable: the engine did not show `{part}`")


def main():
    state = Path(sys.argv[1]) / "reusable"
    state.mkdir()
    (state / "checkout").symlink_to(Path(sys.argv[1]) / "checkout")
    one_image(state)
    hostile(state)


main()
