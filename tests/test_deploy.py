"""The files in deploy/: valid by their schemas, and with commands that overpaint understands."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from overpaint.service.store.objects import blobs_named

DEPLOY = Path(__file__).parents[1] / "deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in KUBERNETES:
        for each in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            yield f"{path.stem}-{each['kind']}-{each['metadata']['name']}", each


RAY_JOB = yaml.safe_load((DEPLOY / "kubernetes/batch-ray.yaml").read_text(encoding="utf-8"))


def pods() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for _, each in documents():
        if each["kind"] in ("Deployment", "Job"):
            yield each, each["spec"]["template"]["spec"]
    yield from ((RAY_JOB, each) for each in ray_pods())


def ray_pods() -> list[dict[str, Any]]:
    cluster = RAY_JOB["spec"]["rayClusterSpec"]
    return [each["template"]["spec"] for each in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def commands() -> list[list[str]]:
    of_pods = [container["args"] for _, pod in pods() for container in pod["containers"] if "args" in container]
    of_ray = shlex.split(RAY_JOB["spec"]["entrypoint"])[1:]
    return [*of_pods, of_ray, COMPOSE["services"]["web"]["command"], COMPOSE["services"]["worker"]["command"]]


def manifests() -> Iterator[Any]:
    """Kubernetes knows nothing of Ray's own kind; the pods in it are pods."""
    for name, each in documents():
        if each["kind"] != "RayJob":
            yield pytest.param(each, id=name)
    for each in ray_pods():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": each}
        yield pytest.param(pod, id=f"ray-{each['containers'][0]['name']}")


@pytest.mark.parametrize("document", list(manifests()))
def test_manifests_are_what_kubernetes_takes(document: dict[str, Any]) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    validate.validate(document, "1.29", strict=True)


def test_ray_asks_for_a_token_and_has_a_worker_for_each_gpu() -> None:
    spec = RAY_JOB["spec"]["rayClusterSpec"]
    assert spec["authOptions"] == {"mode": "token"}
    [workers] = spec["workerGroupSpecs"]
    words = shlex.split(RAY_JOB["spec"]["entrypoint"])
    assert words[words.index("--pool") + 1] == f"{workers['minReplicas']},{workers['maxReplicas']}"
    assert words[words.index("--ray") + 1] == "$RAY_ADDRESS"


@pytest.mark.parametrize("command", commands(), ids=lambda each: each[0])
def test_commands_have_options_that_there_are(command: list[str]) -> None:
    from typer.main import get_command

    from overpaint.cli import app

    group: Any = get_command(app)
    known = {option for each in group.commands[command[0]].params for option in each.opts}
    assert {each for each in command if each.startswith("--")} <= known


def test_a_job_has_as_many_shards_as_pods() -> None:
    from overpaint.files.shards import Shard

    [(job, pod)] = [(job, pod) for job, pod in pods() if job["kind"] == "Job"]
    args = pod["containers"][0]["args"]
    shard = args[args.index("--shard") + 1].replace("$(JOB_COMPLETION_INDEX)", "0")
    assert job["spec"]["completionMode"] == "Indexed"
    assert Shard.parse(shard).of == job["spec"]["completions"] == job["spec"]["parallelism"]


def test_pods_have_what_they_name() -> None:
    claims = {each["metadata"]["name"] for _, each in documents() if each["kind"] == "PersistentVolumeClaim"}
    for owner, pod in pods():
        volumes = {each["name"]: each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"]}
        assert owner["kind"] in ("Job", "RayJob") or set(volumes.values()) <= claims
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        for container in pod["containers"]:
            assert {each["name"] for each in container["volumeMounts"]} == set(volumes)
            assert {"requests", "limits"} <= set(container["resources"])
        if owner["kind"] == "Deployment":
            selected = owner["spec"]["selector"]["matchLabels"]
            assert selected == owner["spec"]["template"]["metadata"]["labels"]
    probed = next(pod for owner, pod in pods() if owner["metadata"]["name"] == "overpaint-web")["containers"][0]
    assert {probed[f"{kind}Probe"]["httpGet"]["path"] for kind in ("readiness", "liveness", "startup")} == {"/healthz"}


def test_compose_names_only_what_there_is() -> None:
    services, volumes, secrets = COMPOSE["services"], COMPOSE["volumes"], COMPOSE["secrets"]
    assert services["worker"]["deploy"]["replicas"] == 2
    for service in services.values():
        named = {each.partition(":")[0] for each in service.get("volumes", ()) if not each.startswith(".")}
        assert named <= set(volumes)
        asked = {each if isinstance(each, str) else each["source"] for each in service.get("secrets", ())}
        assert asked <= set(secrets)
        build = service.get("build")
        assert build is None or (DEPLOY / build["context"] / build["dockerfile"]).is_file()


def test_no_secret_stands_in_a_file() -> None:
    for path in (*KUBERNETES, *DEPLOY.glob("*.yaml"), *DEPLOY.glob("Dockerfile.*")):
        lines = path.read_text(encoding="utf-8").splitlines()
        used = [each for each in lines if not each.lstrip().startswith("#")]
        assert not [each for each in used if re.search(r"://[^@\s]*:[^@\s]*@", each)], path


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.cuda", "Dockerfile.ray"])
def test_images_are_of_what_is_here_and_run_as_nobody(name: str) -> None:
    lines = (DEPLOY / name).read_text(encoding="utf-8").splitlines()
    copied = [part for line in lines if line.startswith("COPY") for part in line.split()[1:-1]]
    assert (copied or "FROM overpaint:cuda" in lines) and all((DEPLOY.parent / each).exists() for each in copied)
    assert any(line.startswith("USER overpaint") for line in lines)


def test_pods_that_keep_pictures_in_a_bucket_share_no_volume_for_them() -> None:
    """As `kubectl apply -k` makes them; it needs no cluster for that."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not installed")
    made = subprocess.run(
        [program, "kustomize", str(DEPLOY / "kubernetes")], capture_output=True, timeout=120, check=True
    )
    found = list(yaml.safe_load_all(made.stdout))
    names = [each["metadata"]["name"] for each in found if each["kind"] == "PersistentVolumeClaim"]
    assert names == ["overpaint-models"]
    pods = [each["spec"]["template"]["spec"] for each in found if each["kind"] == "Deployment"]
    assert len(pods) == 2
    for pod in pods:
        assert {each["name"]: set(each) - {"name"} for each in pod["volumes"]}["pictures"] == {"emptyDir"}
        args = pod["containers"][0]["args"]
        assert blobs_named(args[args.index("--blobs") + 1]).url == "s3://BUCKET/overpaint"
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for each in found:
        validate.validate(each, "1.29", strict=True)
