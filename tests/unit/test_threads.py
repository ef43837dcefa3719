"""How many threads, and how they wait: set by commands where the user did not, never by a library
import.
"""

import os
import subprocess
import sys
import threading

import pytest
import torch

from saelab import threads

FREE = {
    name: value
    for name, value in os.environ.items()
    if name not in (*threads.SET_BY_USER, "OMP_NUM_THREADS")
}
WAITING = "waiting threads"


def run(*words, **env):
    """Standard output of a Python process that inherits nothing about threads but `env`."""
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=True, env=FREE | env
    ).stdout


def waiting(text):
    return next(
        line.removeprefix(WAITING).strip() for line in text.splitlines() if line.startswith(WAITING)
    )


@pytest.fixture
def unset(monkeypatch):
    for name in (*threads.SET_BY_USER, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def kept():
    """Threads as they were, after a test that changes them."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_command_makes_threads_calm_before_torch_loads():
    code = "from saelab.threads import calm; print(calm()); import torch; print(calm())"
    assert run("-c", code).split() == ["True", "False"]
    assert waiting(run("-m", "saelab", "doctor")) in ("GOMP_SPINCOUNT=0", "GOMP_SPINCOUNT=30000")


@pytest.mark.parametrize(
    ("running", "expected"), [("1", "30000"), ("5", "30000"), ("6", "0"), ("12", "0")]
)
def test_threads_never_spin_where_others_want_the_cores(
    unset, monkeypatch, tmp_path, running, expected
):
    """Eight cores, of which this process may use four, so four others leave it all it wants."""
    monkeypatch.setattr(threads, "LOADAVG", tmp_path / "loadavg")
    monkeypatch.setattr(threads, "cores", lambda: 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    threads.LOADAVG.write_text(f"9.20 9.18 9.12 {running}/80 11206\n")
    threads.calm()
    assert os.environ["GOMP_SPINCOUNT"] == expected


def test_a_system_that_does_not_say_what_runs_is_not_crowded(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "LOADAVG", tmp_path / "nothing")
    assert not threads.crowded()


@pytest.mark.parametrize("own", [{"OMP_WAIT_POLICY": "PASSIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_what_the_user_says_of_waiting_is_kept(own):
    ((name, value),) = own.items()
    code = "from saelab.threads import calm, waiting; calm(); print(waiting())"
    assert run("-c", code, **own) == f"{name}={value}\n"


def test_importing_the_library_changes_nothing():
    code = "import os, saelab, torch; n = torch.get_num_threads(); saelab.execute, saelab.SAE; "
    code += "print('GOMP_SPINCOUNT' in os.environ, torch.get_num_threads() == n)"
    assert run("-c", code).split() == ["False", "True"]


def test_workers_are_calm_and_their_parent_stays_as_it_was(unset, monkeypatch):
    with threads.calm_workers():
        assert os.environ["GOMP_SPINCOUNT"] in ("0", "30000")
    assert "GOMP_SPINCOUNT" not in os.environ
    for name, value in (("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "5")):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        monkeypatch.setenv(name, value)
        before = dict(os.environ)
        with threads.calm_workers():
            assert os.environ == before
        assert os.environ == before


def test_number_of_threads(unset, kept, monkeypatch):
    """The user's number; else OMP_NUM_THREADS; else torch's default within this process's share of
    the cores.
    """
    assert threads.use_threads(3) == 3 == torch.get_num_threads()
    monkeypatch.setattr(threads, "cores", lambda: 8)
    torch.set_num_threads(6)
    assert threads.use_threads() == 6  # torch knows about physical cores
    assert threads.use_threads(processes=4) == 2
    assert threads.use_threads(processes=40) == 1
    torch.set_num_threads(6)
    monkeypatch.setattr(threads, "cores", lambda: 1)  # a container's quota
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert threads.use_threads() == 6
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads.use_threads() == 1
    with pytest.raises(
        ValueError,
        match="threads is 0; it is the number of threads of torch and must be at least 1",
    ):
        threads.use_threads(0)


def test_items_side_by_side_share_the_threads(kept):
    """In order, with an equal share of the threads each, and the caller keeps its own."""
    torch.set_num_threads(4)
    both = threading.Barrier(2)  # neither of two goes on until the other one has started

    def work(item):
        both.wait(60)
        return item, torch.get_num_threads(), threading.current_thread()

    with threads.side_by_side(2) as map_:
        (one, other) = map_(work, "ab")
    assert one[:2] == ("a", 2) and other[:2] == ("b", 2) and torch.get_num_threads() == 4
    assert len({one[2], other[2], threading.current_thread()}) == 3
    with threads.side_by_side(1) as map_:
        assert map_ is map
    torch.set_num_threads(1)
    with threads.side_by_side(8) as map_:
        assert map_ is map


def test_cores_follow_the_affinity():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from saelab.threads "
        "import cores; print(cores())"
    )
    assert run("-c", code) == "1\n"
