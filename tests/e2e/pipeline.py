"""The exemplar from commit to prod by its own workflows, and what has to hold after each of them.

pipeline.py FOLDER      with `checkout` (what the engine runs in), `origin.git`, and an AWS that is prepared

Endpoint, region and credentials of that AWS come from the environment. The workflows get the endpoint alone: they have
credentials where they assume a role.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from ruamel.yaml import YAML

import account
import engine
from snyk import Snyk
from workflow import Copy, Drift

REGISTRY = "000000000000.dkr.ecr.us-east-1.amazonaws.com"
# A feature above the tag v1.1.9.
VERSION = "1.2.0"
# The key in the template's mapping, the container in the task definition, and the image.
IMAGES = [("BusyBoxService", "busybox-test", "exemplar-busybox"), ("NginxService", "nginx", "exemplar-nginx")]

# What each job of the workflows has, beside commands that run as they are.
CREDENTIALS = "configure-aws-credentials"
BUILD = {
    "test": ["checkout"],
    "report": ["checkout", "build", "upload-artifact"],
    "build": ["checkout", CREDENTIALS, "build", "upload-artifact", "upload-artifact"],
    "tag": ["tag"],
    "dev": ["checkout", "download-artifact", CREDENTIALS, "publish", CREDENTIALS],
}
PROMOTE = {"promote": ["checkout", CREDENTIALS, "promote", CREDENTIALS]}
LITERAL = {"literal": ["checkout", "build", "publish", "promote", "build", "publish", "promote"]}


class Pipeline:
    def __init__(self, state):
        self.state, self.top = state, Path(__file__).parents[2]
        tools = Path(os.environ["IMAGE_LIFECYCLE_TOOLS"])
        self.records = state / "records"
        self.records.mkdir()
        foreign = re.compile(r"(AWS|GITHUB|RUNNER|INPUT|SNYK)_")
        self.engine = engine.Engine(tools / "bin" / "wrkflw", state, {
            **{name: value for name, value in os.environ.items() if not foreign.match(name)},
            "PATH": f"{Path(__file__).with_name('programs')}:{os.environ['PATH']}",
            "AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "E2E_ORIGIN": str(state / "origin.git"),
            "E2E_DIST": str(state / "checkout" / "dist"),
            "E2E_RECORDS": str(self.records),
            "E2E_TOOL_CACHE": str(tools / "tool-cache"),
        })
        cache = "dkr.ecr.us-east-1.amazonaws.com/dockerhub/library"
        bases = [f"{owner}.{cache}/=oci:{tools}/bases/" for owner in ("111122223333", "444455556666")]
        endpoints = f"{REGISTRY}={os.environ['AWS_ENDPOINT_URL']}"
        self.more = {
            "build": {"base-images": "\n".join(bases)},
            "publish": {"registry-endpoints": endpoints},
            "promote": {"registry-endpoints": endpoints},
        }

    def copy(self, source, event, replaced, values):
        copy = Copy(source, event, values, self.more, self.state / "checkout" / "dist")
        made = copy.make()
        same("the steps that can't run here as they are", copy.replaced, replaced)
        return made

    def workflow(self, name):
        return (self.top / "exemplar" / ".github" / "workflows" / name).read_text()

    def build(self, event, source=None):
        return self.copy(source or self.workflow("build.yml"), event, BUILD, {
            "vars.AWS_ACCOUNT_ID": "444455556666",
            "vars.AWS_BUILD_ROLE": "arn:aws:iam::000000000000:role/build",
            "vars.AWS_PUBLISH_ROLE": "arn:aws:iam::000000000000:role/publish",
            "vars.AWS_DEPLOY_ROLE": "arn:aws:iam::000000000000:role/deploy",
            "steps.set-version.outputs.version": VERSION,
            "needs.build.outputs.version": VERSION,
        })

    def promote(self, target, version=VERSION):
        return self.copy(self.workflow("promote.yml"), "workflow_dispatch", PROMOTE, {
            "vars.AWS_PROMOTE_ROLE": "arn:aws:iam::000000000000:role/promote",
            "vars.AWS_DEPLOY_ROLE": "arn:aws:iam::000000000000:role/deploy",
            "inputs.target": target,
            "inputs.version": version,
        })

    def record(self, name):
        """The outputs of the action in a job's step, `JOB-STEP`, as the engine told them to the step after it."""
        return json.loads((self.records / f"{name}.json").read_text())

    # The runs.

    def drift(self):
        """That a workflow which is no longer what this program knows is not copied."""
        text = self.workflow("build.yml")
        for part, other in [
            ("vars.AWS_DEPLOY_ROLE", "vars.AWS_PUBLISH_ROLE"),
            ("steps.set-version.outputs.version", "steps.set-version.outputs.tag"),
            ("uses: actions/download-artifact", "uses: actions/cache"),
            ("uses: OWNER/REPO/build@v1", "uses: OWNER/OTHER/build@v1"),
            ("uses: OWNER/REPO/publish@v1", "uses: OWNER/REPO/promote@v1"),
            ("fetch-depth: 0", "repository: another"),
            ("base-images:", "base-image:"),
        ]:
            if part not in text:
                raise AssertionError(f"`{part}` is not in the workflow")
            try:
                self.build("push", text.replace(part, other))
            except (Drift, AssertionError) as error:
                print(f"  {str(error).splitlines()[0].rstrip(':')}")
            else:
                raise AssertionError(f"`{other}` in place of `{part}` is not noticed")

    def pull_request(self):
        workflow = self.build("pull_request")
        run = self.engine.run("pull-request", workflow, job="report")
        ran(run, workflow, ["test", "report"], [])
        same("the verdict", self.record("report-build")["verdict"], "pass")
        same("the task definitions", account.families(), [])

    def push(self):
        snyk = Snyk()
        workflow = self.build("push")
        run = self.engine.run("push", workflow, **snyk.environment())
        ran(run, workflow, ["test", "build", "tag", "dev"], ["report"])
        same("the images that Snyk was asked about", snyk.scanned, len(IMAGES))
        origin = ["git", "--git-dir", self.state / "origin.git"]
        same("the tag", *subprocess.check_output([*origin, "rev-parse", f"v{VERSION}", "main"]).split())
        built, published = self.record("build-build"), self.record("dev-publish")
        same("the digests that were published", json.loads(published["digests"]), json.loads(built["digests"]))
        return self.deployed("dev", published)

    def promoted(self, target, digests):
        workflow = self.promote(target)
        run = self.engine.run(f"promote-{target}", workflow)
        ran(run, workflow, ["promote"], [])
        same("the promoted digests", self.deployed(target, self.record("promote-promote")), digests)

    def refused(self, name, target, version, step, reason):
        """A promotion that must not happen: it fails at this step for this reason, and nothing comes after it."""
        before = state()
        run = self.engine.run(name, self.promote(target, version))
        same("that the engine calls it a failure", run.succeeded, False)
        same("its exit code", run.code, 1)
        same("the failed job", run.jobs, [(engine.FAILED, "promote")])
        same("the failed step", [text for _, text in run.steps["promote"]][:1], [step])
        same("that the step began", run.executed(step), True)
        same("that nothing was deployed after it", run.executed("Deploy"), False)
        contains(run.log, reason)
        same("what the account holds", state(), before)

    def deployed(self, environment, outputs):
        """Holds the outputs of publish or promote against what the environment has. Returns the digests."""
        references = {image: f"{REGISTRY}/{image}:{environment}-{VERSION}" for _, _, image in IMAGES}
        digests = {key: account.digest(references[image]) for key, _, image in IMAGES}
        same("the version", outputs["version"], VERSION)
        same("the digests in the registry", digests, json.loads(outputs["digests"]))
        wanted = {name: references[image] for _, name, image in IMAGES}
        family = f"{environment}-test-container"
        same("the containers of the task definition", account.containers(family), wanted)
        # The same image under its other name, in the repository of the environment.
        other = f"{REGISTRY}/exemplar-busybox-{environment}:{VERSION}"
        same("the other name's digest", account.digest(other), digests["BusyBoxService"])
        same("its container", account.containers(f"{family}-per-environment"), {"busybox-test": other})
        images = [{"name": key, "reference": references[image], "digest": digests[key]} for key, _, image in IMAGES]
        answer = account.answer(environment)
        told = [{name: image[name] for name in ("name", "reference", "digest")} for image in answer["images"]]
        same("what the API tells", (answer["environment"], answer["version"]), (environment, VERSION))
        same("the images that the API tells", sorted(told, key=lambda image: image["name"]), images)
        for reference in references.values():
            print(f"  {reference.partition('/')[2]:<30} {account.digest(reference)}")
        return digests

    def literal(self):
        store = self.state / "store"
        text = Path(__file__).with_name("literal.yml").read_text()
        source = YAML().load(text)["jobs"]["literal"]["steps"]
        workflow = self.copy(text, "workflow_dispatch", LITERAL, {"inputs.store": str(store)})
        run = self.engine.run("literal", workflow)
        same("that the engine calls it a success", run.succeeded, True)
        refused = [step for step in source if step.get("continue-on-error")]
        names = [step["name"] for step in refused]
        wanted = engine.expected(workflow, ["literal"])["literal"]
        wanted = [(engine.FAILED if name in names else mark, name) for mark, name in wanted]
        same("the steps", run.steps["literal"], wanted)

        after = {name: next_name for (_, name), (_, next_name) in zip(wanted, wanted[1:])}
        for step in refused:
            said = run.log.split(f"Executing step: {step['name']}\n")[1]
            said = said.split(f"Executing step: {after[step['name']]}\n")[0]
            contains(said, f"input `version`: `{escaped(step['with']['version'])}` is not accepted")

        given = {step.get("name"): step.get("with") for step in source}
        inspect = ["skopeo", "inspect", "--config", f"oci:{store}/exemplar-busybox:test-1.0.0"]
        labels = json.loads(subprocess.check_output(inspect))["config"]["Labels"]
        for line in given["Build with labels"]["labels"].splitlines():
            name, value = line.split("=", 1)
            same(f"the label {name}", labels.get(name), value)
        reason = given["Promote for a reason"]["override"]
        same("the reason in the plan", json.loads(self.record("literal-promote")["plan"])["override"], reason)
        blobs = [path.read_bytes() for path in (store / "exemplar-busybox" / "blobs" / "sha256").iterdir()]
        statements = [json.loads(blob) for blob in blobs if blob.startswith(b'{"_type"')]
        records = [statement["predicate"] for statement in statements]
        reasons = [record["override"] for record in records if record.get("kind") == "promote"]
        same("the reasons in the records", reasons, [reason])
        same("files that a value made", [str(path) for path in self.state.rglob("executed")], [])


def escaped(text):
    """As Rust shows a string, without the quotes around it."""
    for character, shown in [("\\", "\\\\"), ("\n", "\\n"), ('"', '\\"'), ("'", "\\'")]:
        text = text.replace(character, shown)
    return text


def state():
    tags = {image: account.tags(image) for _, _, image in IMAGES}
    return {"tags": tags, "stacks": account.stacks(), "tasks": account.families()}


def ran(run, workflow, jobs, skipped):
    """That the engine ran these jobs, each step of them with success, and no other."""
    if not run.succeeded:
        raise AssertionError("the engine calls it a failure")
    marks = [(engine.SUCCEEDED, name) for name in jobs] + [(engine.SKIPPED, name) for name in skipped]
    same("the jobs", sorted(run.jobs), sorted(marks))
    same("their steps", {name: run.steps[name] for name in jobs}, engine.expected(workflow, jobs))


def same(what, actual, expected):
    if actual != expected:
        raise AssertionError(f"{what}:\n  is:        {actual}\n  should be: {expected}")


def contains(text, part):
    if part not in text:
        raise AssertionError(f"the engine did not show `{part}`")


def main():
    pipeline = Pipeline(Path(sys.argv[1]))

    def part(title, check, *arguments):
        start = time.monotonic()
        print(f"\n== {title}", flush=True)
        result = check(*arguments)
        print(f"  holds ({time.monotonic() - start:.0f} s)", flush=True)
        return result

    part("Copies of workflows that have changed: refused", pipeline.drift)
    part("build.yml for a pull request", pipeline.pull_request)
    digests = part("build.yml for a push: build, publish to dev, deploy", pipeline.push)
    promote = "Promote container images"
    part("promote.yml to prod, past test: refused", pipeline.refused,
         "skipped", "prod", VERSION, promote, f"exemplar-busybox:test-{VERSION}")
    part("promote.yml to test", pipeline.promoted, "test", digests)
    part("promote.yml to prod", pipeline.promoted, "prod", digests)
    part("promote.yml with a version that was never released: refused", pipeline.refused,
         "unreleased", "test", "9.9.9", "Check out with git", "refs/tags/v9.9.9")
    part("Values that a shell would act upon, to each action", pipeline.literal)


if __name__ == "__main__":
    main()
