"""What belongs to the process and is used by several threads."""

import os
import threading

from mmovseg.inference.scene.disk import libtiff_silenced


def test_two_threads_that_overlap_give_standard_error_back(capfd):
    entered, leave = threading.Event(), threading.Event()

    def second():
        with libtiff_silenced():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=second)
    with libtiff_silenced():
        thread.start()
        assert entered.wait(10)
    os.write(2, b"still silent")
    leave.set()
    thread.join()
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
    with libtiff_silenced():
        os.write(2, b"silent again")
    assert capfd.readouterr().err == ""
