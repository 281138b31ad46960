"""Every line once, whatever libraries do with the root logger."""

import logging

from mmovseg.engine.log import close_logging, setup_logging


def test_a_library_that_logs_through_the_root_does_not_double_our_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])
    setup_logging(tmp_path)
    try:
        logging.warning("a library speaks")  # Python would now print everything that reaches the root
        logging.getLogger("mmovseg.engine").info("our line")
    finally:
        close_logging()
    captured = capsys.readouterr()
    assert captured.out.count("our line") == 1 and "our line" not in captured.err
    assert (tmp_path / "log.txt").read_text().count("our line") == 1
