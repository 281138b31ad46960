import re
import subprocess

from mmovseg.evaluation import provenance


def test_versions_name_what_can_change_a_result():
    versions = provenance.installed_versions()
    assert {"python", "torch", "numpy"} <= set(versions)
    assert all(re.match(r"\d+\.\d+", version) for version in versions.values())


def test_commit_is_a_hash_or_none_outside_of_a_checkout(monkeypatch):
    provenance.source_commit.cache_clear()
    commit = provenance.source_commit()
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit)
    provenance.source_commit.cache_clear()

    def no_git(*arguments, **settings):
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(provenance.subprocess, "run", no_git)
    assert provenance.source_commit() is None
    provenance.source_commit.cache_clear()
