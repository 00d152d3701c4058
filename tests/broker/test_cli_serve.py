"""Settings on the command line: where each comes from, and how mistakes are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

BROKER = [sys.executable, "-W", "error", "-c", "from broker.cli import main; main()"]


def broker(directory: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BROKER_")}
    return subprocess.run(
        [*BROKER, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**kept, **env},
        cwd=directory,
        check=False,
    )


def settings(directory: Path, *arguments: str, **env: str) -> dict[str, Any]:
    done = broker(directory, "config", "--json", *arguments, **env)
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)["settings"]
    return shown


def test_each_setting_names_its_origin(tmp_path: Path) -> None:
    (tmp_path / "broker.toml").write_text('port = 1\nnode = "from-file"\n[pool]\nmax_kernels = 9\n')
    shown = settings(tmp_path, "--port", "3", BROKER_PORT="2", BROKER_NODE="from-env")
    assert shown["port"] == {"value": "3", "origin": "--port"}
    assert shown["node"] == {"value": "from-env", "origin": "BROKER_NODE"}
    assert shown["pool.max_kernels"] == {"value": "9", "origin": "broker.toml"}
    assert shown["session.idle_timeout"] == {"value": "30m", "origin": "default"}


def test_warm_and_preload_set_the_default_profile(tmp_path: Path) -> None:
    flags = ("--warm", "2", "--preload", "json", "--preload", "csv")
    shown = settings(tmp_path, *flags)
    assert shown["profiles.python.warm"] == {"value": "2", "origin": "--warm"}
    assert shown["profiles.python.preload"] == {"value": "json,csv", "origin": "--preload"}
    (tmp_path / "my.toml").write_text('default_profile = "lab"\n[profiles.lab]\nwarm = 1\n')
    shown = settings(tmp_path, "--config", "my.toml", *flags)
    assert shown["profiles.lab.warm"]["value"] == "2"
    assert settings(tmp_path, BROKER_CONFIG="my.toml")["profiles.lab.warm"]["value"] == "1"


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    done = broker(
        tmp_path, "config", BROKER_TOKEN="s" * 20, BROKER_REDIS_URL="redis://:hidden@host:1/0"
    )
    assert done.returncode == 0, done.stderr
    assert "sss" not in done.stdout
    assert "hidden" not in done.stdout
    assert "***" in done.stdout


def test_every_mistake_is_told_on_a_line_and_the_exit_is_2(tmp_path: Path) -> None:
    for command in ("serve", "config"):
        done = broker(tmp_path, command, "--port", "x", "--warm", "-1", BROKER_NODE="a b")
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 3
        for name in ("--port", "--warm", "BROKER_NODE"):
            assert name in done.stderr


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    done = broker(tmp_path, "config", "--config", "nothing.toml")
    assert done.returncode == 2
    assert "cannot read nothing.toml" in done.stderr


def test_a_broker_may_open_as_many_files_as_its_hard_limit_says() -> None:
    program = """
import resource
from broker.app import raise_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 512))
raise_open_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    said = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert said == "(512, 512)\n"
