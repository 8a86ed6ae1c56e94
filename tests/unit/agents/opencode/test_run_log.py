"""A run's own conversations are told from those of another Opencode in the same folder."""

from pathlib import Path

from opencode_gate.agents.opencode.run_log import conversations_of_run

LOG = """\
timestamp=2026-11-21T18:44:09Z run=9a48c5eb message="creating instance" directory=/p
timestamp=2026-11-21T18:44:09Z run=9a48c5eb message=loading path=/h/run/01OURS/opencode.json
timestamp=2026-11-21T18:44:09Z run=77777777 message=loading path=/h/run/01THEIRS/opencode.json
timestamp=2026-11-21T18:44:09Z run=9a48c5eb message=created id=ses_ours slug=sunny-moon
timestamp=2026-11-21T18:44:09Z run=77777777 message=created id=ses_theirs slug=a
timestamp=2026-11-21T18:44:09Z run=9a48c5eb message=loop session.id=ses_resumed step=0
timestamp=2026-11-21T18:44:09Z run=55555555 message=created id=ses_plain slug=b
"""


def log(folder: Path, text: str) -> Path:
    (folder / "log").mkdir()
    (folder / "log" / "opencode.log").write_text(text)
    return folder


def test_a_run_is_known_by_the_configuration_it_loaded(tmp_path):
    """Its lines name what it began and what it took up; a plain Opencode is nobody's."""
    data = log(tmp_path, LOG)
    assert conversations_of_run(data, "01OURS") == {"ses_ours", "ses_resumed"}
    assert conversations_of_run(data, "01THEIRS") == {"ses_theirs"}


def test_a_folder_with_a_space_in_its_name_is_known_too(tmp_path):
    data = log(
        tmp_path, LOG.replace("path=/h/run/01OURS/opencode.json", 'path="/h h/01OURS/o.json"')
    )
    assert conversations_of_run(data, "01OURS") == {"ses_ours", "ses_resumed"}


def test_a_run_that_had_no_conversation_had_none(tmp_path):
    data = log(tmp_path, "run=9a48c5eb message=loading path=C:\\\\run\\\\01OURS\\\\opencode.json\n")
    assert conversations_of_run(data, "01OURS") == frozenset()


def test_early_versions_write_a_log_for_each_run(tmp_path):
    (tmp_path / "log").mkdir()
    ours = """\
INFO  2026-11-21T19:15:12 +2ms service=config path=/h/run/01OURS/opencode.json loading
INFO  2026-11-21T19:15:12 +12ms service=session id=ses_ours slug=misty-cabin version=1.14.41
"""
    (tmp_path / "log/2026-11-21T191511.log").write_text(ours)
    theirs = ours.replace("01OURS", "01THEIRS").replace("ses_ours", "ses_theirs")
    (tmp_path / "log/2026-11-21T191512.log").write_text(theirs)
    assert conversations_of_run(tmp_path, "01OURS") == {"ses_ours"}


def test_a_log_that_does_not_say_gives_none(tmp_path):
    assert conversations_of_run(tmp_path, "01OURS") is None
    data = log(tmp_path, LOG)
    assert conversations_of_run(data, "01NOBODY") is None
    assert conversations_of_run(data, "01OUR") is None
