"""The command line's contract: exit statuses, error sentences, help."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest
from turbo4d.tools.cli import COMMANDS, main

SEE = "see 'turbo4d generate --help'."


def refused(capsys, *words):
    """The status and the one sentence of a call that fails."""
    status = main([str(word) for word in words])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("turbo4d: ")
    assert printed.err.count("\n") == 1, printed.err
    return status, printed.err.removeprefix("turbo4d: ").rstrip("\n")


WRONG = {
    "unknown command": (
        ["genrate"],
        "command 'genrate' is unknown (did you mean 'generate'?); choose bench, build, calibrate, "
        "doctor, explain, generate, repeat, run, verify; see 'turbo4d --help'.",
    ),
    "command that is like none": (
        ["serve"],
        "command 'serve' is unknown; choose bench, build, calibrate, doctor, explain, generate, "
        "repeat, run, verify; see 'turbo4d --help'.",
    ),
    "unknown option": (
        ["generate", "--sceen", "4"],
        f"option '--sceen' is unknown (did you mean '--scene'?); {SEE}",
    ),
    "unknown option with a value": (
        ["generate", "--plam=fast"],
        f"option '--plam' is unknown (did you mean '--plan'?); {SEE}",
    ),
    "no abbreviations": (
        ["generate", "--comp", "--out", "x"],
        f"option '--comp' is unknown (did you mean '--compare'?); {SEE}",
    ),
    "unknown option before the command": (
        ["--jsn"],
        "option '--jsn' is unknown; see 'turbo4d --help'.",
    ),
    "stray word": (["generate", "5"], f"argument '5' was not expected; {SEE}"),
    "no --out": (["generate"], "--out is missing; name a new folder."),
    "unknown model": (
        ["generate", "--model", "nanoo", "--out", "x"],
        "--model 'nanoo' is unknown (did you mean 'nano'?); choose 'nano', 'sv4d', 'sv4d2', "
        "'sv4d2_8views', 'tiny'.",
    ),
    "unknown plan": (
        ["generate", "--plan", "balancd", "--out", "x"],
        "--plan 'balancd' is unknown (did you mean 'balanced'?); choose 'balanced', 'exact', "
        "'fast', 'none', 'quality'.",
    ),
    "missing plan file": (
        ["generate", "--plan", "mine.json", "--out", "x"],
        "--plan 'mine.json' is not a file; name a plan file or a preset.",
    ),
    "lowering of a later version": (
        ["generate", "--lowering", "tensorrt", "--out", "x"],
        "--lowering 'tensorrt' is not built yet in this version; choose 'eager', 'inductor', "
        "'native', 'onnxruntime', 'triton-kernels'.",
    ),
    "unknown region kind": (
        ["generate", "--regions", "chain,cores", "--out", "x"],
        "--regions 'cores' is unknown (did you mean 'core'?); choose 'block', 'chain', 'core', "
        "'level'.",
    ),
    "unknown dtype": (
        ["generate", "--dtype", "fp16", "--out", "x"],
        "--dtype 'fp16' is unknown (did you mean 'bf16'?); choose 'bf16', 'fp32'.",
    ),
    "negative scene": (
        ["generate", "--scene=-1", "--out", "x"],
        "argument --scene/--scenes: got '-1', wanted scene numbers from 0 such as 3 or 0,2,5 or "
        f"0-4; {SEE}",
    ),
    "empty range of scenes": (
        ["generate", "--scene", "4-2", "--out", "x"],
        "argument --scene/--scenes: got '4-2', wanted scene numbers from 0 such as 3 or 0,2,5 or "
        f"0-4; {SEE}",
    ),
    "scene and folder": (
        ["generate", "--scene", "1", "--input", "d", "--out", "x"],
        f"argument --input: not allowed with argument --scene/--scenes; {SEE}",
    ),
    "regions of a plan that reuses none": (
        ["generate", "--plan", "exact", "--regions", "chain", "--out", "x"],
        "--regions says what a preset may reuse, and --plan 'exact' is none that reuses by choice; "
        "leave --regions out, or choose 'balanced', 'fast' or 'quality'.",
    ),
    "runs of nothing": (
        ["generate", "--runs", "5", "--out", "x"],
        "--runs counts the timed runs of a comparison; add --compare.",
    ),
    "no runs": (
        ["generate", "--runs", "0", "--out", "x"],
        f"argument --runs: got '0', wanted a whole number from 1; {SEE}",
    ),
    "explain's geometry": (
        ["explain", "--geometry", "veiws=8"],
        "--geometry: axis 'veiws' is unknown (did you mean 'views'?); choose 'batch', 'frames', "
        "'height', 'views', 'width'.",
    ),
    "explain's size": (
        ["explain", "--geometry", "views=0"],
        "--geometry: views is '0'; wanted a positive whole number.",
    ),
    "explain's suffix": (
        ["explain", "--out", "x.txt"],
        "--out 'x.txt' must end in one of .html, .json, .png.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_call(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, wanted = WRONG[case]
    assert refused(capsys, *words) == (2, wanted)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_parses(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert f"example: turbo4d {command}" in text
    assert "--json" in text


def test_top_help_lists_the_commands_that_exist(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^    {command}\s", text, re.MULTILINE) for command in COMMANDS)
    assert "exit status: 0 done, 1 the job failed, 2 the call was wrong" in text


def test_debug_shows_the_traceback(capsys):
    assert main(["generate", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def run(*words, code=None, **options):
    head = ["-c", code] if code else ["-m", "turbo4d.tools.cli"]
    return subprocess.Popen(
        [sys.executable, *head, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_process_leaves_with_the_status():
    process = run("generate", "--sceen", "4")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == f"turbo4d: option '--sceen' is unknown (did you mean '--scene'?); {SEE}\n"


def test_help_loads_no_torch():
    code = (
        "import sys, turbo4d.tools.cli as cli\n"
        "try: cli.main(['generate', '--help'])\n"
        "finally: print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    )
    out, err = run(code=code).communicate(timeout=60)
    assert out.endswith("[]\n"), err


# Stands for the whole of generate's work, so that the signal meets it in the middle of a write.
# Python ignores SIGINT from the start where its parent does, as a shell's background jobs do.
STUB = """
import signal, sys, time, types
signal.signal(signal.SIGINT, signal.default_int_handler)
def generate(args, folder, say):
    (folder / "turbo.gif").write_text("half")
    {body}
stub = types.ModuleType("turbo4d.tools.generation")
stub.generate = generate
sys.modules["turbo4d.tools.generation"] = stub
from turbo4d.tools.cli import main
sys.argv = ["turbo4d", "generate", "--out", sys.argv[1]]
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing(tmp_path, number):
    process = run(tmp_path / "deep" / "out", code=STUB.format(body="time.sleep(60)"))
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("deep/.out.*/turbo.gif")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    with process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err == "turbo4d: interrupted; nothing was written.\n"
    assert list(tmp_path.iterdir()) == []


def test_an_unforeseen_error_is_named_as_a_defect(tmp_path):
    process = run(tmp_path / "out", code=STUB.format(body="raise KeyError('x')"))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == (
        "turbo4d: this is a defect of turbo4d (KeyError: 'x'); run the command again with --debug "
        "and report what it shows.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_doctor_names_every_lowering(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    usable = {row["name"]: row["usable"] for row in found["lowerings"]}
    assert usable["eager"]
    assert not usable["tensorrt-rtx"]
    reasons = {row["name"]: row["reason"] for row in found["lowerings"]}
    assert reasons["inductor"].startswith("on cpu, ")
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in usable)
