"""A process is known to be gone only where its end can be seen."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

from breakhis_search.study.process_mark import is_gone, is_here, own_mark

OTHER_MACHINE = {"host": f"{platform.node()} {'0' * 32} pid:[4026531836]"}


def test_this_process_is_here_and_alive():
    mark = own_mark()
    assert is_here(mark)
    assert not is_gone(mark)


def test_a_machine_of_the_same_name_is_another_one():
    mark = {**own_mark(), **OTHER_MACHINE, "pid": 2**22 + 1}
    assert not is_here(mark)
    assert not is_gone(mark), "nobody can see from here whether it runs"


def test_what_ran_before_the_machine_started_anew_is_gone():
    assert is_gone({**own_mark(), "boot": "another"})


def test_a_process_id_that_is_used_again_is_another_process():
    assert is_gone({**own_mark(), "started": "1"})


def test_a_process_that_has_ended_is_gone_also_while_nobody_has_noticed():
    code = "from breakhis_search.study.process_mark import own_mark; print(own_mark())"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as ended:
        mark = eval(ended.stdout.read())  # noqa: S307 - our own words
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # and leave it a zombie
        assert is_gone(mark), "a zombie"
    assert is_here(mark)
    assert is_gone(mark)
