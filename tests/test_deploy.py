"""What is in deploy/: linted, and in step with the command. No container is started."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from elmokit.cli import app
from elmokit.serve import Settings, make_app
from serving import make_hosted

DEPLOY = Path(__file__).parents[1] / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")
SERVE = typer.main.get_command(app).commands["serve"]
VARIABLES = {parameter.envvar for parameter in SERVE.params if parameter.envvar}


def tool(name):
    found = shutil.which(name) or shutil.which(str(Path(sys.executable).with_name(name)))
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def manifests():
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8")))


def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))


def container():
    return manifests()[0]["spec"]["template"]["spec"]["containers"][0]


def test_the_dockerfile_passes_the_linter():
    done = subprocess.run([tool("hadolint"), DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_manifest_fits_the_schemas_of_kubernetes():
    command = [tool("kubernetes-validate"), "--strict", DEPLOY / "kubernetes.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_variables_are_those_of_the_command():
    named = set(re.findall(r"\bELMO_[A-Z_]+", DOCKERFILE))
    named |= {variable["name"] for variable in container()["env"]}
    named |= {name for name in compose()["services"]["elmo"]["environment"] if name.startswith("ELMO_")}
    assert named
    assert named <= VARIABLES


def test_what_is_started_is_a_command():
    [entry] = re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)
    [arguments] = re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)
    assert json.loads(entry) == ["elmo"]
    commands = [json.loads(arguments), container()["args"]]
    commands += [service["command"] for service in compose()["services"].values() if "command" in service]
    known = typer.main.get_command(app).commands
    for name, *rest in commands:
        if name in known:  # `elmo index` comes with the extra for search
            known[name].make_context(name, rest)


def test_probes_ask_for_what_is_there():
    routes = make_app([make_hosted()], Settings()).openapi()["paths"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container()[probe]["httpGet"]["path"] in routes
    assert "/health" in DOCKERFILE
    assert "/health" in routes


def test_the_health_check_tells_well_from_ill():
    """The command in the Dockerfile, as it stands there, against a server and against none."""
    [check] = re.findall(r"^  CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    command = [sys.executable, *json.loads(check)[1:]]
    from serving import served

    with served(make_hosted()) as address:
        port = address.rpartition(":")[2]
        assert subprocess.run(command, env={"ELMO_PORT": port}, check=False).returncode == 0
    done = subprocess.run(command, env={"ELMO_PORT": port}, check=False, stderr=subprocess.DEVNULL)
    assert done.returncode != 0


def test_nobody_is_root_and_nothing_is_written():
    [user] = re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)
    pod = manifests()[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == int(user) > 0
    assert pod["securityContext"]["runAsNonRoot"] is True
    rights = container()["securityContext"]
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["allowPrivilegeEscalation"] is False
    assert all(compose()["services"][name]["read_only"] for name in ("index", "elmo"))


def test_there_is_time_to_finish():
    drain = next(int(variable["value"]) for variable in container()["env"] if variable["name"] == "ELMO_DRAIN")
    wait = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert manifests()[0]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain + wait
    assert int(compose()["services"]["elmo"]["stop_grace_period"].rstrip("s")) > Settings().drain


def test_the_build_takes_what_it_copies():
    """What is not let through by .dockerignore cannot be copied."""
    ignore = (DEPLOY.parent / ".dockerignore").read_text("utf-8").split()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    copied = {
        word for line in re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.MULTILINE) for word in shlex.split(line)[:-1]
    }
    assert copied == allowed
    assert all((DEPLOY.parent / name).exists() for name in copied)
