"""What operators do with kubectl, on whichever API server there is: the fake has to answer as the real ones do."""

import json
import subprocess
import time

import pytest
from cluster_tools import Failed, Space

CONTAINERS = [{"name": "vllm", "image": "vllm:1"}]
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "engine", "labels": {"app": "vllm"}},
    "spec": {"containers": CONTAINERS},
}
EVENT_TYPE = 'jsonpath={.type}{"\\n"}'


def config(name: str = "settings", **data: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_apply_changes_adds_and_takes_away(space: Space) -> None:
    space.apply(config(kept="1", changed="1", gone="1"))
    space.apply(config(kept="1", changed="2", new="1"))
    assert space.get("configmap", "settings")["data"] == {"kept": "1", "changed": "2", "new": "1"}


def test_apply_merges_containers_by_their_names(space: Space) -> None:
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": CONTAINERS}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "engines"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template},
    }
    space.apply(deployment)
    sidecar = {"spec": {"template": {"spec": {"containers": [{"name": "envoy", "image": "envoy:1"}]}}}}
    space.kubectl("patch", "deployment", "engines", "--type=strategic", "-p", json.dumps(sidecar))
    containers = space.get("deployment", "engines")["spec"]["template"]["spec"]["containers"]
    assert sorted((each["name"], each["image"]) for each in containers) == [("envoy", "envoy:1"), ("vllm", "vllm:1")]


@pytest.mark.parametrize(
    ("form", "patch"),
    [
        ("merge", {"data": {"a": "2", "b": None}}),
        ("strategic", {"data": {"a": "2", "b": None}}),
        ("json", [{"op": "replace", "path": "/data/a", "value": "2"}, {"op": "remove", "path": "/data/b"}]),
    ],
)
def test_every_form_of_patch(space: Space, form: str, patch: object) -> None:
    space.apply(config(a="1", b="1"))
    space.kubectl("patch", "configmap", "settings", f"--type={form}", "-p", json.dumps(patch))
    assert space.get("configmap", "settings")["data"] == {"a": "2"}


def test_of_two_who_read_the_same_version_one_wins(space: Space) -> None:
    space.apply(config(a="1"))
    read = space.get("configmap", "settings")
    space.kubectl("replace", "-f", "-", stdin=json.dumps({**read, "data": {"a": "first"}}))
    with pytest.raises(Failed, match=r"Conflict|modified"):
        space.kubectl("replace", "-f", "-", stdin=json.dumps({**read, "data": {"a": "second"}}))


def test_server_side_apply_takes_back_what_it_no_longer_says(space: Space) -> None:
    for data in ({"a": "1", "b": "1"}, {"a": "2"}):
        space.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(config(**data)))
    assert space.get("configmap", "settings")["data"] == {"a": "2"}


def test_a_dry_run_stores_nothing(space: Space) -> None:
    space.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(config("not-there")))
    assert "configmap/not-there" not in space.names("configmap")


def test_secrets_and_labels(space: Space) -> None:
    space.kubectl("create", "secret", "generic", "token", "--from-literal=key=value")
    space.kubectl("label", "secret", "token", "of=picker")
    assert space.names("secret", "of=picker") == ["secret/token"]
    assert space.names("secret", "of!=picker,of") == []
    assert space.get("secret", "token")["data"] == {"key": "dmFsdWU="}


def test_a_watch_tells_of_every_change_in_order(space: Space) -> None:
    argv = space.argv("kubectl", "get", "pods", "-l", "app=vllm", "--watch", "--output-watch-events", "-o", EVENT_TYPE)
    with subprocess.Popen(argv, env=space.env, stdout=subprocess.PIPE, text=True) as watch:
        try:
            time.sleep(1)  # kubectl says nothing when it has begun to watch nothing
            space.apply(POD)
            space.kubectl("label", "pod", "engine", "zone=a")
            space.kubectl("label", "pod", "engine", "app-")
            assert watch.stdout is not None
            told = [watch.stdout.readline().strip()]
            while told[-1] != "DELETED":
                told.append(watch.stdout.readline().strip())
            assert told[0] == "ADDED"
            assert set(told[1:-1]) == {"MODIFIED"}
        finally:
            watch.terminate()


def test_delete_waits_until_it_is_gone(space: Space) -> None:
    space.apply(config(a="1"))
    space.kubectl("delete", "configmap", "settings", "--wait=true", "--timeout=30s")
    with pytest.raises(Failed, match=r"NotFound|not found"):
        space.get("configmap", "settings")


def test_resources_are_discovered(space: Space) -> None:
    listed = space.kubectl("api-resources", "--api-group=inference.networking.k8s.io", "-o", "name").split()
    assert listed == ["inferencepools.inference.networking.k8s.io"]
