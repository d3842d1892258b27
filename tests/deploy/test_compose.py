"""docker-compose.yml: what is started when, as whom, with settings that the service knows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import PREFIX, Settings, variable
from tests.conftest import ROOT
from tests.deploy.test_images import stage

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
SERVING = ("sichtbar", "gpu", "replica")


def settings(name: str) -> dict[str, str]:
    """A service's settings, with the defaults of Compose's own variables."""
    given = SERVICES[name]["environment"]
    return {
        key: re.sub(r"\$\{\w+:?-(.*?)\}", r"\1", str(value)) for key, value in given.items() if key.startswith(PREFIX)
    }


def volumes(name: str) -> list[tuple[str, str]]:
    """What is mounted, and where."""
    plain = [re.sub(r"\$\{\w+:?-(.*?)\}", r"\1", volume) for volume in SERVICES[name].get("volumes", [])]
    return [(volume.split(":")[0], volume.split(":")[1]) for volume in plain]


def test_up_starts_the_service_prometheus_and_grafana_and_profiles_the_rest() -> None:
    started = {name: service.get("profiles", ["-"])[0] for name, service in SERVICES.items()}
    assert started == {
        "sichtbar": "-",
        "prometheus": "-",
        "grafana": "-",
        "gpu": "gpu",
        "replica": "redis",
        "redis": "redis",
        "balancer": "redis",
        "train": "train",
    }


@pytest.mark.parametrize("name", SERVING)
def test_settings_are_known_and_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in settings(name).items():
        monkeypatch.setenv(key, value)
    # An unknown one is an error.
    assert Settings.from_environ().shutdown_delay > 0


@pytest.mark.parametrize("name", SERVING)
def test_a_stop_is_given_longer_than_it_takes(name: str) -> None:
    given = Settings(shutdown_delay=float(settings(name)[variable("shutdown_delay")]))
    grace = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
    assert grace > given.shutdown_delay + given.drain_seconds


@pytest.mark.parametrize("name", SERVICES)
def test_nobody_has_more_rights_than_needed(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    # Training writes reports wherever it is told to.
    assert service.get("read_only", False) == (name != "train")


def test_what_is_mounted_is_there() -> None:
    for name in SERVICES:
        for source, _ in volumes(name):
            if source.startswith("./"):
                assert source == "./pictures" or (ROOT / source).exists(), (name, source)
            else:
                assert source in COMPOSE["volumes"], (name, source)


def test_what_is_trained_is_published_where_the_service_looks() -> None:
    looked = {source for name in SERVING for source, place in volumes(name) if place == "/models"}
    published = {source for source, place in volumes("train") if place == "/train/models"}
    assert looked == published == {"models"}


def test_whichever_image_fills_the_volume_of_models_brings_the_bundled_ones() -> None:
    for name in (*SERVING, "train"):
        build = SERVICES[name]["build"]
        file = (ROOT / build["dockerfile"]).read_text(encoding="utf-8")
        (place,) = (place for source, place in volumes(name) if source == "models")
        instructions = stage(Path(build["dockerfile"]).name, build["target"]) if "target" in build else file
        assert re.search(rf"^COPY .*\bmodels (/system)?{place}$", instructions, re.MULTILINE), name


def test_no_two_services_have_one_port() -> None:
    ports = [port.split(":")[-2] for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == len(set(ports)) == 5


def test_what_shows_figures_listens_on_this_machine_alone() -> None:
    for name in ("prometheus", "grafana"):
        assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])


def test_prometheus_asks_every_service_that_serves() -> None:
    config = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert set(found["names"]) == set(SERVING)
    assert all(port.endswith(f":{found['port']}") for name in SERVING for port in SERVICES[name].get("ports", []))


def test_grafana_asks_prometheus() -> None:
    path = ROOT / "docker" / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(path.read_text(encoding="utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    scraped = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]


def compose() -> list[str] | None:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
            return command
    return None


@pytest.mark.skipif(not compose(), reason="no docker compose")
@pytest.mark.parametrize("profile", ["", "gpu", "redis", "train", "*"])
def test_compose_accepts_the_file(profile: str) -> None:
    command = [*(compose() or []), "--profile", profile, "config", "--quiet"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr
