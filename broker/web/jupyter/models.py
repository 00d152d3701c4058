"""Sessions as Jupyter writes kernels, notebooks and kernelspecs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from broker.principal import Deed, Principal
from broker.session import Session
from broker.web.jupyter.titles import Notebook

Json = dict[str, Any]
PYTHON = "python3"  # always there: the profile of sessions that name none
ALIASES = ("", "python", PYTHON)  # of that profile, where no other is called so
LIVE = "session-"  # begins the kernelspec that stands for a live session
LOGO = "logo-svg"
RESTART = "restart"  # why a session has no kernel while it is given a new one
# As Jupyter's own starts: some clients look at it to tell Python from the rest.
ARGV = ["python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
ASPECTS = ("kernels", "sessions", "kernelspecs", "server")
ACTIONS: dict[str, Deed] = {"read": Deed.READ, "write": Deed.RUN, "execute": Deed.RUN}


def stamp(seconds: float) -> str:
    """Return Unix seconds as Jupyter's servers write a time."""
    # Some 2 µs, where strftime takes twice that: there is one in each of a thousand rows.
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def execution_state(session: Session) -> str:
    """Return what Jupyter calls the state of a session's kernel."""
    if session.kernel is not None:
        return "busy" if session.occupied else "idle"
    if not session.lost_reason:
        return "starting"
    # The session is alive: what is asked of it next gets a new kernel.
    return "restarting" if session.lost_reason == RESTART else "dead"


def kernel_model(session: Session, kernel_id: str, spec: str) -> Json:
    """Return a session as a kernel."""
    state = execution_state(session)
    model: Json = {
        "id": kernel_id,
        "name": spec,
        "last_activity": stamp(max(session.work.last_used, session.created)),
        "execution_state": state,
        "connections": len(session.audience.clients),
    }
    if state == "dead":
        model["reason"] = session.lost_reason
    return model


def notebook_model(notebook: Notebook, kernel: Json) -> Json:
    """Return a notebook, which Jupyter calls a session."""
    model: Json = {
        "id": notebook.id,
        "path": notebook.path,
        "name": notebook.name,
        "type": notebook.type,
        "kernel": kernel,
    }
    if notebook.type == "notebook":
        model["notebook"] = {"path": notebook.path, "name": notebook.name}
    return model


def own_notebook(session: Session, kernel_id: str) -> Notebook:
    """Return a session as the notebook that it is to whoever has called it nothing else."""
    path = f"{session.name}.ipynb"
    return Notebook(kernel_id, kernel_id, path, path, "notebook")


def spec_model(name: str, shown: str, language: str, mount: str) -> Json:
    """Return one kernelspec; `mount` is what stands before `/kernelspecs` in its resources."""
    is_python = language == "python"
    return {
        "name": name,
        "spec": {
            "argv": ARGV if is_python else [],
            "env": {},
            "display_name": shown,
            "language": language,
            "interrupt_mode": "message",
            "metadata": {"debugger": True} if is_python else {},
        },
        "resources": {LOGO: f"{mount}/kernelspecs/{name}/{LOGO}.svg"},
    }


def profile_specs(
    profiles: Iterable[str], default: str, languages: Mapping[str, tuple[str, str]]
) -> dict[str, tuple[str, str]]:
    """Return by kernelspec how each profile is shown, and its language; `default` is `python3`."""
    found = {}
    for profile in profiles:
        language = language_of(profile, languages)
        found[profile] = (f"{language.capitalize()} ({profile})", language)
    if PYTHON not in found:
        language = language_of(default, languages)
        shown = "Python 3" if language == "python" else language.capitalize()
        found = {PYTHON: (shown, language), **found}
    return found


def language_of(profile: str, languages: Mapping[str, tuple[str, str]]) -> str:
    """Return the language of a profile's kernels."""
    return languages.get(profile, (PYTHON, "python"))[1]


def identity(principal: Principal) -> Json:
    """Return who a token speaks for."""
    tenant = principal.tenant
    return {
        "username": tenant,
        "name": tenant,
        "display_name": tenant,
        "initials": tenant[:2].upper(),
        "avatar_url": None,
        "color": None,
    }


def permissions(principal: Principal, asked: Mapping[str, Any]) -> Json:
    """Return of the actions that are asked about, by resource, those that are allowed."""
    told: Json = {}
    for aspect, actions in asked.items():
        known = aspect in ASPECTS and isinstance(actions, list)
        wanted = [one for one in actions if isinstance(one, str)] if known else []
        told[aspect] = [one for one in wanted if one in ACTIONS and principal.may(ACTIONS[one])]
    return told
