"""What the account holds, read through the API of AWS and the registry's own, by neither the actions nor the engine."""

import hashlib
import os
import sys
import urllib.request
from pathlib import Path

import boto3

sys.path.append(str(Path(__file__).parents[2] / "exemplar" / "demo"))
import aws  # noqa: E402, what the demo asks its API with

MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


def digest(reference):
    """Of what the registry serves under this reference, computed from its bytes; ECR's API has to say the same."""
    repository, tag = reference.split("/", 1)[1].rsplit(":", 1)
    request = urllib.request.Request(f"{os.environ['AWS_ENDPOINT_URL']}/v2/{repository}/manifests/{tag}")
    request.add_header("accept", ", ".join(MANIFESTS))
    with urllib.request.urlopen(request, timeout=60) as answer:
        computed = "sha256:" + hashlib.sha256(answer.read()).hexdigest()
    asked = boto3.client("ecr").describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])
    told = [image["imageDigest"] for image in asked["imageDetails"]]
    if told != [computed]:
        raise AssertionError(f"{reference}: the registry serves {computed}, and ECR tells {told}")
    return computed


def tags(repository):
    """All of the repository's, but for those that stand for a referrers list."""
    images = boto3.client("ecr").describe_images(repositoryName=repository)["imageDetails"]
    return sorted(tag for image in images for tag in image.get("imageTags", []) if not tag.startswith("sha256-"))


def containers(family):
    """Container and image of the newest task definition of a family."""
    task = boto3.client("ecs").describe_task_definition(taskDefinition=family)["taskDefinition"]
    return {container["name"]: container["image"] for container in task["containerDefinitions"]}


def stacks():
    """Name and status of what is deployed."""
    told = boto3.client("cloudformation").describe_stacks()["Stacks"]
    return {stack["StackName"]: stack["StackStatus"] for stack in told if stack["StackName"].startswith("exemplar-")}


def answer(environment):
    """What the deployed API tells about itself."""
    stack = boto3.client("cloudformation").describe_stacks(StackName=f"exemplar-{environment}")["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    return aws.get(outputs["ApiUrl"], "/images")


def families():
    """The families of task definitions that there are."""
    return boto3.client("ecs").list_task_definition_families()["families"]
