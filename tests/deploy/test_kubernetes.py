"""docker/kubernetes: valid objects whose names, ports and settings are those of the image."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service import __version__
from service.metrics import Metrics
from service.settings import PREFIX, Settings, variable
from tests.conftest import ROOT
from tests.deploy.test_images import environment, stage

FOLDER = ROOT / "docker" / "kubernetes"
VARIANTS = ("base", "redis", "gpu")
LABELS = {"app.kubernetes.io/name": "sichtbar"}


def rendered(variant: str, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    command = ["kubectl", "kustomize", str(folder / variant)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return list(yaml.safe_load_all(text))


def is_service(found: dict[str, Any]) -> bool:
    return found["kind"] == "Deployment" and found["metadata"]["name"] == "sichtbar"


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


BASE = {document["kind"]: document for path in (FOLDER / "base").glob("*.yaml") for document in documents(path)}
POD = BASE["Deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl")
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_object_is_as_kubernetes_wants_it(variant: str) -> None:
    objects = rendered(variant)
    assert {found["kind"] for found in objects} >= {"ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Service"}
    for found in objects:
        kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl")
@pytest.mark.parametrize("variant", VARIANTS)
def test_settings_are_known_and_valid(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (settings,) = (found["data"] for found in rendered(variant) if found["kind"] == "ConfigMap")
    assert all(name.startswith(PREFIX) for name in settings)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environ().default_model


def test_every_file_is_part_of_something() -> None:
    for variant in VARIANTS:
        (made,) = documents(FOLDER / variant / "kustomization.yaml")
        named = {*made["resources"], *(patch["path"] for patch in made.get("patches", []))}
        named |= {file for map_ in made.get("configMapGenerator", []) for file in map_.get("envs", [])}
        assert all((FOLDER / variant / name).exists() for name in named)
        assert {path.name for path in (FOLDER / variant).iterdir()} - {"kustomization.yaml"} == named - {"../base"}


def test_the_image_is_this_release_s() -> None:
    (made,) = documents(FOLDER / "base" / "kustomization.yaml")
    assert made["images"] == [{"name": CONTAINER["image"], "newTag": __version__}]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl")
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_that_is_named_in_the_variant_is_every_container_s(variant: str, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    path = tmp_path / variant / "kustomization.yaml"
    (made,) = documents(path)
    # As `kustomize edit set image` does.
    others = [image for image in made.get("images", []) if image["name"] != CONTAINER["image"]]
    made["images"] = [*others, {"name": CONTAINER["image"], "newName": "example.org/mine", "newTag": "2"}]
    path.write_text(yaml.safe_dump(made))
    (pod,) = (found["spec"]["template"]["spec"] for found in rendered(variant, tmp_path) if is_service(found))
    assert {container["image"] for container in pod["initContainers"] + pod["containers"]} == {"example.org/mine:2"}


def test_an_empty_volume_begins_with_the_bundled_models_and_stays_its_owner_s(tmp_path: Path) -> None:
    (begin,) = POD["spec"]["initContainers"]
    models, volume = tmp_path / "models", tmp_path / "volume"
    for version in ("one/1", "other/2"):
        (models / version).mkdir(parents=True)
        (models / version / "manifest.json").write_text(version)
    volume.mkdir(mode=0o750)
    script = begin["command"][-1].replace("/models", str(models)).replace("/volume", str(volume))
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    files = {str(path.relative_to(volume)) for path in volume.rglob("*") if path.is_file()}
    assert files == {"one/1/manifest.json", "other/2/manifest.json"}
    assert volume.stat().st_mode & 0o777 == 0o750
    shutil.rmtree(volume / "one")
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert [path.name for path in volume.iterdir()] == ["other"]


def test_everything_means_the_same_pods() -> None:
    assert POD["metadata"]["labels"] == LABELS
    assert BASE["Deployment"]["spec"]["selector"]["matchLabels"] == LABELS
    assert BASE["Service"]["spec"]["selector"] == LABELS
    assert BASE["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == LABELS
    assert BASE["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == LABELS
    assert BASE["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == BASE["Deployment"]["metadata"]["name"]


def test_everything_means_the_same_port() -> None:
    (port,) = CONTAINER["ports"]
    assert str(port["containerPort"]) == environment(stage("Dockerfile", "service"))["SICHTBAR_PORT"]
    assert POD["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    assert BASE["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert BASE["NetworkPolicy"]["spec"]["ingress"][0]["ports"] == [{"port": port["name"]}]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[probe]["httpGet"]["port"] == port["name"]


def test_a_stop_is_given_longer_than_it_takes() -> None:
    lines = (FOLDER / "base" / "settings.env").read_text(encoding="utf-8").splitlines()
    delay = float(dict(line.split("=", 1) for line in lines)[variable("shutdown_delay")])
    probe = CONTAINER["readinessProbe"]
    assert delay > probe["periodSeconds"] * (probe["failureThreshold"] - 1) + probe["timeoutSeconds"]
    assert POD["spec"]["terminationGracePeriodSeconds"] > delay + Settings().drain_seconds


def test_nobody_has_more_rights_than_needed() -> None:
    user, _ = re.findall(r"^USER (\d+):(\d+)$", stage("Dockerfile", "service"), re.MULTILINE)[0]
    assert POD["spec"]["securityContext"]["runAsUser"] == int(user)
    assert POD["spec"]["securityContext"]["runAsNonRoot"]
    assert not POD["spec"]["automountServiceAccountToken"]
    for container in (*POD["spec"]["initContainers"], CONTAINER):
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_the_disk_holds_what_may_be_kept() -> None:
    (images,) = (volume for volume in POD["spec"]["volumes"] if volume["name"] == "images")
    kept = Settings().store_max_bytes + Settings().explain_max_bytes
    assert int(images["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30 > kept


def test_pods_are_added_by_a_metric_that_the_service_tells() -> None:
    told = {family.name for family in Metrics().registry.collect()}
    (pods,) = (entry["pods"] for entry in BASE["HorizontalPodAutoscaler"]["spec"]["metrics"] if "pods" in entry)
    (rules,) = documents(FOLDER / "prometheus-adapter.yaml")
    (rule,) = rules["rules"]["custom"]
    assert rule["seriesQuery"].startswith(pods["metric"]["name"] + "{")
    assert pods["metric"]["name"] in told
