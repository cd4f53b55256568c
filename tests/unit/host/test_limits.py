"""The CPUs and memory that a process may use, read from copies of /proc and /sys."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.host import limits
from quantchat.host.limits import (
    CpuThrottling,
    MemoryLimits,
    UsableMemory,
    compute_threads,
    usable_cpus,
)
from quantchat.session.requests import threads_for
from quantchat.system.host import Host

GIB = 2**30
MIB = 2**20
UNLIMITED = str(2**63 - 4096)
"""What version 1 shows where there is no limit."""

V2 = "31 23 0:28 {root} /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate"
V1 = "35 31 0:32 {root} /sys/fs/cgroup/{name} rw,relatime shared:9 - cgroup cgroup rw,{controllers}"

Machine = namedtuple("Machine", ["total", "available"])


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 CPUs, of which none is forbidden, and 256 GiB with 200 GiB available."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(
        "psutil.virtual_memory", lambda: Machine(total=256 * GIB, available=200 * GIB)
    )


def tree(root: Path, cgroups: str, mounts: str, files: dict[str, str]) -> Path:
    """Write /proc/self/cgroup, /proc/self/mountinfo and `files` of /sys/fs/cgroup below `root`."""
    texts = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    texts |= {"proc/self/cgroup": cgroups, "proc/self/mountinfo": mounts}
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def v2(root: Path, files: dict[str, str], path: str = "/", mounted: str = "/") -> Path:
    return tree(root, f"0::{path}", V2.format(root=mounted), files)


def v1(root: Path, files: dict[str, str], path: str = "/", mounted: str = "/") -> Path:
    """The two controllers, CPU time mounted together with its accounting as distributions do."""
    return tree(
        root,
        f"4:memory:{path}\n3:cpu,cpuacct:{path}\n1:name=systemd:{path}\n0::/",
        "\n".join(
            V1.format(root=mounted, name=name, controllers=name)
            for name in ("memory", "cpu,cpuacct", "cpuset")
        ),
        files,
    )


# ------------------------------------------------------------ CPUs


def test_a_machine_without_cgroups_gives_what_the_affinity_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert usable_cpus(tmp_path) == 64
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert usable_cpus(tmp_path) == 1


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("200000 100000", 2),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("max 100000", 64),
        ("", 64),
        ("200000", 64),
        ("200000 0", 64),
        ("rubbish 100000", 64),
    ],
)
def test_a_cpu_quota_of_version_2(quota: str, cpus: int, tmp_path: Path) -> None:
    assert usable_cpus(v2(tmp_path, {"cpu.max": quota})) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("400000", 4), ("-1", 64), ("0", 1)])
def test_a_cpu_quota_of_version_1(quota: str, cpus: int, tmp_path: Path) -> None:
    files = {"cpu,cpuacct/cpu.cfs_quota_us": quota, "cpu,cpuacct/cpu.cfs_period_us": "100000"}
    assert usable_cpus(v1(tmp_path, files)) == cpus


def test_the_lowest_quota_on_the_way_up_decides(tmp_path: Path) -> None:
    files = {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "cpu.max": "900000 100000"}
    assert usable_cpus(v2(tmp_path, files, path="/a/b")) == 3
    assert usable_cpus(v2(tmp_path, files | {"c/cpu.max": "1 1"}, path="/a/b")) == 3


def test_a_container_sees_its_own_cgroup_as_the_root(tmp_path: Path) -> None:
    """Docker without a cgroup namespace: the path is the host's, and the mount shows its end."""
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}
    for path, mounted in (
        ("/docker/0a1b", "/docker/0a1b"),
        ("/docker/0a1b", "/elsewhere"),
        ("/../../x", "/"),
    ):
        assert usable_cpus(v1(tmp_path, files, path=path, mounted=mounted)) == 2, (path, mounted)


def test_a_pair_of_workers_shares_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpus, alone, together in ((1, 1, 1), (2, 2, 1), (5, 5, 2)):
        monkeypatch.setattr("quantchat.session.requests.compute_threads", lambda cpus=cpus: cpus)
        assert (threads_for(1), threads_for(2)) == (alone, together)


def test_no_more_threads_are_asked_for_than_openmp_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN leaves the part of a thread that is not started uncomputed."""
    monkeypatch.setattr("quantchat.host.limits.usable_cpus", lambda: 4)
    for limit, threads in (("", 4), ("1", 1), ("3", 3), ("9", 4), ("0", 1), ("two", 4)):
        monkeypatch.setenv("OMP_THREAD_LIMIT", limit)
        assert compute_threads() == threads, limit


# ------------------------------------------------------------ memory


def test_a_machine_without_cgroups_gives_its_own_memory(tmp_path: Path) -> None:
    assert MemoryLimits(tmp_path).usable() == UsableMemory(256 * GIB, 200 * GIB)


def test_a_memory_limit_of_version_2(tmp_path: Path) -> None:
    """What is cached of files can be dropped: it does not count as used."""
    files = {
        "memory.max": str(8 * GIB),
        "memory.current": str(5 * GIB),
        "memory.stat": f"anon {2 * GIB}\ninactive_file {3 * GIB}\nactive_file 0",
    }
    assert MemoryLimits(v2(tmp_path, files)).usable() == UsableMemory(8 * GIB, 6 * GIB)


def test_a_memory_limit_of_version_1(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": str(900 * MIB),
        "memory/memory.usage_in_bytes": str(400 * MIB),
        "memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {100 * MIB}",
    }
    assert MemoryLimits(v1(tmp_path, files)).usable() == UsableMemory(900 * MIB, 600 * MIB)


@pytest.mark.parametrize("limit", ["max", UNLIMITED, str(512 * GIB), "", "?"])
def test_what_limits_nothing_is_no_limit(limit: str, tmp_path: Path) -> None:
    for files in ({"memory.max": limit}, {"memory/memory.limit_in_bytes": limit}):
        for make in (v1, v2):
            usable = MemoryLimits(make(tmp_path, files)).usable()
            assert usable == UsableMemory(256 * GIB, 200 * GIB)


def test_nested_memory_limits_each_count(tmp_path: Path) -> None:
    """A slice of 16 GiB that others have nearly filled, and in it a container of 8 GiB."""
    files = {
        "a/memory.max": str(16 * GIB),
        "a/memory.current": str(15 * GIB),
        "a/b/memory.max": str(8 * GIB),
        "a/b/memory.current": str(2 * GIB),
    }
    usable = MemoryLimits(v2(tmp_path, files, path="/a/b")).usable()
    assert usable == UsableMemory(8 * GIB, GIB)


def test_above_the_high_mark_nothing_is_to_be_had(tmp_path: Path) -> None:
    files = {"memory.max": str(8 * GIB), "memory.high": str(4 * GIB), "memory.current": str(GIB)}
    assert MemoryLimits(v2(tmp_path, files)).usable() == UsableMemory(4 * GIB, 3 * GIB)


def test_a_full_cgroup_has_nothing_available(tmp_path: Path) -> None:
    files = {"memory.max": str(GIB), "memory.current": str(2 * GIB)}
    assert MemoryLimits(v2(tmp_path, files)).usable() == UsableMemory(GIB, 0)


def test_the_sample_of_the_machine_is_of_what_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So plan, doctor, header and snapshot, which all read it, show that."""
    files = {"cpu.max": "300000 100000", "memory.max": str(8 * GIB), "memory.current": str(GIB)}
    root = v2(tmp_path, files)
    monkeypatch.setattr("quantchat.system.host.usable_cpus", lambda: usable_cpus(root))
    monkeypatch.setattr("quantchat.system.host.MemoryLimits", lambda: MemoryLimits(root))
    sample = Host().sample()
    assert (sample.cores, sample.ram_total, sample.ram_used) == (3, 8 * GIB, GIB)


# ------------------------------------------------------------ rubbish


_line = st.text(alphabet="0123456789:/.,-\\ acgroupmemory2x\n", max_size=60)


@given(cgroups=_line, mounts=_line, stat=_line)
def test_whatever_the_kernel_says_it_is_read(
    cgroups: str, mounts: str, stat: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("tree")
    tree(root, f"0::/\n{cgroups}", f"{V2.format(root='/')}\n{mounts}", {"memory.stat": stat})
    assert 1 <= usable_cpus(root) <= 64
    usable = MemoryLimits(root).usable()
    assert 0 <= usable.available <= usable.total


def test_a_mount_point_may_hold_a_space(tmp_path: Path) -> None:
    assert limits._plain(r"/sys/fs/c\040g") == "/sys/fs/c g"


# ------------------------------------------------------------ stopped by a quota


def test_the_time_that_a_quota_stopped_us_is_that_of_the_cgroup_stopped_longest(
    tmp_path: Path,
) -> None:
    stat = "usage_usec 9\nnr_throttled 3\nthrottled_usec {}"
    files = {"cpu.stat": stat.format(1_500_000), "a/cpu.stat": stat.format(2_250_000)}
    assert CpuThrottling(v2(tmp_path / "2", files, path="/a")).seconds() == 2.25
    files = {"cpu,cpuacct/cpu.stat": "nr_periods 9\nnr_throttled 3\nthrottled_time 1500000000"}
    assert CpuThrottling(v1(tmp_path / "1", files)).seconds() == 1.5
    assert CpuThrottling(v2(tmp_path / "none", {})).seconds() == 0
