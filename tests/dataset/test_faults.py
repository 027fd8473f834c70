"""Runs that are killed, starved and damaged: what is there is whole, nothing is lost, nothing is there twice."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import threading
import time
from functools import partial

import dataset_models as models
import numpy as np
import psutil
import pytest
from dataset_models import rows, table_explainer
from tqdm.auto import tqdm

import deepshap
from deepshap import explain_dataset
from deepshap.dataset import run, workers
from deepshap.dataset.folder import intact_parts, parts_in
from deepshap.dataset.sources import Batch

pytestmark = pytest.mark.long

COUNT, SIZE, PARTS = 40, 4, 10


@pytest.fixture(scope="module")
def explainer():
    found = table_explainer()
    found(rows(2))  # what is computed once is inherited by all children
    return found


@pytest.fixture(scope="module")
def names(explainer, tmp_path_factory):
    """The parts of an undisturbed run; their names are digests of their contents."""
    found = explain(explainer, tmp_path_factory.mktemp("undisturbed"))
    return [path.name for path in found.paths]


def explain(explainer, folder, count=COUNT, **options):
    return explain_dataset(explainer, rows(count), folder, rows_per_part=SIZE, progress=False, **options)


def child(work):
    """Run something in a process of its own, which is forked and so there at once."""
    process = os.fork()
    if process:
        return process
    try:
        tqdm.set_lock(threading.RLock())  # a child that is killed must not hold the lock that all processes share
        work()
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)


def ended(process):
    """How a child ended."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def wait_for_a_part(process, folder):
    """Wait until a child has written something; it must not end before."""
    while not parts_in(folder):
        assert psutil.Process(process).status() != psutil.STATUS_ZOMBIE
        time.sleep(0.01)


def check(folder, names):
    """Whatever happened: parts are whole, and those of an undisturbed run."""
    sound, damaged = intact_parts(folder) if folder.exists() else ({}, [])
    assert not damaged
    assert {path.name for path in sound.values()} <= set(names)
    return len(sound)


def test_kill_at_a_hundred_random_moments(explainer, names, tmp_path):
    chance, killed, complete = random.Random(0), 0, 0
    begun = time.monotonic()
    explain(explainer, tmp_path / "timed")
    longest = time.monotonic() - begun
    folder = tmp_path / "0"
    for _ in range(100):
        process = child(partial(explain, explainer, folder))
        time.sleep(chance.uniform(0, longest / 2))
        os.kill(process, signal.SIGKILL)
        killed += ended(process) == -signal.SIGKILL
        if check(folder, names) == PARTS:
            complete += 1
            assert explain(explainer, folder).statistics["resumed_parts"] == PARTS
            folder = tmp_path / str(complete)
    assert killed > 50
    found = explain(explainer, folder)
    assert [path.name for path in found.paths] == names
    assert not [path for path in folder.iterdir() if path.name.startswith(".writing-")]


def test_kill_at_every_file_operation(explainer, tmp_path):
    """A run of three parts, killed before its first file operation, its second, its third, ..."""
    step, code = 0, -signal.SIGKILL
    names = [path.name for path in explain(explainer, tmp_path / "undisturbed", 3 * SIZE).paths]
    while code == -signal.SIGKILL:
        step += 1
        folder = tmp_path / str(step)
        code = ended(child(partial(killed_at, step, folder, explainer)))
        check(folder, names)
        assert [path.name for path in explain(explainer, folder, 3 * SIZE).paths] == names
    assert code == 0
    assert step > 3 * 3


def killed_at(step, folder, explainer):
    left = [step]

    def count(event, arguments):
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate") and str(folder) in str(arguments[0]):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    explain(explainer, folder, 3 * SIZE)


def test_a_full_disk(explainer, names, tmp_path):
    """The kernel refuses to write more than so many bytes to a file, in the middle of a part."""
    size = max(path.stat().st_size for path in explain(explainer, tmp_path / "sizes").paths)

    def starved():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
        with pytest.raises(OSError, match="while part 0 was written; all parts before stay"):
            explain(explainer, tmp_path / "full")

    (tmp_path / "full").mkdir()
    leave_no_parts(explainer, tmp_path / "full")
    assert ended(child(starved)) == 0
    assert check(tmp_path / "full", names) == 0
    assert not list((tmp_path / "full").glob(".writing-*"))
    assert [path.name for path in explain(explainer, tmp_path / "full").paths] == names


def test_a_disk_without_room(explainer, names, tmp_path, monkeypatch):
    """The kernel says ENOSPC: what is written aside goes to /dev/full, as soon as two parts are there."""
    written = run.write_part

    def write(folder, number, content):
        if number == 2:
            (tmp_path / f".writing-{names[2]}").symlink_to("/dev/full")
        return written(folder, number, content)

    monkeypatch.setattr(run, "write_part", write)
    with pytest.raises(OSError, match="No space left on device while part 2 was written; all parts before stay"):
        explain(explainer, tmp_path)
    monkeypatch.undo()
    assert check(tmp_path, names) == 2
    assert not list(tmp_path.glob(".writing-*"))
    assert [path.name for path in explain(explainer, tmp_path).paths] == names


def leave_no_parts(explainer, folder):
    for path in explain(explainer, folder).paths:
        path.unlink()


def test_clocks_that_jump(explainer, names, tmp_path, monkeypatch):
    leave_no_parts(explainer, tmp_path)
    chance = random.Random(1)
    monkeypatch.setattr(time, "time", lambda: chance.uniform(-1e9, 1e11))
    explain(explainer, tmp_path)
    for path in parts_in(tmp_path).values():
        os.utime(path, (chance.uniform(0, 1e10),) * 2)
    next(iter(parts_in(tmp_path).values())).unlink()
    found = explain(explainer, tmp_path)
    assert [path.name for path in found.paths] == names
    assert found.statistics["resumed_parts"] == PARTS - 1
    assert found.statistics["seconds"] >= 0


# ---------------------------------------------------------------------- several processes
def loky_workers(process):
    found = []
    for one in process.children(recursive=True):
        try:
            found += [one] if "loky.backend.popen_loky" in " ".join(one.cmdline()) else []
        except psutil.Error:
            continue
    return found


def test_workers_give_the_same_and_one_that_is_killed_is_replaced(tmp_path):
    explainer, options = table_explainer(models.Slow()), {"effort": 9, "seed": 3}
    wanted = [path.name for path in explain(explainer, tmp_path / "one", **options).paths]
    killed = []

    def kill():
        while not killed and threading.main_thread().is_alive():
            if (tmp_path / "two").exists() and len(parts_in(tmp_path / "two")) >= 2:
                victim = loky_workers(psutil.Process())[0]
                victim.kill()
                killed.append(victim.pid)
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    found = explain(explainer, tmp_path / "two", workers=2, **options)
    killer.join()
    assert killed
    assert [path.name for path in found.paths] == wanted
    assert not loky_workers(psutil.Process())


def test_workers_end_with_the_process_that_started_them(tmp_path):
    explainer = table_explainer(models.Slow())
    process = child(lambda: explain(explainer, tmp_path, workers=2))
    wait_for_a_part(process, tmp_path)
    left = loky_workers(psutil.Process(process))
    assert len(left) == 2
    os.kill(process, signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL
    assert not psutil.wait_procs(left, timeout=20)[1]
    done = len(parts_in(tmp_path))
    assert explain(explainer, tmp_path).statistics["resumed_parts"] == done


def test_a_part_that_kills_every_worker_ends_the_run(explainer, monkeypatch):
    import loky
    from loky.backend import get_context

    monkeypatch.setattr(workers, "_explain", killing)
    pool = workers._Pool(lambda: loky.ProcessPoolExecutor(1, context=get_context("fork")), 2)
    batches = (Batch(i, None, np.arange(1)) for i in range(6))
    found = pool.explain(batches)
    done = []
    with pytest.raises(deepshap.DeepShapError, match="worker processes died"):
        done.extend(batch.number for batch, _ in found)
    pool.close()
    assert 3 not in done


def test_workers_that_cannot_load_the_model_say_why(tmp_path):
    import loky
    from loky.backend import get_context

    arguments = (str(tmp_path / "none"), os.getpid())
    pool = workers._Pool(
        lambda: loky.ProcessPoolExecutor(
            1, context=get_context("fork"), initializer=workers._initialize, initargs=arguments
        ),
        2,
    )
    with pytest.raises(deepshap.InputError, match="cannot load the model: FileNotFoundError"):
        list(pool.explain(iter([Batch(0, None, np.arange(1))])))
    pool.close()


def killing(batch):
    if batch.number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch.number


def test_an_interrupt_says_how_to_go_on(tmp_path, capfd):
    explainer, options = table_explainer(models.Slow()), {"rows_per_part": 1}
    process = child(lambda: explain_dataset(explainer, rows(COUNT), tmp_path, **options))
    wait_for_a_part(process, tmp_path)
    os.kill(process, signal.SIGSTOP)  # or it might be done before it is interrupted
    os.waitpid(process, os.WUNTRACED)
    assert len(parts_in(tmp_path)) < COUNT
    os.kill(process, signal.SIGINT)
    os.kill(process, signal.SIGCONT)
    assert ended(process) == 1
    done = len(parts_in(tmp_path))
    told = capfd.readouterr().err
    assert (
        f"KeyboardInterrupt: stopped; {done} of {COUNT} parts are in {tmp_path}. The same call resumes the run." in told
    )
    found = explain_dataset(explainer, rows(COUNT), tmp_path, progress=False, **options)
    assert found.statistics["resumed_parts"] == done
