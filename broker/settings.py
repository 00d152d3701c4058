"""The broker's settings: one frozen tree; each field has its default, unit, bounds and reason.

Durations are seconds, sizes are bytes. `broker.config` fills the tree; everyone else is handed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from broker.face_settings import Jupyter
from broker.units import (
    COUNT,
    DURATION,
    FLAG,
    LABELS,
    MODULES,
    NAMES,
    NUMBER,
    ORIGINS,
    PAIRS,
    PATHS,
    SIZE,
    TEXT,
    or_empty,
    setting,
)
from kernels.spec import DEFAULT_PRELOAD

_STORES = "a URL of redis://, rediss://, unix:// or redis+sentinel://, or nothing"


@dataclass(frozen=True, slots=True)
class Redis:
    """Where the session mapping is kept."""

    url: str = setting(
        "",
        TEXT,
        "Redis or Valkey to use: redis://, rediss://, unix:// or redis+sentinel://host:port/service;"
        " empty starts an embedded Valkey",
        pattern=r"((rediss?|redis\+sentinel|unix)://\S+)?",
        words=_STORES,
        shown=False,
    )
    prefix: str = setting(
        "broker",
        TEXT,
        "first part of every key, so that brokers can share a server",
        pattern=r"[A-Za-z0-9._:-]{1,64}",  # braces would be a hash tag of their own
        words="1 to 64 characters of A-Z a-z 0-9 . _ : -",
    )
    lease: float = setting(
        "15s", DURATION, "a dead node's sessions move after this long", low="1s", high="10m"
    )


@dataclass(frozen=True, slots=True)
class Session:
    """Bounds on one session."""

    queue: int = setting("32", COUNT, "executions that may wait", low="1", high="10000")
    idle_timeout: float = setting(
        "30m", DURATION, "end after this long without an execution", low="50ms", high="365d"
    )
    max_lifetime: float = setting(
        "12h", DURATION, "end this long after it began, when not busy", low="50ms", high="365d"
    )
    execution_timeout: float = setting(
        "5m",
        DURATION,
        "for executions that name none; 0 for none",
        low="10ms",
        high="7d",
        none=True,
    )
    interrupt_grace: float = setting(
        "3s",
        DURATION,
        "between an interrupt, or the end of its time, and the kill",
        low="10ms",
        high="10m",
    )
    record_ttl: float = setting(
        "24h", DURATION, "an ended session's generation is remembered", low="1s", high="365d"
    )
    replay_bytes: int = setting(
        "4M", SIZE, "events kept for a client that reconnects", low="1K", high="1G"
    )
    replay_events: int = setting(
        "1000", COUNT, "events kept for a client that reconnects", low="1", high="1000000"
    )
    transcript_cells: int = setting(
        "200", COUNT, "cells kept of a session's transcript; 0 for none", low="0", high="100000"
    )
    transcript_bytes: int = setting(
        "1M", SIZE, "bytes kept of a session's transcript; 0 for none", low="0", high="1G"
    )
    output_bytes: int = setting(
        "1M", SIZE, "text of one execution; head and tail are kept", low="1K", high="1G"
    )
    display_bytes: int = setting(
        "8M", SIZE, "one rich output; a larger one becomes a note", low="1K", high="1G"
    )
    display_total: int = setting(
        "64M", SIZE, "rich outputs of one execution together", low="1K", high="16G"
    )
    questions: int = setting("16", COUNT, "questions that are open at once", low="1", high="1000")
    tool_calls: int = setting(
        "64", COUNT, "calls of host tools that are open at once; more wait", low="1", high="256"
    )
    tool_grace: float = setting(
        "10s", DURATION, "for a client that serves host tools to come back", low="0s", high="1h"
    )


@dataclass(frozen=True, slots=True)
class Wire:
    """Bounds on one connection."""

    max_frame: int = setting("8M", SIZE, "one incoming message", low="1K", high="1G")
    max_depth: int = setting("32", COUNT, "nesting of a message", low="2", high="200")
    client_backlog: int = setting(
        "8M", SIZE, "unread by one client before it is cut off", low="1K", high="1G"
    )
    ping_interval: float = setting(
        "30s", DURATION, "between pings; a client silent for two is gone", low="50ms", high="1h"
    )
    bad_frames: int = setting(
        "10", COUNT, "bad frames in a row that close a connection", low="1", high="1000"
    )
    allow_origins: tuple[str, ...] = setting(
        "", ORIGINS, "sites whose pages may connect, as https://host:port; its own always may"
    )


@dataclass(frozen=True, slots=True)
class Pool:
    """Bounds on the kernels of this node, all profiles together."""

    max_kernels: int = setting(
        "64", COUNT, "kernels at once, of all profiles", low="1", high="10000"
    )
    start_timeout: float = setting(
        "60s", DURATION, "for a kernel to answer after its start", low="100ms", high="1h"
    )
    acquire_timeout: float = setting(
        "30s", DURATION, "a new session waits this long for a kernel", low="10ms", high="1h"
    )


@dataclass(frozen=True, slots=True)
class Jwt:
    """Whose signed tokens are taken; without a key, none are."""

    secret: str = setting(
        "",
        TEXT,
        "key of HS256 tokens, at least 32 characters",
        pattern=r"([!-~]{32,512})?",
        words="32 to 512 visible ASCII characters",
        secret=True,
        shown=False,
    )
    keys_file: str = setting(
        "", TEXT, "JWKS file of keys for HS256, RS256 and EdDSA; read again when it changes"
    )
    audience: str = setting("", TEXT, "`aud` that a token must have; empty: it must have none")
    issuer: str = setting("", TEXT, "`iss` that a token must have; empty for any")
    leeway: float = setting("30s", DURATION, "that clocks may differ", low="0s", high="10m")
    tenant_claim: str = setting(
        "tenant",
        TEXT,
        "claim that names the tenant, such as sub",
        pattern=r"[A-Za-z0-9_.:/-]{1,128}",
        words="the name of a claim",
    )


@dataclass(frozen=True, slots=True)
class Tenant:
    """What a tenant may use on a node; `[tenant]` is for all, `[tenants.<name>]` for one."""

    profiles: tuple[str, ...] = setting(
        "", LABELS, "profiles it may use, its default first; empty for all"
    )
    sessions: int = setting(
        "0", COUNT, "sessions at once; 0 for no bound", low="1", high="100000", none=True
    )
    running: int = setting(
        "0",
        COUNT,
        "sessions with an execution under way at once; 0 for no bound",
        low="1",
        high="100000",
        none=True,
    )
    cpu_hour: float = setting(
        "0s",
        DURATION,
        "CPU time of its executions in any hour; 0 for no bound",
        low="1s",
        high="3650d",
        none=True,
    )
    memory: int = setting(
        "0",
        SIZE,
        "memory that its sessions may use together, each by its bound; 0 for no bound",
        low="32M",
        high="1024T",
        none=True,
    )
    waiting: int = setting(
        "32", COUNT, "its sessions that may wait for a full node; 0 for none", low="0", high="10000"
    )


@dataclass(frozen=True, slots=True)
class Audit:
    """Where it is noted who did what; nowhere, unless it is said."""

    file: str = setting(
        "",
        TEXT,
        "file of one JSON line for each event, appended to; may be rotated; empty for none",
    )
    log: bool = setting("off", FLAG, "note the events in the log as well, as broker.audit")
    code: bool = setting("off", FLAG, "note code itself, and not its SHA-256 alone")


@dataclass(frozen=True, slots=True)
class Profile:
    """A named recipe for kernels, and how many of them are kept warm."""

    python: str = setting("", TEXT, "interpreter with ipykernel; empty is the broker's own")
    preload: tuple[str, ...] = setting(
        ",".join(DEFAULT_PRELOAD), NAMES, "modules imported once, before kernels are forked"
    )
    warm: int = setting("8", COUNT, "kernels kept ready", low="0", high="10000")
    warm_most: int = setting(
        "32",
        COUNT,
        "kernels kept ready while sessions come fast; at least `warm`, and none where that is 0",
        low="0",
        high="10000",
    )
    cap: int = setting("64", COUNT, "kernels at once, of this profile", low="1", high="10000")
    env: tuple[tuple[str, str], ...] = setting(
        "", PAIRS, "environment variables of its kernels", shown=False
    )
    kernelspec: str = setting("", TEXT, "an installed Jupyter kernelspec to start instead")

    # Bounds on one kernel's whole process tree; a client may ask for lower ones.
    memory: int = setting(
        "1G", SIZE, "memory of a kernel, its files in memory included", low="32M", high="16T"
    )
    processes: int = setting(
        "128", COUNT, "processes and threads of a kernel", low="16", high="100000"
    )
    cpu: float = setting(
        "1", NUMBER, "cores that a kernel may use at once", low="0.05", high="1024"
    )
    cpu_time: float = setting(
        "0s",
        DURATION,
        "CPU time of one execution, all its processes together; 0 for no bound",
        low="50ms",
        high="7d",
        none=True,
    )
    execution_timeout: float | None = setting(
        "",
        or_empty(DURATION),
        "for executions that name none; 0 for none; empty is session.execution_timeout",
        low="10ms",
        high="7d",
        none=True,
    )
    workspace: int = setting("256M", SIZE, "files of a session", low="1M", high="16T")
    workspace_files: int = setting("16384", COUNT, "how many of them", low="64", high="100000000")
    tmp: int = setting(
        "128M", SIZE, "files in /tmp; in /dev/shm as much again", low="1M", high="16T"
    )
    tmp_files: int = setting("8192", COUNT, "how many of them", low="64", high="100000000")
    open_files: int = setting(
        "4096", COUNT, "open at once, of each process", low="64", high="1048576"
    )
    file_size: int = setting("256M", SIZE, "of one file", low="64K", high="16T")

    # What a kernel finds in its sandbox.
    network: str = setting(
        "none", TEXT, "none, or host: whatever this machine can reach", choices=("none", "host")
    )
    paths: tuple[str, ...] = setting(
        "", PATHS, "further directories and files of the host, shown read-only"
    )
    pip: str = setting(
        "off",
        TEXT,
        "what `pip install` in a cell does: off, or session: into the session's files,"
        " with network = host",
        choices=("off", "session"),
    )
    pip_index: str = setting(
        "",
        TEXT,
        "index that it installs from; empty is pip's own; cells can read it",
        pattern=r"(https?://\S+)?",
        words="a URL of http:// or https://, or nothing",
        shown=False,
    )
    allow_imports: tuple[str, ...] = setting(
        "", MODULES, "modules that cells may import; empty for all; a guard rail, and no boundary"
    )
    deny_imports: tuple[str, ...] = setting("", MODULES, "modules that cells may not import")

    # How kernels that share a zygote are kept from each other.
    zygote: str = setting(
        "profile",
        TEXT,
        "whose kernels share a zygote, and with it their address layout: profile or tenant",
        choices=("profile", "tenant"),
    )
    recycle_forks: int = setting(
        "1000", COUNT, "kernels after which a zygote makes way", low="1", high="1000000"
    )
    recycle_after: float = setting(
        "6h", DURATION, "time after which a zygote makes way", low="1s", high="365d"
    )


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting of a broker. `state_dir` and `node` are completed by who reads them."""

    host: str = setting(
        "127.0.0.1",
        TEXT,
        "address to listen on; other than loopback needs a token",
        pattern=r"[A-Za-z0-9.:%_\[\]-]{1,255}",
        words="a host name or an IP address",
    )
    port: int = setting("8787", COUNT, "port to listen on; 0 for a free one", low="0", high="65535")
    state_dir: str = setting(
        "~/.local/state/kernel-broker",
        TEXT,
        "directory of the token, the embedded store and the sockets",
        pattern=r".+",
        words="a directory",
    )
    node: str = setting(
        "",
        TEXT,
        "name among several brokers; empty makes one of the host's name and the directory",
        pattern=r"[A-Za-z0-9._-]{0,64}",
        words="up to 64 characters of A-Z a-z 0-9 . _ -",
    )
    isolation: str = setting(
        "full",
        TEXT,
        "least that kernels must be shut in: full or standard (the best there is is used), or none",
        choices=("full", "standard", "none"),
    )
    orphan_ttl: float = setting(
        "10m", DURATION, "kernels outlive a dead broker for this long", low="100ms", high="30d"
    )
    drain_timeout: float = setting(
        "30s", DURATION, "running executions may finish before an exit", low="0s", high="1d"
    )
    log_level: str = setting(
        "info", TEXT, "least level logged", choices=("debug", "info", "warning", "error")
    )
    token: str = setting(
        "",
        TEXT,
        "access token, at least 16 characters; empty makes one at the first start",
        pattern=r"([!-~]{16,512})?",
        words="16 to 512 visible ASCII characters",
        secret=True,
        shown=False,
    )
    default_profile: str = setting("python", TEXT, "profile of sessions that name none")
    redis: Redis = Redis()
    session: Session = Session()
    wire: Wire = Wire()
    pool: Pool = Pool()
    jwt: Jwt = Jwt()
    audit: Audit = Audit()
    jupyter: Jupyter = field(default_factory=Jupyter)
    tenant: Tenant = Tenant()
    tenants: Mapping[str, Tenant] = field(default_factory=lambda: MappingProxyType({}))
    profiles: Mapping[str, Profile] = field(
        default_factory=lambda: MappingProxyType({"python": Profile()})
    )
