"""A row's process answers, and what it dies of is a sentence."""

import sys

import pytest
from turbo4d.tools.bench.process import RowProcess
from turbo4d.tools.bench.row import RowSpec
from turbo4d.tools.failures import JobError

SPEC = RowSpec("cpu", "20-steps", "eager", environment={"TURBO4D_A_TEST": "7"})
# Reads the spec, is ready, and then does what a test's line says at the next word.
START = """
import json, os, signal, sys, time
spec = json.loads(sys.stdin.readline())["spec"]
def say(**answer): print(json.dumps(answer), flush=True)
say(ready=True, floor_bytes=11)
word = sys.stdin.readline().strip()
"""


@pytest.fixture
def process(tmp_path):
    begun = []

    def start(line, limit_s=20.0):
        command = (sys.executable, "-c", START + line)
        begun.append(RowProcess(SPEC, tmp_path, limit_s, command))
        begun[-1].wait_ready()
        return begun[-1]

    yield start
    for each in begun:
        each.kill()
        each.close()


def test_it_answers_and_has_the_rows_environment(process):
    one = process("say(seconds=2.5, word=word, said=os.environ['TURBO4D_A_TEST'])")
    assert one.floor_bytes == 11
    assert one.ask("run") == {"seconds": 2.5, "word": "run", "said": "7"}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("say(error='peer is not installed;  pip install peer')",
         "peer is not installed; pip install peer."),
        ("print('hint: look here', file=sys.stderr); raise MemoryError('no room')",
         "its process ended with status 1 at 'run': MemoryError: no room."),
        ("sys.exit(3)", "its process ended with status 3 at 'run'."),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "its process was ended by SIGSEGV at 'run'."),
        ("os.kill(os.getpid(), signal.SIGKILL)",
         "its process was ended by SIGKILL at 'run', as the system does when memory runs out; run "
         "it alone with --rows, or with more memory."),
        ("say(error='x' * 1000)", "x" * 397 + "..."),
    ],
)  # fmt: skip
def test_how_it_failed_is_a_sentence(process, line, sentence):
    with pytest.raises(JobError) as caught:
        process(line).ask("run")
    assert str(caught.value) == sentence


def test_one_that_hangs_is_ended(process):
    one = process("time.sleep(60)", limit_s=2.0)
    with pytest.raises(JobError, match=r"^'run' took more than 2 s and was ended; raise --limit"):
        one.ask("run")


def test_one_that_died_between_words_is_found_out(process):
    one = process("say(seconds=1.0); sys.exit(0)")
    one.ask("run")
    with pytest.raises(JobError, match=r"^its process ended with status 0 at 'facts'\.$"):
        one.ask("facts")


def test_closing_ends_it(process):
    one = process("sys.stdin.read()")
    one.close()
    assert one._process.returncode == 0
