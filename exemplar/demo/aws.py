"""What a platform team does beside the pipeline, through the AWS API: prepare the account, deploy, ask.

aws.py prepare HOST REPOSITORY...
aws.py deploy EXEMPLAR WORK ENVIRONMENT VERSION DIGESTS

Endpoint, region and credentials come from the environment, as for every client of AWS.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

PARAMETER = "/account/ecr/main/registry"
DEADLINE = 60  # seconds; a stack of this size takes one


def prepare(host, *repositories):
    """The parameter that the template takes the registry from, and the repositories."""
    boto3.client("ssm").put_parameter(Name=PARAMETER, Value=host, Type="String", Overwrite=True)
    print(f"  ssm {PARAMETER} = {host}")
    for name in repositories:
        # Mutable, because this AWS has no referrers API, so a tag lists the referrers and is updated. ECR has the API,
        # so repositories there should be immutable.
        made = boto3.client("ecr").create_repository(repositoryName=name, imageTagMutability="MUTABLE")["repository"]
        print(f"  ecr {made['repositoryUri']} ({made['imageTagMutability'].lower()})")


def deploy(exemplar, work, environment, version, digests):
    """Deploys the template with its function's code, as `sam build` and `sam deploy` do, and tells what came of it."""
    bucket, key = "exemplar-code", f"{version}.zip"
    store = boto3.client("s3")
    store.create_bucket(Bucket=bucket)
    store.put_object(Bucket=bucket, Key=key, Body=bundle(Path(exemplar), Path(work)))

    template = (Path(exemplar) / "template.yaml").read_text()
    local = "CodeUri: .\n"
    if template.count(local) != 1:
        sys.exit(f"aws.py: `{local.strip()}` is not there just once in the template")
    stack = describe_when_done(
        f"exemplar-{environment}",
        TemplateBody=template.replace(local, f"CodeUri: s3://{bucket}/{key}\n"),
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        Parameters=[
            {"ParameterKey": name, "ParameterValue": value}
            for name, value in [
                ("Environment", environment),
                ("DeploymentVersion", version),
                ("ImageDigests", digests),
            ]
        ],
    )
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    ecs = boto3.client("ecs")
    task = ecs.describe_task_definition(taskDefinition=outputs["TaskDefinition"])["taskDefinition"]
    # This AWS gives a stack's task definition a date that is not of the API's type, and the action refuses it. One that is
    # registered through the API has a right date.
    containers = [{"name": one["name"], "image": one["image"], "memory": 64} for one in task["containerDefinitions"]]
    task = ecs.register_task_definition(family=task["family"], containerDefinitions=containers)["taskDefinition"]
    print(f"  task definition {task['family']}:{task['revision']}")
    for container in task["containerDefinitions"]:
        print(f"    {container['name']:<8} {container['image']}")
    print("  GET /images")
    for image in get(outputs["ApiUrl"], "/images")["images"]:
        print(f"    {image['name']:<15} {image['tag']}  {image['digest']}")


def bundle(exemplar, work):
    """The function's source and what it imports as one file, in an archive."""
    work.mkdir(parents=True)
    shutil.copytree(exemplar / "src", work / "src")
    for name in ("package.json", "package-lock.json", "tsconfig.json"):
        shutil.copy(exemplar / name, work)
    install = "npm ci --silent --no-audit --no-fund --ignore-scripts"
    bundler = "node_modules/.bin/esbuild --bundle --platform=node --target=node22 --format=esm --log-level=warning"
    for command in (install, f"{bundler} src/handler.ts --outfile=handler.mjs"):
        subprocess.run(command.split(), cwd=work, check=True, stdout=sys.stderr)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.write(work / "handler.mjs", "handler.mjs")
    return archive.getvalue()


def describe_when_done(name, **request):
    client = boto3.client("cloudformation")
    client.create_stack(StackName=name, **request)
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        stack = client.describe_stacks(StackName=name)["Stacks"][0]
        if not stack["StackStatus"].endswith("_IN_PROGRESS"):
            break
        time.sleep(0.2)
    if stack["StackStatus"] != "CREATE_COMPLETE":
        for event in client.describe_stack_events(StackName=name)["StackEvents"]:
            if event["ResourceStatus"].endswith("FAILED"):
                print(f"  {event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}", file=sys.stderr)
        sys.exit(f"aws.py: stack {name}: {stack['StackStatus']}")
    print(f"  stack {name}: {stack['StackStatus']}")
    return stack


def get(url, path):
    """A signed request to the deployed API. Only the emulator knows its host name, by the API's ID, and is connected to."""
    session = boto3.session.Session()
    request = AWSRequest("GET", url + path)
    SigV4Auth(session.get_credentials(), "execute-api", session.region_name).add_auth(request)
    address = urllib.parse.urlsplit(url + path)
    headers = {**dict(request.headers), "Host": f"{address.hostname.partition('.')[0]}.execute-api.localhost"}
    sent = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"] + address.path, headers=headers)
    with urllib.request.urlopen(sent, timeout=DEADLINE) as answer:
        return json.load(answer)


if __name__ == "__main__":
    {"prepare": prepare, "deploy": deploy}[sys.argv[1]](*sys.argv[2:])
